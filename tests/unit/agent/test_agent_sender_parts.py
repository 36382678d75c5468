# SPDX-License-Identifier: GPL-3.0-or-later
"""The parts of the sender that need no database: stop switch, breaker, read marks, replaced secrets, version dates."""

import threading
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import cast
from uuid import UUID

import pytest
import redis

from whats_agent.errors import AnswerError
from whats_agent.graph import versions
from whats_agent.graph.outcome import GraphAnswer
from whats_agent.openai_client.breaker import Breaker
from whats_agent.openai_client.client import OpenAIAnswerer
from whats_agent.openai_client.shared_breaker import SharedBreaker
from whats_agent.outbox.records import Outcome
from whats_agent.secret_file import Replaceable
from whats_agent.sender.read_marks import MAX_WAITING, ReadMarks
from whats_agent.sender.stop_switch import StopSwitch


class Clock:
    """Time that moves when told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("whats_agent.sender.stop_switch.time.monotonic", clock)
    return clock


def in_thread(call: Callable[[], bool]) -> bool:
    """What ``call`` says in another thread."""
    answers: list[bool] = []
    thread = threading.Thread(target=lambda: answers.append(call()))
    thread.start()
    thread.join()
    return answers[0]


def test_a_stopped_sender_lets_one_thread_try_after_each_pause(clock: Clock) -> None:
    switch = StopSwitch(30)
    assert switch.may_send()
    switch.stop("190 token expired")
    assert not switch.may_send()
    clock.now += 31
    assert switch.may_send()
    assert not in_thread(switch.may_send), "one at a time"
    switch.stop("190 token expired")
    assert not switch.may_send()
    clock.now += 31
    assert in_thread(switch.may_send)
    assert not switch.may_send()
    switch.succeeded()
    assert switch.may_send()
    assert in_thread(switch.may_send)
    assert switch.reason is None


def test_a_trial_that_found_nothing_to_send_is_passed_on(clock: Clock) -> None:
    switch = StopSwitch(30)
    switch.stop("x")
    clock.now += 31
    assert switch.may_send()
    switch.trial_over()
    assert in_thread(switch.may_send)


def test_breaker_opens_tries_once_and_closes() -> None:
    clock = Clock()
    breaker = Breaker(2, 30, clock)
    breaker.failed()
    assert breaker.allows()
    breaker.succeeded()
    breaker.failed()
    breaker.failed()
    assert breaker.is_open
    assert not breaker.allows()
    clock.now += 30
    assert breaker.allows()
    assert not breaker.allows(), "one trial at a time"
    breaker.failed()
    assert not breaker.allows()
    clock.now += 30
    assert breaker.allows()
    breaker.succeeded()
    assert breaker.allows()
    assert not breaker.is_open


class FakeRedis:
    """A Redis of one key, which may be away."""

    def __init__(self) -> None:
        self.keys_set: set[str] = set()
        self.away = False
        self.calls = 0

    def _answer(self) -> None:
        self.calls += 1
        if self.away:
            raise redis.ConnectionError

    def exists(self, *names: object) -> int:
        self._answer()
        return len(self.keys_set & {str(name) for name in names})

    def set(self, name: object, value: object, **options: object) -> bool:
        self._answer()
        self.keys_set.add(str(name))
        return True

    def delete(self, *names: object) -> int:
        self._answer()
        self.keys_set -= {str(name) for name in names}
        return 1


def test_processes_hold_back_together_and_alone_without_redis() -> None:
    server = FakeRedis()
    client = cast("redis.Redis", server)
    first, second = SharedBreaker(1, 0.01, client), SharedBreaker(1, 60, client)
    second.failed()
    assert not first.allows()
    second.succeeded()
    assert not server.keys_set
    server.away = True
    third = SharedBreaker(1, 60, client)
    assert third.allows()
    calls = server.calls
    third.failed()
    assert not third.allows()
    assert server.calls == calls, "a Redis that is away is left alone for a while"


def test_an_open_breaker_asks_nobody() -> None:
    breaker = Breaker(1, 60)
    breaker.failed()
    answerer = OpenAIAnswerer(
        "key", "http://127.0.0.1:9", "model", timeout=1, max_retries=0, max_tokens=16, breaker=breaker
    )
    with pytest.raises(AnswerError, match="breaker is open"):
        answerer.answer([{"role": "user", "content": "Oi"}])


def test_openai_out_of_reach_is_an_answer_error_and_counts() -> None:
    breaker = Breaker(1, 60)
    answerer = OpenAIAnswerer(
        "key", "http://127.0.0.1:9", "model", timeout=1, max_retries=0, max_tokens=16, breaker=breaker
    )
    with pytest.raises(AnswerError, match="APIConnectionError"):
        answerer.answer([{"role": "user", "content": "Oi"}])
    assert breaker.is_open


class FakeGraph:
    """Remembers read marks."""

    def __init__(self) -> None:
        self.marked: list[tuple[str, bool]] = []
        self.seen = threading.Event()

    def send_text(
        self, phone_number_id: str, wa_id: str | None, user_id: str | None, text: str, callback_data: UUID
    ) -> GraphAnswer:
        return GraphAnswer(Outcome.SENT, "wamid.1")

    def mark_read(self, phone_number_id: str, wamid: str, *, typing: bool) -> bool:
        self.marked.append((wamid, typing))
        self.seen.set()
        return True


def test_read_marks_are_sent_by_their_own_thread_and_dropped_when_too_many() -> None:
    graph = FakeGraph()
    marks = ReadMarks(graph, enabled=True, typing=True)
    for number in range(MAX_WAITING + 50):
        marks.add("555", f"wamid.{number}")
    stop = threading.Event()
    thread = threading.Thread(target=marks.run, args=(stop,))
    thread.start()
    assert graph.seen.wait(5)
    while len(graph.marked) < MAX_WAITING:
        graph.seen.clear()
        assert graph.seen.wait(5)
    stop.set()
    thread.join(5)
    assert graph.marked == [(f"wamid.{number}", True) for number in range(MAX_WAITING)]


def test_a_replaced_secret_file_takes_effect(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "token"
    path.write_text("first-secret-of-this-test\n", encoding="utf-8")
    monkeypatch.delenv("META_ACCESS_TOKEN", raising=False)
    monkeypatch.setenv("META_ACCESS_TOKEN_FILE", str(path))
    token = Replaceable("META_ACCESS_TOKEN", "first-secret-of-this-test")
    assert token() == "first-secret-of-this-test"
    fresh = tmp_path / "fresh"
    fresh.write_text("second-secret-of-this-test\n", encoding="utf-8")
    fresh.replace(path)
    assert token() == "second-secret-of-this-test"
    path.write_text("", encoding="utf-8")
    assert token() == "second-secret-of-this-test"
    path.unlink()
    assert token() == "second-secret-of-this-test"


def test_a_secret_of_the_environment_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("META_ACCESS_TOKEN", "x")
    monkeypatch.setenv("META_ACCESS_TOKEN_FILE", "/nonexistent")
    assert Replaceable("META_ACCESS_TOKEN", "given-at-the-start")() == "given-at-the-start"


def test_days_left_of_a_graph_version() -> None:
    assert versions.days_left("v17.0", date(2025, 9, 13)) == -1
    assert versions.days_left("v21.0", date(2026, 11, 24)) == 58
    assert (
        versions.days_left("v26.0", date(2028, 7, 28)) == 1
    )  # not announced yet: the earliest day that Meta allows itself
    assert versions.days_left("v99.0", date(2026, 1, 1)) is None
    assert versions.days_left("v99.0", date(2026, 1, 1), date(2026, 1, 31)) == 30


def test_the_versions_table_has_one_end_each_and_in_order() -> None:
    ends = [versions.EXPIRES[name] for name in sorted(versions.EXPIRES)]
    assert ends == sorted(ends)
    assert not versions.EXPIRES.keys() & versions.EARLIEST.keys()
