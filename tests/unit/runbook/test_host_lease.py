# SPDX-License-Identifier: GPL-3.0-or-later
"""The module host_lease: a deployment's lock and journal."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.whats_agent.lock import heartbeat

RunModule = Callable[..., dict[str, Any]]
HOLDER = {"user": "ana", "controller": "laptop", "entry_point": "ansible-playbook"}


def _events(state_dir: Path, run_id: str) -> list[dict[str, Any]]:
    lines = (state_dir / "runs" / f"{run_id}.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


@pytest.fixture
def lease(run_module: RunModule, tmp_path: Path) -> RunModule:
    def call(*, check: bool = False, fails: bool = False, **parameters: Any) -> dict[str, Any]:
        return run_module("host_lease", {"state_dir": str(tmp_path), **parameters}, check=check, fails=fails)

    return call


def test_a_deployment_is_recorded_with_who_outcome_and_seconds(lease: RunModule, tmp_path: Path) -> None:
    run_id = lease(host="box", playbook="Deploy the stack", holder=HOLDER)["run_id"]
    assert json.loads((tmp_path / "lock.json").read_text())["run"] == run_id
    lease(run_id=run_id)
    ended = lease(state="released", run_id=run_id)["result"]
    assert (ended["outcome"], ended["ok"], ended["component"], ended["host"]) == (
        "recovered",
        True,
        "deployment",
        "box",
    )
    assert not (tmp_path / "lock.json").exists()
    events = _events(tmp_path, run_id)
    assert [event["event"] for event in events] == ["open", "plan", "step", "step", "close"]
    assert events[3]["changed"] is True
    assert events[0]["holder"] == HOLDER
    assert events[-1]["seconds"].keys() == {"detect", "act", "verify", "total"}


def test_a_deployment_that_changed_nothing_found_all_well(lease: RunModule, tmp_path: Path) -> None:
    run_id = lease(holder=HOLDER)["run_id"]
    ended = lease(state="released", run_id=run_id, changed=False)["result"]
    assert (ended["outcome"], ended["ok"]) == ("already_healthy", True)
    assert _events(tmp_path, run_id)[-2]["changed"] is False


def test_a_lease_lives_as_long_as_its_last_renewal_says(lease: RunModule, tmp_path: Path) -> None:
    run_id = lease(holder=HOLDER, time_to_live=600)["run_id"]
    lease(run_id=run_id, time_to_live=180)
    assert json.loads((tmp_path / "lock.json").read_text())["time_to_live"] == 180


def test_a_failed_deployment_says_where_it_failed_and_opens_no_breaker(lease: RunModule, tmp_path: Path) -> None:
    env = tmp_path / "dotenv"
    env.write_text("DB_PASSWORD=planted-secret\n")
    for _ in range(4):
        run_id = lease(holder=HOLDER)["run_id"]
        error = "Start nginx: exit code 1, password planted-secret"
        ended = lease(state="released", run_id=run_id, error=error, env_file=str(env))["result"]
        assert (ended["outcome"], ended["escalate"]) == ("acted_not_recovered", True)
        assert "Start nginx: exit code 1" in ended["message"]["en"]
        assert "planted-secret" not in json.dumps(_events(tmp_path, run_id)) + json.dumps(ended)
    assert not (tmp_path / "breakers").exists()
    assert not (tmp_path / "lock.json").exists()


def test_a_held_server_is_refused_with_who_holds_it_and_that_is_recorded(lease: RunModule, tmp_path: Path) -> None:
    run_id = lease(holder=HOLDER)["run_id"]
    with heartbeat(run_id, tmp_path, interval=0.1):
        refused = lease(holder={**HOLDER, "user": "rui"}, fails=True)
    assert run_id in refused["msg"]
    assert _events(tmp_path, refused["run_id"])[-1]["outcome"] == "refused"
    assert json.loads((tmp_path / "lock.json").read_text())["run"] == run_id


def test_a_deployment_that_was_killed_is_closed_by_the_next(lease: RunModule, tmp_path: Path) -> None:
    dead = lease(holder=HOLDER, time_to_live=0.1)["run_id"]
    alive = lease(holder=HOLDER)
    assert alive["taken_over"] == dead
    assert _events(tmp_path, dead)[-1]["outcome"] == "abandoned"


def test_a_dry_run_writes_its_record_only(lease: RunModule, tmp_path: Path) -> None:
    run_id = lease(holder=HOLDER, check=True)["run_id"]
    ended = lease(state="released", run_id=run_id, check=True)["result"]
    assert ended["outcome"] == "predicted"
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == [f"{run_id}.jsonl"]
    assert all(event["dry_run"] for event in _events(tmp_path, run_id))


class TestRemoval:
    """The lock of a playbook that leaves nothing behind goes last, with all that lies beside it."""

    @pytest.fixture
    def state_dir(self, tmp_path: Path) -> Path:
        return tmp_path / "state"

    @pytest.fixture
    def removal(self, run_module: RunModule, state_dir: Path) -> RunModule:
        def call(*, check: bool = False, fails: bool = False, **parameters: Any) -> dict[str, Any]:
            return run_module("host_lease", {"state_dir": str(state_dir), **parameters}, check=check, fails=fails)

        return call

    def test_everything_goes_and_word_goes_out_before(
        self, removal: RunModule, state_dir: Path, tmp_path: Path
    ) -> None:
        word = tmp_path / "word"
        code = f"import sys; open({str(word)!r}, 'w').write(sys.stdin.read())"
        (state_dir / "secrets").mkdir(parents=True)
        (state_dir / "notify.json").write_text(json.dumps({"webhook_url": "", "command": [sys.executable, "-c", code]}))
        run_id = removal(holder=HOLDER, component="removal")["run_id"]
        ended = removal(state="removed", run_id=run_id, changed=False)
        assert (ended["changed"], ended["result"]["outcome"]) == (True, "recovered")
        assert json.loads(word.read_text())["run"] == run_id
        assert list(tmp_path.iterdir()) == [word]

    def test_where_nothing_was_nothing_changes_and_nothing_stays(
        self, removal: RunModule, state_dir: Path, tmp_path: Path
    ) -> None:
        run_id = removal(holder=HOLDER)["run_id"]
        assert state_dir.is_dir()
        ended = removal(state="removed", run_id=run_id, changed=False)
        assert (ended["changed"], ended["result"]["outcome"]) == (False, "already_healthy")
        assert list(tmp_path.iterdir()) == []

    def test_what_an_interrupted_removal_left_goes_too(
        self, removal: RunModule, state_dir: Path, tmp_path: Path
    ) -> None:
        left = tmp_path / "state.removed-20261122T100000Z-1a2b3c4d"
        left.mkdir()
        removal(state="removed", run_id=removal(holder=HOLDER)["run_id"])
        assert list(tmp_path.iterdir()) == []

    def test_a_lease_that_was_lost_removes_nothing(self, removal: RunModule, state_dir: Path) -> None:
        dead = removal(holder=HOLDER, time_to_live=0.1)["run_id"]
        alive = removal(holder=HOLDER)["run_id"]
        assert "lost its lease" in removal(state="removed", run_id=dead, fails=True)["msg"]
        assert json.loads((state_dir / "lock.json").read_text())["run"] == alive

    def test_a_dry_run_removes_nothing_and_says_whether_it_would(self, removal: RunModule, state_dir: Path) -> None:
        (state_dir / "secrets").mkdir(parents=True)
        (state_dir / "secrets" / "db_password").write_text("kept")
        run_id = removal(holder=HOLDER, check=True)["run_id"]
        ended = removal(state="removed", run_id=run_id, check=True)
        assert (ended["changed"], ended["result"]["outcome"]) == (True, "predicted")
        assert (state_dir / "secrets" / "db_password").read_text() == "kept"
