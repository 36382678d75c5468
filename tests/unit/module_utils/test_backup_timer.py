# SPDX-License-Identifier: GPL-3.0-or-later
"""What the backups' timer does before it works: a mute holds it back, another run makes it wait."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.whats_agent import backup_timer
from ansible.module_utils.whats_agent.control import Control
from ansible.module_utils.whats_agent.lock import HostLock, heartbeat
from ansible.module_utils.whats_agent.run import About, Run, Settings

BY = {"user": "ana", "controller": "laptop", "entry_point": "oncall"}


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
