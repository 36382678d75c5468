# SPDX-License-Identifier: GPL-3.0-or-later
"""Processes of a silent server: read from what /proc really said of one, chosen by state and by title."""

from __future__ import annotations

import pytest
from ansible.module_utils.whats_agent.postgres_processes import (
    Process,
    descendants,
    idle,
    parse_stat,
    stopped,
    stopped_server,
)

STAT = "1356 (postgres: a (b)) T 1330 1356 1330 0 -1 4194560 9 0 0 0 3 1 0 0 20 0 1 0 882211 228413440 7000"


def process(pid: int, parent: int = 1, state: str = "S", started: int = 0, title: str = "") -> Process:
    return Process(pid, parent, state, started, title)


def test_a_command_with_parentheses_and_spaces_is_read() -> None:
    assert parse_stat(STAT, "postgres") == Process(1356, parent=1330, state="T", started=882211, title="postgres")


def test_only_what_descends_from_the_container_is_its_own() -> None:
    all_of_the_host = [
        process(1, 0),
        process(10, 1, started=5),
        process(11, 10, started=9),
        process(12, 11),
        process(20, 1),
    ]
    assert [p.pid for p in descendants(all_of_the_host, 10)] == [12, 10, 11]
    assert descendants(all_of_the_host, 99) == ()


def test_a_debuggers_stop_is_not_ours_to_end() -> None:
    assert [p.pid for p in stopped([process(1, state="T"), process(2, state="t"), process(3)])] == [1]


def test_a_stopped_backend_is_not_the_stopped_server() -> None:
    server, backend = process(11, 10), process(12, 11, state="T")
    assert stopped_server([process(10), server, backend], 10) is None
    halted = process(11, 10, state="T")
    assert stopped_server([process(10), halted, backend], 10) == halted


@pytest.mark.parametrize(
    ("title", "is_idle"),
    [
        ("postgres: whats_agent whats_agent 172.19.0.4(51624) idle", True),
        ("postgres: postgres postgres [local] idle", True),
        ("postgres: whats_agent whats_agent 172.19.0.4(51624) idle in transaction", False),
        ("postgres: whats_agent whats_agent 172.19.0.4(51624) SELECT", False),
        ("postgres: checkpointer", False),
        ("postgres: walwriter", False),
    ],
)
def test_a_backend_is_idle_by_what_it_calls_itself(title: str, is_idle: bool) -> None:
    assert bool(idle([process(1, title=title)])) is is_idle


def test_who_holds_most_is_ended_first() -> None:
    leak = [process(n, title=f"postgres: whats_agent whats_agent 172.19.0.1({n}) idle") for n in (5, 6, 7)]
    worker = [process(n, title=f"postgres: whats_agent whats_agent 172.19.0.3({n}) idle") for n in (1, 2)]
    assert [p.pid for p in idle([*worker, *leak])] == [5, 6, 7, 1, 2]
