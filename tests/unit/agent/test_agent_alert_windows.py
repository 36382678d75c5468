# SPDX-License-Identifier: GPL-3.0-or-later
"""Alerts that live on the last five minutes of traffic, and on the calendar: raised and cleared as time goes by."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from whats_agent.alerts import gather as gathering
from whats_agent.alerts import keeper
from whats_agent.alerts.gather import RECENT_SECONDS, gather
from whats_agent.alerts.keeper import CLEAR_AFTER, RAISE_AFTER, ROUND_SECONDS, Keeper
from whats_agent.message_log import MessageLog
from whats_agent.metrics import Recorder, layout
from whats_agent.settings import WebSettings, load

UP: dict[str, dict[str, Any]] = {name: {"state": "up"} for name in ("message_log", "postgres", "redis", "worker")}


class Day:
    """A clock that all of them go by, and a keeper that looks every fifteen seconds of it."""

    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1_764_000_000.0
        monkeypatch.setattr("time.time", lambda: self.now)
        monkeypatch.setattr(gathering, "_of_the_database", lambda *_: {})
        monkeypatch.setattr(gathering, "_certificate_days", lambda _: None)
        monkeypatch.setattr(gathering, "_disk_free", lambda _: 0.5)
        self._directory = directory
        self.recorder = Recorder(directory)
        self.parts = {name: dict(part) for name, part in UP.items()}
        settings = load(WebSettings)
        message_log = MessageLog(directory)
        self._keeper = Keeper(directory, lambda: gather(settings, message_log, self.parts))

    def go_on(self, seconds: float) -> None:
        for _ in range(int(seconds / ROUND_SECONDS)):
            self.now += ROUND_SECONDS
            self._keeper.evaluate()

    def active(self) -> list[str]:
        return [alert.name for alert in keeper.read(self._directory)[1] if alert.active]


@pytest.fixture
def day(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, environment: dict[str, str]) -> Day:
    monkeypatch.setenv("MESSAGE_LOG_DIR", str(tmp_path))
    monkeypatch.setenv("LOG_DIR", str(tmp_path))
    assert environment
    return Day(tmp_path, monkeypatch)


def slow(day: Day) -> None:
    for _ in range(30):
        day.recorder.request("webhook", 200, 2.5)


def failing_requests(day: Day) -> None:
    for number in range(100):
        day.recorder.request("webhook", 503 if number < 6 else 200, 0.01)


def failing_answers(day: Day) -> None:
    for number in range(100):
        day.recorder.observe(layout.ANSWER, 1.0, error=number < 6)


def refused(day: Day) -> None:
    for _ in range(30):
        day.recorder.observe(layout.REFUSED, 0.001)


@pytest.mark.parametrize(
    ("happens", "name"),
    [
        (slow, "response_time"),
        (failing_requests, "error_rate"),
        (failing_answers, "error_rate"),
        (refused, "refused_webhooks"),
    ],
)
def test_raised_within_half_a_minute_and_cleared_when_the_window_has_passed(
    day: Day, caplog: pytest.LogCaptureFixture, happens: Callable[[Day], None], name: str
) -> None:
    day.go_on(60)
    assert day.active() == []
    happens(day)
    with caplog.at_level("INFO"):
        day.go_on(RAISE_AFTER * ROUND_SECONDS)
        assert day.active() == [name]
        day.go_on(RECENT_SECONDS - 60)
        assert day.active() == [name]
        day.go_on(60 + CLEAR_AFTER * ROUND_SECONDS)
    assert day.active() == []
    assert caplog.text.count(f"event=alert_raised alert={name}") == 1
    assert caplog.text.count(f"event=alert_cleared alert={name}") == 1


def test_a_graph_version_near_its_end_until_another_is_configured(day: Day) -> None:
    today = datetime.fromtimestamp(day.now, UTC).date()
    day.parts["worker"] |= {"graph_version": "v25.0", "graph_version_expires": str(today)}
    day.go_on(RAISE_AFTER * ROUND_SECONDS)
    assert day.active() == ["graph_version"]
    day.parts["worker"] |= {"graph_version": "v26.0", "graph_version_expires": None}
    day.go_on(CLEAR_AFTER * ROUND_SECONDS)
    assert day.active() == []
