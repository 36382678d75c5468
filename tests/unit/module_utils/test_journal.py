# SPDX-License-Identifier: GPL-3.0-or-later
"""The run journal and the breaker: what is written stays, in order, without secrets."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.whats_agent.breaker import Breaker, components
from ansible.module_utils.whats_agent.errors import WhatsAgentError
from ansible.module_utils.whats_agent.journal import (
    Journal,
    Progress,
    check_run_id,
    last_durations,
    new_run_id,
    read_events,
    run_ids,
    run_path,
    runs,
)

RUN = "20260131T120000Z-00000001"


def test_ids_sort_by_start_and_never_repeat(fake_clock: Any) -> None:
    first = new_run_id(fake_clock.clock)
    assert first != new_run_id(fake_clock.clock)
    fake_clock.advance(1)
    assert first < new_run_id(fake_clock.clock)
    assert check_run_id(first) == first


@pytest.mark.parametrize("run_id", ["../../etc/passwd", "", "20260131T120000Z-0000001", "20260131T120000Z-0000000G"])
def test_what_is_no_run_id_names_no_file(run_id: str, tmp_path: Path) -> None:
    with pytest.raises(WhatsAgentError):
        run_path(tmp_path, run_id)


def test_lines_are_flushed_and_private(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", synced.append)
    journal = Journal(tmp_path, RUN)
    journal.write("open", component="database")
    assert synced
    assert journal.path.stat().st_mode & 0o777 == 0o600
    assert journal.path.parent.stat().st_mode & 0o777 == 0o700


def test_planted_secrets_are_in_no_record(tmp_path: Path) -> None:
    journal = Journal(tmp_path, RUN, known_secrets=["planted-value-1"])
    journal.write("step", error="cannot connect: planted-value-1", env={"DB_PASSWORD": "planted-value-2"})
    journal.write("diagnosis", evidence=[{"what": "url", "value": "postgres://u:planted-value-3@h/db"}])
    assert "planted" not in journal.path.read_text()
    assert len(read_events(journal.path)) == 2


def test_dry_runs_are_marked_on_every_line(tmp_path: Path) -> None:
    journal = Journal(tmp_path, RUN, dry_run=True)
    journal.write("open")
    journal.write("close")
    assert [event["dry_run"] for event in read_events(journal.path)] == [True, True]


def test_a_line_cut_by_a_crash_is_left_out(tmp_path: Path) -> None:
    journal = Journal(tmp_path, RUN)
    journal.write("open")
    with journal.path.open("a") as stream:
        stream.write('{"event": "st')
    journal.write("close", outcome="recovered")
    assert [event["event"] for event in read_events(journal.path)] == ["open", "close"]


def _record(state_dir: Path, run_id: str, step: str, seconds: float, *, ok: bool = True, dry_run: bool = False) -> None:
    journal = Journal(state_dir, run_id, dry_run=dry_run)
    journal.write("open", component="database", host="box", playbook="p", holder={"user": "ana"})
    journal.write("step", phase="end", step=step, ok=ok, seconds=seconds)
    journal.write("close", outcome="recovered", cause="stopped", remedy=step, seconds={"total": seconds})


def test_how_long_it_took_comes_from_the_last_real_success(tmp_path: Path) -> None:
    _record(tmp_path, "20260131T120000Z-00000001", "start", 1.0)
    _record(tmp_path, "20260131T130000Z-00000001", "start", 2.0)
    _record(tmp_path, "20260131T140000Z-00000001", "start", 3.0, ok=False)
    _record(tmp_path, "20260131T150000Z-00000001", "start", 4.0, dry_run=True)
    assert last_durations(tmp_path, "database", ["start", "restore"]) == {"start": 2.0}
    assert last_durations(tmp_path, "app", ["start"]) == {}


def test_runs_are_listed_newest_first_and_an_open_one_has_no_outcome(tmp_path: Path) -> None:
    _record(tmp_path, "20260131T120000Z-00000001", "start", 1.0)
    Journal(tmp_path, "20260131T130000Z-00000001").write("open", component="database")
    (tmp_path / "runs" / "README.txt").write_text("not a run")
    found = list(runs(tmp_path))
    assert [(run.run, run.outcome) for run in found] == [
        ("20260131T130000Z-00000001", None),
        ("20260131T120000Z-00000001", "recovered"),
    ]
    assert run_ids(tmp_path / "nowhere") == []


def test_an_end_that_lasts_is_told_once(tmp_path: Path, fake_clock: Any) -> None:
    journal = Journal(tmp_path, RUN, clock=fake_clock.clock)
    progress = Progress(journal, "replay", clock=fake_clock.clock)
    for _ in range(5):
        progress.update(10, 10)
    assert [event["percent"] for event in read_events(journal.path)] == [100.0]


def test_progress_is_rare_never_goes_back_and_ends_at_100(tmp_path: Path, fake_clock: Any) -> None:
    journal = Journal(tmp_path, RUN, clock=fake_clock.clock)
    progress = Progress(journal, "restore", interval=2, clock=fake_clock.clock)
    for done in (0, 10, 20, 15, 60, 100):
        progress.update(done, 100)
        fake_clock.advance(1.5)
    events = read_events(journal.path)
    assert [event["percent"] for event in events] == [0.0, 20.0, 60.0, 100.0]
    assert events[-1]["seconds_left"] == 0
    assert events[1]["seconds_left"] == 12.0


def test_the_breaker_opens_after_its_threshold_and_survives(tmp_path: Path) -> None:
    breaker = Breaker(tmp_path, "database", threshold=2)
    assert not breaker.record_failure("r1", "stopped", "e1").is_open
    assert breaker.record_failure("r2", "stopped", "e2").is_open
    again = Breaker(tmp_path, "database", threshold=2)
    assert again.read().is_open
    assert components(tmp_path) == ["database"]
    assert again.reset()
    assert not again.reset()
    assert not Breaker(tmp_path, "database", threshold=2).read().is_open


def test_a_broken_breaker_file_is_an_error_and_not_a_closed_breaker(tmp_path: Path) -> None:
    breaker = Breaker(tmp_path, "database")
    breaker.record_failure("r1", "stopped", "e1")
    (tmp_path / "breakers" / "database.json").write_text("{")
    with pytest.raises(WhatsAgentError, match=r"database\.json"):
        breaker.read()
    with pytest.raises(WhatsAgentError):
        Breaker(tmp_path, "../x")


def test_lines_are_one_json_object_each(tmp_path: Path) -> None:
    line = Journal(tmp_path, RUN).write("open", note="a\nb")
    assert json.loads((tmp_path / "runs" / f"{RUN}.jsonl").read_text()) == line
