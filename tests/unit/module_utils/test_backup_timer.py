# SPDX-License-Identifier: GPL-3.0-or-later
"""What the backups' timer does before it works: a mute holds it back, another run makes it wait."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.whats_agent import backup_timer
from ansible.module_utils.whats_agent.control import Control

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
