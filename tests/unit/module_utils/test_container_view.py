# SPDX-License-Identifier: GPL-3.0-or-later
"""What a container suffers from, as far as the engine can tell."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from ansible.module_utils.whats_agent.container_view import ContainerView, age_of, masked_lines, view
from ansible.module_utils.whats_agent.docker_host import ContainerState, Process, parse_container
from ansible.module_utils.whats_agent.errors import WhatsAgentError

INSPECTED = {
    "Id": "c1",
    "Name": "/whats_agent-app-1",
    "Image": "sha256:1",
    "RestartCount": 0,
    "Config": {"Labels": {"com.docker.compose.service": "app", "com.docker.compose.config-hash": "h1"}},
    "HostConfig": {"Memory": 536870912},
    "State": {"Status": "running", "ExitCode": 0, "StartedAt": "2026-11-24T17:00:00.5Z"},
}
STATE = parse_container(INSPECTED)
WELL = ContainerView("c1", "whats_agent-app-1", "app", "running", 0, False, 0, "healthy", "", 900.0, 0)


class FakeDocker:
    """An engine that knows one container; `processes` may be an error, as when it has just ended."""

    def __init__(self, processes: list[Process] | WhatsAgentError, now: ContainerState | None = None) -> None:
        self._processes = processes
        self._now = now
        self.read = 0

    def processes(self, _container: str) -> list[Process]:
        if isinstance(self._processes, WhatsAgentError):
            raise self._processes
        return self._processes

    def inspect_if_present(self, _container: str) -> ContainerState | None:
        return self._now

    def logs(self, _container: str, tail: int) -> str:
        self.read += 1
        return f"first\nthe last of {tail}: token=abcdefgh\n"


def look(docker: FakeDocker, state: ContainerState = STATE) -> ContainerView:
    """Look through a fake engine."""
    return view(docker, state, [])  # type: ignore[arg-type]


def test_one_that_is_well_is_not_asked_for_its_log() -> None:
    docker = FakeDocker([Process(7, "Ss", "tini")])
    seen = look(docker)
    assert (seen.fault, seen.processes, seen.stopped, docker.read) == (None, 1, (), 0)
    assert (seen.memory_limit, seen.labels_hash) == (536870912, "h1")


def test_processes_that_a_signal_stopped_are_named() -> None:
    seen = look(FakeDocker([Process(7, "T", "tini"), Process(8, "Tl", "python3"), Process(9, "S", "x")]))
    assert seen.fault == "processes_stopped"
    assert "2 of 3 processes stopped" in seen.describe()


def test_one_that_ends_while_it_is_looked_at_is_said_to_have_ended() -> None:
    ended = replace(STATE, status="exited", exit_code=1)
    seen = look(FakeDocker(WhatsAgentError("container is not running"), ended))
    assert seen.fault == "exited"
    assert seen.log[0] == "first"
    assert "abcdefgh" not in seen.log[1]


@pytest.mark.parametrize("now", [None, STATE])
def test_an_engine_that_does_not_tell_is_an_error(now: ContainerState | None) -> None:
    with pytest.raises(WhatsAgentError, match="cannot"):
        look(FakeDocker(WhatsAgentError("cannot list"), now))


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({}, None),
        ({"status": "paused"}, "paused"),
        ({"status": "exited", "exit_code": 0}, "stopped"),
        ({"status": "exited", "exit_code": 137}, "stopped"),
        ({"status": "exited", "exit_code": 137, "oom_killed": True}, "out_of_memory"),
        ({"status": "exited", "exit_code": 2}, "exited"),
        ({"status": "created", "exit_code": 128}, "stopped"),
        ({"status": "restarting"}, "crash_loop"),
        ({"status": "restarting", "oom_killed": True}, "out_of_memory"),
        ({"restart_count": 3, "uptime": 5.0}, "crash_loop"),
        ({"restart_count": 3, "uptime": 500.0}, None),
        ({"stopped": (7,)}, "processes_stopped"),
    ],
)
def test_faults(changes: dict[str, Any], fault: str | None) -> None:
    assert replace(WELL, **changes).fault == fault


def test_ages_are_seconds_and_none_before_the_first_start() -> None:
    now = datetime(2026, 11, 24, 17, 1, 0, tzinfo=UTC)
    assert age_of("2026-11-24T17:00:00Z", now) == 60.0
    assert age_of("0001-01-01T00:00:00Z", now) is None


def test_only_the_last_lines_are_kept_and_no_secret() -> None:
    text = "\n".join(f"line {number}" for number in range(20)) + "\n\nlast with hunter2-hunter2\n"
    lines = masked_lines(text, ["hunter2-hunter2"], count=2)
    assert lines == ("line 19", "last with [redacted]")
