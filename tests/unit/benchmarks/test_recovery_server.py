# SPDX-License-Identifier: GPL-3.0-or-later
"""What the benchmark reads from the server it breaks."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.benchmarks.recovery_server import BenchmarkError, Server

OPEN = '{"event": "open", "boot": 100.5, "run_id": "b"}\n'
TAKEOVER = '{"event": "takeover", "boot": 123.0, "of": "a"}\n'
CLOSE = '{"event": "close", "outcome": "recovered", "cause": "container_stopped"}\n'
NOTIFY = '{"event": "notify", "sent": true}\n'


class Journals(Server):
    """A server with these journals, by file name."""

    def __init__(self, journals: dict[str, str]) -> None:
        super().__init__("none", Path("none"))
        self.journals = journals

    def run(self, *argv: str, stdin: str | None = None) -> str:
        return "\n".join(self.journals) if argv[0] == "sh" else self.journals[argv[-1]]


def test_the_newest_run_is_told_even_when_word_of_it_was_sent_afterwards() -> None:
    server = Journals({"runs/a.jsonl": OPEN, "runs/b.jsonl": OPEN + CLOSE + NOTIFY})
    assert server.last_run()["cause"] == "container_stopped"
    assert server.last_run()["waited"] == 0.0


def test_the_wait_for_the_lease_of_a_dead_run_is_told() -> None:
    assert Journals({"runs/b.jsonl": OPEN + TAKEOVER + CLOSE}).last_run()["waited"] == 22.5


def test_a_run_that_has_not_ended_is_none() -> None:
    server = Journals({"runs/a.jsonl": OPEN + CLOSE, "runs/b.jsonl": OPEN})
    with pytest.raises(BenchmarkError, match=r"runs/b\.jsonl has not ended: its last line is open"):
        server.last_run()
