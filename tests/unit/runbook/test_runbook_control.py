# SPDX-License-Identifier: GPL-3.0-or-later
"""A person's decisions and what can be seen of a host, through the real modules over a temporary state directory."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.whats_agent.breaker import Breaker
from ansible.module_utils.whats_agent.control import Control, mutes, read_mute
from ansible.module_utils.whats_agent.lock import HostLock

BY = {"user": "ana", "controller": "laptop", "entry_point": "oncall"}
RUN = "20260131T120000Z-00000001"
RunModule = Callable[..., dict[str, Any]]


def _decide(run_module: RunModule, state_dir: Path, **params: Any) -> dict[str, Any]:
    options = {name: params.pop(name) for name in ("check", "fails") if name in params}
    return run_module("runbook_control", {"state_dir": str(state_dir), "by": BY, **params}, **options)


def _see(run_module: RunModule, state_dir: Path, **params: Any) -> dict[str, Any]:
    return run_module("runbook_info", {"state_dir": str(state_dir), **params})


def _journal(state_dir: Path) -> list[dict[str, Any]]:
    path = state_dir / "control.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def test_a_lock_is_broken_only_by_the_name_of_its_run(run_module: RunModule, tmp_path: Path) -> None:
    assert _decide(run_module, tmp_path, action="break_lock", run_id=RUN, why="dead")["changed"] is False
    HostLock(tmp_path).acquire(RUN, "database", BY)
    other = "20260131T120000Z-00000002"
    refused = _decide(run_module, tmp_path, action="break_lock", run_id=other, why="dead", fails=True)
    assert f"held by run {RUN}" in refused["msg"]
    assert _decide(run_module, tmp_path, action="break_lock", run_id=RUN, why="dead", check=True)["changed"] is True
    assert HostLock(tmp_path).read() is not None
    assert _decide(run_module, tmp_path, action="break_lock", run_id=RUN, why="the laptop burnt")["changed"] is True
    assert HostLock(tmp_path).read() is None
    (line,) = _journal(tmp_path)
    assert (line["action"], line["why"], line["by"]["user"], line["lease"]["run"]) == (
        "break_lock",
        "the laptop burnt",
        "ana",
        RUN,
    )


def test_a_breaker_is_opened_and_closed_by_hand_with_a_reason(run_module: RunModule, tmp_path: Path) -> None:
    assert _decide(run_module, tmp_path, action="open_breaker", component="database", why="migration")["changed"]
    assert Breaker(tmp_path, "database").read().is_open
    assert not _decide(run_module, tmp_path, action="open_breaker", component="database", why="again")["changed"]
    (seen,) = _see(run_module, tmp_path, parts=["breakers"])["seen"]["breakers"]
    assert seen["open"]
    assert seen["failures"][0]["error"] == "migration"
    assert _decide(run_module, tmp_path, action="close_breaker", component="database", why="done")["changed"]
    assert not _decide(run_module, tmp_path, action="close_breaker", component="database", why="done")["changed"]
    assert [line["action"] for line in _journal(tmp_path)] == ["open_breaker", "close_breaker"]


def test_a_decision_needs_a_reason(run_module: RunModule, tmp_path: Path) -> None:
    Breaker(tmp_path, "database").record_failure(RUN, "c", "e")
    refused = _decide(run_module, tmp_path, action="close_breaker", component="database", why=" ", fails=True)
    assert "needs a reason" in refused["msg"]
    assert Breaker(tmp_path, "database").read().failures


def test_a_mute_ends_by_itself(tmp_path: Path, fake_clock: Any) -> None:
    control = Control(tmp_path, BY, clock=fake_clock.clock)
    control.mute("database", 7200, "disk swap")
    fake_clock.advance(7199)
    assert [mute.component for mute in mutes(tmp_path, fake_clock.clock)] == ["database"]
    fake_clock.advance(1)
    assert read_mute(tmp_path, "database", fake_clock.clock) is None


@pytest.mark.parametrize("seconds", [0, -5, 8 * 86400])
def test_a_mute_of_no_or_endless_time_is_refused(run_module: RunModule, tmp_path: Path, seconds: float) -> None:
    refused = _decide(run_module, tmp_path, action="mute", component="app", seconds=seconds, why="x", fails=True)
    assert "lasts between" in refused["msg"]
    assert not (tmp_path / "mutes").exists()


def test_unmute(run_module: RunModule, tmp_path: Path) -> None:
    muted = _decide(run_module, tmp_path, action="mute", component="app", seconds=60, why="x")["mute"]
    assert muted["by"] == "ana@laptop"
    assert len(_see(run_module, tmp_path, parts=["mutes"])["seen"]["mutes"]) == 1
    assert _decide(run_module, tmp_path, action="unmute", component="app", why="back")["changed"]
    assert not _decide(run_module, tmp_path, action="unmute", component="app", why="back")["changed"]


@pytest.mark.parametrize("action", ["mute", "open_breaker", "unmute", "close_breaker"])
def test_a_component_names_no_other_file(run_module: RunModule, tmp_path: Path, action: str) -> None:
    refused = _decide(run_module, tmp_path, action=action, component="../x", seconds=60, why="x", fails=True)
    assert "no component name" in refused["msg"]


def test_looking_at_a_fresh_host_finds_nothing_and_leaves_nothing(run_module: RunModule, tmp_path: Path) -> None:
    seen = _see(run_module, tmp_path / "none", parts=["lock", "breakers", "mutes", "runs", "decisions"])["seen"]
    assert seen == {"lock": None, "breakers": [], "mutes": [], "runs": [], "decisions": []}
    assert not (tmp_path / "none").exists()


def test_what_can_not_be_seen_says_why_beside_the_rest(run_module: RunModule, tmp_path: Path) -> None:
    (tmp_path / "lock.json").write_text("{")
    seen = _see(run_module, tmp_path, parts=["lock", "health", "runs"], url="http://127.0.0.1:1")["seen"]
    assert "lock.json is not valid JSON" in seen["lock"]["problem"]
    assert "127.0.0.1:1/health" in seen["health"]["problem"]
    assert seen["runs"] == []


def test_a_lease_is_shown_with_its_age(run_module: RunModule, tmp_path: Path) -> None:
    HostLock(tmp_path).acquire(RUN, "database", BY)
    lease = _see(run_module, tmp_path, parts=["lock"])["seen"]["lock"]
    assert (lease["run"], lease["dead"]) == (RUN, False)
    assert 0 <= lease["seconds_since_heartbeat"] < 20


def test_decisions_are_seen_newest_first(run_module: RunModule, tmp_path: Path) -> None:
    for why in ("one", "two"):
        _decide(run_module, tmp_path, action="mute", component="app", seconds=60, why=why)
    seen = _see(run_module, tmp_path, parts=["decisions"], limit=1)["seen"]["decisions"]
    assert [decision["why"] for decision in seen] == ["two"]


def test_a_url_of_another_kind_is_refused(run_module: RunModule, tmp_path: Path) -> None:
    params = {"state_dir": str(tmp_path), "parts": ["health"], "url": "file:///etc/passwd"}
    assert "http or https" in run_module("runbook_info", params, fails=True)["msg"]


def test_a_note_is_kept_with_the_decisions_and_changes_nothing(run_module: RunModule, tmp_path: Path) -> None:
    params = {
        "action": "note",
        "component": "database",
        "why": "held back: muted",
        "by": BY,
        "state_dir": str(tmp_path),
    }
    assert run_module("runbook_control", params)["changed"] is False
    (line,) = (tmp_path / "control.jsonl").read_text().splitlines()
    assert (json.loads(line)["action"], json.loads(line)["why"]) == ("note", "held back: muted")
    run_module("runbook_control", {**params, "component": "../evil"}, fails=True)
