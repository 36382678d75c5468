# SPDX-License-Identifier: GPL-3.0-or-later
"""What becomes of commits that wait for a WAL receiver: it comes back, or they go on without it."""

from __future__ import annotations

import contextlib
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from ansible.module_utils.whats_agent import postgres_mend_sessions as sessions
from ansible.module_utils.whats_agent.errors import WhatsAgentError

if TYPE_CHECKING:
    from collections.abc import Iterator

ORDER = sessions.Order(write=True)


class Stack:
    """The receiver's container, which has died `deaths` times and dies once more at each look unless it `streams`."""

    def __init__(self, *, deaths: int, streams: bool, bypassed: bool = False, waited_for: bool = True) -> None:
        """Begin with nothing done."""
        self.waited_for = waited_for and not bypassed
        self.deaths = deaths
        self.streams = streams
        self.bypassed = bypassed
        self.did: list[str] = []
        self.place = SimpleNamespace(project="whats_agent")
        self.docker = self.compose = self

    def start(self, service: str) -> None:
        """Start by compose."""
        self.did.append(f"start {service}")

    def stop(self, service: str, *, timeout_s: int) -> None:
        """Stop by compose."""
        assert timeout_s > 0
        self.did.append(f"stop {service}")

    def container(self, _project: str, _service: str) -> SimpleNamespace:
        """Look at the receiver's container."""
        seen = SimpleNamespace(id="c1", restart_count=self.deaths)
        if not self.streams:
            self.deaths += 1
        return seen

    def restart(self, container: str, *, grace: int) -> None:
        """Start it anew, by the engine."""
        assert grace > 0
        self.did.append(f"restart {container}")

    def execute(self, statement: str) -> SimpleNamespace:
        """Answer as the server does."""
        if "current_setting" in statement:
            return SimpleNamespace(fetchone=lambda: (self.waited_for,))
        if statement.startswith("select exists"):
            answer = self.bypassed if "pg_file_settings" in statement else self.streams
            return SimpleNamespace(fetchone=lambda: (answer,))
        self.did.append(statement)
        return SimpleNamespace()


@pytest.fixture
def mend(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Mend a stack, without waiting."""

    def run(stack: Stack) -> list[str]:
        @contextlib.contextmanager
        def database(*_arguments: object) -> Iterator[Stack]:
            yield stack

        monkeypatch.setattr(sessions, "database", database)
        monkeypatch.setattr(sessions, "SYSTEM_CLOCK", SimpleNamespace(boottime=lambda: 0.0, sleep=lambda _s: None))
        done: list[str] = sessions.mend_receiver(stack, ORDER)  # type: ignore[arg-type]
        return done

    return run


def test_a_stopped_receiver_is_only_started(mend: Any) -> None:
    stack = Stack(deaths=0, streams=True)
    assert mend(stack) == ["started the WAL receiver"]
    assert stack.did == ["start wal_receiver", "select pg_reload_conf()"]


def test_one_that_the_engine_waits_with_is_started_anew(mend: Any) -> None:
    stack = Stack(deaths=9, streams=True, bypassed=True)
    assert mend(stack) == ["started the WAL receiver", "had commits wait for it again"]
    assert stack.did[:2] == ["start wal_receiver", "restart c1"]
    assert "alter system reset synchronous_standby_names" in stack.did


def test_one_that_dies_again_and_again_is_stopped_and_commits_go_on(mend: Any) -> None:
    stack = Stack(deaths=0, streams=False)
    assert "stopped it" in mend(stack)[0]
    assert "alter system set synchronous_standby_names = ''" in stack.did
    assert stack.did[-1] == "stop wal_receiver"


def test_one_that_stays_away_while_commits_go_on_without_it_is_an_error(mend: Any) -> None:
    with pytest.raises(WhatsAgentError, match="does not come back"):
        mend(Stack(deaths=0, streams=False, bypassed=True))


def test_one_that_nothing_waits_for_and_that_stays_away_is_an_error_and_left_to_the_engine(mend: Any) -> None:
    stack = Stack(deaths=0, streams=False, waited_for=False)
    with pytest.raises(WhatsAgentError, match="does not come back"):
        mend(stack)
    assert stack.did == ["start wal_receiver"]
