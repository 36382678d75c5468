# SPDX-License-Identifier: GPL-3.0-or-later
"""What the backups' timer does around its work: mute, lock, journal and word for the alerts, whatever happens to it."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.whats_agent import backup_status, backup_timer
from ansible.module_utils.whats_agent.clock import SYSTEM_CLOCK
from ansible.module_utils.whats_agent.control import Control
from ansible.module_utils.whats_agent.errors import WhatsAgentError
from ansible.module_utils.whats_agent.journal import Journal, read_events, run_ids, run_path
from ansible.module_utils.whats_agent.lock import HostLock, heartbeat
from ansible.module_utils.whats_agent.run import About, Run, Settings

BY = {"user": "ana", "controller": "laptop", "entry_point": "oncall"}
DEAD = "20260101T000000Z-00000001"


def test_a_muted_timer_does_nothing_says_so_and_records_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def work(*_arguments: Any) -> dict[str, Any]:
        raise AssertionError("it worked although it is muted")

    monkeypatch.setattr(backup_timer, "work", work)
    Control(tmp_path, BY).mute("backup", 600, "the repository moves")
    assert backup_timer.main(["diff", "--state-dir", str(tmp_path)]) == 0
    assert "muted until" in capsys.readouterr().err
    (record,) = (tmp_path / "runs").glob("*.jsonl")
    opened, closed = (json.loads(line) for line in record.read_text().splitlines())
    assert (opened["component"], opened["entry_point"]) == ("backup", "timer")
    assert closed["outcome"] == "refused"
    assert "the repository moves" in closed["reason"]["pt"]
    assert not (tmp_path / "lock.json").exists()


def test_a_mute_of_another_component_does_not_hold_it_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backup_timer, "work", lambda *_arguments: {"steps": []})
    Control(tmp_path, BY).mute("database", 600, "elsewhere")
    assert backup_timer.main(["diff", "--state-dir", str(tmp_path), "--stack-dir", str(tmp_path)]) == 0
    (record,) = (tmp_path / "runs").glob("*.jsonl")
    assert json.loads(record.read_text().splitlines()[-1])["outcome"] == "recovered"


def test_a_timer_waits_for_an_operator_s_run_and_gives_up_naming_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(backup_timer, "WAIT_S", 0.3)
    monkeypatch.setattr(backup_timer, "RETRY_S", 0.1)
    HostLock(tmp_path).acquire("20260131T120000Z-00000001", "database", BY)
    with heartbeat("20260131T120000Z-00000001", tmp_path, interval=0.05):
        assert backup_timer.main(["diff", "--state-dir", str(tmp_path)]) == backup_timer.EXIT_LOCKED
    assert "20260131T120000Z-00000001 (database) of ana@laptop through oncall" in capsys.readouterr().err


def test_an_operator_s_run_is_refused_while_a_timer_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[dict[str, Any]] = []

    def work(*_arguments: Any) -> dict[str, Any]:
        holder = {**BY, "entry_point": "ansible-playbook"}
        seen.append(Run.new(Settings(tmp_path), About("box", "database")).open(holder))
        return {"steps": []}

    monkeypatch.setattr(backup_timer, "heartbeat", lambda *arguments: heartbeat(*arguments, interval=0.05))
    monkeypatch.setattr(backup_timer, "work", work)
    assert backup_timer.main(["diff", "--state-dir", str(tmp_path), "--stack-dir", str(tmp_path)]) == 0
    (opened,) = seen
    assert opened["result"]["outcome"] == "refused"
    assert "through timer" in opened["result"]["message"]["en"]


class Told:
    """What the agent's alerts were told."""

    def __init__(self) -> None:
        self.done: list[str | None] = []
        self.failed: list[tuple[str, str] | None] = []

    def write(self, *_args: Any, done: str | None = None, failed: tuple[str, str] | None = None) -> None:
        self.done.append(done)
        self.failed.append(failed)


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Told:
    told = Told()
    monkeypatch.setattr(backup_status, "write", told.write)
    return told


def _run(state_dir: Path) -> tuple[int, list[dict[str, Any]]]:
    """Run the hourly timer; return its exit code and its journal."""
    before = set(run_ids(state_dir))
    code = backup_timer.main(["incr", "--state-dir", str(state_dir), "--stack-dir", str(state_dir / "stack")])
    (own,) = set(run_ids(state_dir)) - before
    return code, read_events(run_path(state_dir, own))


def _die(state_dir: Path) -> None:
    """Leave a lease and an open journal behind, as a run whose machine was switched off does."""
    lock = HostLock(state_dir, clock=replace(SYSTEM_CLOCK, boot_id=lambda: "an earlier boot"))
    lock.acquire(DEAD, "database", BY)
    Journal(state_dir, DEAD).write("open", component="database")


def test_a_dead_run_that_a_timer_comes_upon_is_closed(
    tmp_path: Path, told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backup_timer, "work", lambda *_args: {"steps": []})
    _die(tmp_path)
    code, events = _run(tmp_path)
    assert (code, told.done) == (backup_timer.EXIT_DONE, ["incr"])
    assert [event["event"] for event in events] == ["open", "takeover", "close"]
    assert events[1]["of"] == DEAD
    closed = read_events(run_path(tmp_path, DEAD))[-1]
    assert (closed["event"], closed["outcome"], closed["taken_over_by"]) == ("close", "abandoned", events[0]["run"])


@pytest.mark.parametrize(
    ("failure", "said"),
    [
        (WhatsAgentError("no space", outcome="x", event="y", run="z"), r"^no space$"),
        (TypeError("int() of None"), r"^unforeseen TypeError at test_backup_timer\.py:\d+: int\(\) of None$"),
        (ConnectionResetError("DB_PASSWORD=hunter2-long"), r"^unforeseen ConnectionResetError at .*\[redacted\]$"),
    ],
)
def test_whatever_fails_the_run_is_closed_and_the_alerts_are_told(
    failure: Exception,
    said: str,
    *,
    tmp_path: Path,
    told: Told,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def work(*_args: Any) -> dict[str, Any]:
        raise failure

    monkeypatch.setattr(backup_timer, "work", work)
    code, events = _run(tmp_path)
    assert code == backup_timer.EXIT_FAILED
    assert re.search(said, capsys.readouterr().err.splitlines()[-1])
    assert (events[-1]["event"], events[-1]["outcome"]) == ("close", "acted_not_recovered")
    (failed,) = told.failed
    assert failed is not None
    assert failed[0] == "incr"
    assert re.search(said, failed[1])
    assert not (tmp_path / "lock.json").exists()


def test_a_journal_that_cannot_be_closed_leaves_nobody_untold(
    tmp_path: Path, told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_args: Any, **_fields: Any) -> None:
        raise OSError(28, "No space left on device")

    def work(*_args: Any) -> dict[str, Any]:
        monkeypatch.setattr(Journal, "write", full)
        return {"steps": []}

    monkeypatch.setattr(backup_timer, "work", work)
    code, _ = _run(tmp_path)
    assert code == backup_timer.EXIT_FAILED
    assert "No space left" in str(told.failed)
    assert not (tmp_path / "lock.json").exists()


def test_a_lock_of_another_shape_is_told_too(tmp_path: Path, told: Told) -> None:
    (tmp_path / "lock.json").write_text('{"run": 1}')
    assert backup_timer.main(["incr", "--state-dir", str(tmp_path), "--stack-dir", str(tmp_path)]) == 1
    assert "lock.json has an unknown shape" in str(told.failed)
