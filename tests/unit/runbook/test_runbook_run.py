# SPDX-License-Identifier: GPL-3.0-or-later
"""The module runbook_run, through its real main(): whole runs over a temporary state directory."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.whats_agent.clock import SYSTEM_CLOCK
from ansible.module_utils.whats_agent.control import Control
from ansible.module_utils.whats_agent.lock import HostLock
from ansible.module_utils.whats_agent.run import About, Run, Settings

HOLDER = {"user": "ana", "controller": "laptop", "entry_point": "ansible-playbook"}
BOTH = {"en": "text", "pt": "texto"}
LADDER = [
    {
        "cause": "stopped",
        "remedies": [
            {"name": "start", "destructive": False, "changes": BOTH, "quiet_seconds": 90},
            {"name": "rebuild", "destructive": True, "changes": BOTH},
        ],
    },
    {
        "cause": "bad_release",
        "remedies": [{"name": "back", "destructive": False, "outcome": "rolled_back", "changes": BOTH}],
    },
    {"cause": "lost", "remedies": [{"name": "rebuild", "destructive": True, "changes": BOTH}]},
]
GOOD = {"ok": True, "checks": [{"name": "rows", "ok": True, "detail": "7"}], "rpo": {"messages_lost": 0}}
BAD = {"ok": False, "checks": [{"name": "rows", "ok": False, "detail": "none"}], "rpo": None}


def diagnosis(cause: str, **more: Any) -> dict[str, Any]:
    found = {
        "component": "fake",
        "cause": cause,
        "healthy": cause == "healthy",
        "summary": BOTH,
        "state": {"backup": "b1"},
    }
    return {**found, "evidence": [{"what": "state", "value": cause}], **more}


class Target:
    """A target with a temporary state directory, and the calls a role makes on it."""

    def __init__(self, state_dir: Path, run_module: Callable[..., dict[str, Any]]) -> None:
        self.state_dir = state_dir
        self._run_module = run_module
        self.check = False
        self.host = "box"

    def call(self, state: str, *, fails: bool = False, **params: Any) -> dict[str, Any]:
        params = {"state": state, "state_dir": str(self.state_dir), **params}
        return self._run_module("runbook_run", params, check=self.check, fails=fails)

    def open(self, **params: Any) -> dict[str, Any]:
        return self.call("open", host=self.host, component="fake", holder=HOLDER, **params)

    def plan(self, run_id: str, cause: str, confirm: str = "", **more: Any) -> dict[str, Any]:
        found = diagnosis(cause, **more)
        return self.call("plan", run_id=run_id, diagnosis=found, ladder=LADDER, confirm=confirm)

    def begin(self, run_id: str, step: str, cause: str, **params: Any) -> dict[str, Any]:
        found = params.pop("found", diagnosis(cause))
        return self.call("step", phase="begin", run_id=run_id, step=step, diagnosis=found, **params)

    def end(self, run_id: str, step: str, **params: Any) -> dict[str, Any]:
        return self.call("step", phase="end", run_id=run_id, step=step, **params)

    def close(self, run_id: str, **params: Any) -> dict[str, Any]:
        result: dict[str, Any] = self.call("close", run_id=run_id, **params)["result"]
        return result

    def recover(self, cause: str, step: str, verification: dict[str, Any]) -> dict[str, Any]:
        """Make one whole run with one rung."""
        run_id = self.open()["run_id"]
        assert self.plan(run_id, cause)["result"] is None
        assert self.begin(run_id, step, cause)["proceed"]
        self.end(run_id, step)
        return self.close(run_id, verification=verification)

    def events(self, run_id: str) -> list[dict[str, Any]]:
        lines = (self.state_dir / "runs" / f"{run_id}.jsonl").read_text().splitlines()
        return [json.loads(line) for line in lines]

    @property
    def locked(self) -> bool:
        return (self.state_dir / "lock.json").exists()


@pytest.fixture
def target(tmp_path: Path, run_module: Callable[..., dict[str, Any]]) -> Iterator[Target]:
    yield Target(tmp_path / "state", run_module)
    assert not (tmp_path / "state" / "lock.json").exists(), "a closed run left its lease behind"


def test_healthy_closes_by_itself(target: Target) -> None:
    opened = target.open()
    planned = target.plan(opened["run_id"], "healthy")
    assert planned["result"]["outcome"] == "already_healthy"
    assert planned["changed"] is False
    assert [event["event"] for event in target.events(opened["run_id"])] == ["open", "diagnosis", "plan", "close"]


def test_a_recovery_from_open_to_close(target: Target) -> None:
    result = target.recover("stopped", "start", GOOD)
    assert (result["outcome"], result["ok"], result["remedy"]) == ("recovered", True, "start")
    assert set(result["seconds"]) == {"detect", "act", "verify", "total"}
    assert "0 acknowledged messages lost" in result["message"]["en"]
    assert "0 mensagens confirmadas perdidas" in result["message"]["pt"]
    names = [event["event"] for event in target.events(result["run"])]
    assert names == ["open", "diagnosis", "plan", "step", "step", "verify", "close"]


def test_the_next_plan_tells_how_long_it_took(target: Target) -> None:
    target.recover("stopped", "start", GOOD)
    run_id = target.open()["run_id"]
    planned = target.plan(run_id, "stopped")
    assert planned["plan"]["remedies"][0]["last_seconds"] is not None
    assert planned["plan"]["remedies"][1]["last_seconds"] is None
    target.close(run_id, error="enough")


def test_a_rollback_is_its_own_outcome(target: Target) -> None:
    assert target.recover("bad_release", "back", GOOD)["outcome"] == "rolled_back"


def test_a_second_run_is_refused_and_told_who_holds_the_host(target: Target) -> None:
    first = target.open()["run_id"]
    # The holder lives: it beats whenever the newcomer looks away.
    beating = replace(SYSTEM_CLOCK, sleep=lambda _seconds: HostLock(target.state_dir).renew(first))
    second = Run.new(Settings(target.state_dir, clock=beating), About("box", "fake")).open(HOLDER)
    assert second["result"]["outcome"] == "refused"
    assert first in second["result"]["message"]["en"]
    assert "ana@laptop" in second["result"]["message"]["pt"]
    assert target.events(second["run_id"])[-1]["outcome"] == "refused"
    target.close(first, error="enough")


def test_a_dead_holder_is_taken_over_and_its_run_closed(target: Target) -> None:
    dead = target.open(time_to_live=0)["run_id"]
    opened = target.open()
    assert opened["taken_over"] == dead
    assert target.events(dead)[-1]["outcome"] == "abandoned"
    assert target.events(dead)[-1]["taken_over_by"] == opened["run_id"]
    assert any(event["event"] == "takeover" for event in target.events(opened["run_id"]))
    target.close(opened["run_id"], error="enough")


def test_a_run_that_lost_its_lease_can_not_go_on(target: Target) -> None:
    dead = target.open(time_to_live=0)["run_id"]
    alive = target.open()["run_id"]
    failed = target.call("plan", run_id=dead, diagnosis=diagnosis("stopped"), ladder=LADDER, fails=True)
    assert "lost its lease" in failed["msg"]
    target.close(alive, error="enough")


def test_a_symptom_that_went_away_is_not_acted_upon(target: Target) -> None:
    run_id = target.open()["run_id"]
    target.plan(run_id, "stopped")
    begun = target.begin(run_id, "start", "healthy")
    assert (begun["proceed"], begun["gone"]) == (False, True)
    assert target.close(run_id, verification=GOOD)["outcome"] == "already_healthy"


def looked(ago: float) -> float:
    return SYSTEM_CLOCK.boottime() - ago


def test_a_look_of_this_moment_is_the_check_before_the_first_rung_too(target: Target) -> None:
    run_id = target.open()["run_id"]
    begun = target.plan(run_id, "stopped", looked_at=looked(1))["begun"]
    assert begun == {"step": "start", "proceed": True, "gone": False, "result": None}
    target.end(run_id, "start")
    assert target.close(run_id, verification=GOOD)["outcome"] == "recovered"


@pytest.mark.parametrize(
    ("cause", "looked_at"),
    [
        pytest.param("stopped", looked(60), id="an old one"),
        pytest.param("stopped", looked(-600), id="from another boot"),
        pytest.param("stopped", None, id="nobody knows of when"),
        pytest.param("healthy", looked(0), id="nothing to do"),
        pytest.param("lost", looked(0), id="without the consent"),
    ],
)
def test_otherwise_it_is_looked_once_more_or_nothing_begins(
    target: Target, cause: str, looked_at: float | None
) -> None:
    run_id = target.open()["run_id"]
    planned = target.plan(run_id, cause, looked_at=looked_at)
    assert planned["begun"] is None
    if planned["result"] is None:
        target.close(run_id)


def test_before_what_destroys_it_is_looked_once_more_though_consent_was_given(target: Target) -> None:
    refused = target.plan(target.open()["run_id"], "lost", looked_at=looked(0))
    run_id = target.open()["run_id"]
    planned = target.plan(run_id, "lost", confirm=refused["plan"]["confirm"], looked_at=looked(0))
    assert planned["plan"]["consented"]
    assert planned["begun"] is None
    target.close(run_id)


def test_a_cause_that_changed_before_acting_is_refused(target: Target) -> None:
    run_id = target.open()["run_id"]
    target.plan(run_id, "stopped")
    begun = target.begin(run_id, "start", "lost")
    assert begun["proceed"] is False
    assert begun["result"]["outcome"] == "refused"
    assert "changed from stopped to lost" in begun["result"]["message"]["en"]


def test_a_cause_that_changed_after_acting_is_not_recovered(target: Target) -> None:
    run_id = target.open()["run_id"]
    target.plan(run_id, "stopped")
    target.begin(run_id, "start", "stopped")
    assert target.end(run_id, "start")["next"] == "rebuild"
    begun = target.begin(run_id, "rebuild", "lost", verification=BAD)
    assert begun["result"]["outcome"] == "acted_not_recovered"
    assert begun["result"]["remedy"] == "start"


def test_the_ladder_needs_consent_for_its_destructive_rung_and_takes_the_one_it_prints(target: Target) -> None:
    run_id = target.open()["run_id"]
    target.plan(run_id, "stopped")
    target.begin(run_id, "start", "stopped")
    target.end(run_id, "start")
    refused = target.begin(run_id, "rebuild", "stopped", verification=BAD)["result"]
    confirm = refused["next_step"]["en"].rpartition("confirm=")[2]

    run_id = target.open()["run_id"]
    assert target.plan(run_id, "stopped", confirm)["plan"]["consented"]
    target.begin(run_id, "start", "stopped", confirm=confirm)
    target.end(run_id, "start")
    assert target.begin(run_id, "rebuild", "stopped", confirm=confirm)["proceed"]
    target.end(run_id, "rebuild")
    assert target.close(run_id, verification=GOOD)["outcome"] == "recovered"


def test_consent_stops_fitting_when_the_state_moves_between_plan_and_act(target: Target) -> None:
    run_id = target.open()["run_id"]
    confirm = target.plan(run_id, "lost")["plan"]["confirm"]
    run_id = target.open()["run_id"]
    assert target.plan(run_id, "lost", confirm)["result"] is None
    moved = diagnosis("lost", state={"backup": "b2"})
    begun = target.begin(run_id, "rebuild", "lost", found=moved, confirm=confirm)
    assert begun["result"]["outcome"] == "refused"
    assert "state that has moved" in begun["result"]["message"]["en"]


def test_consent_for_another_host_names_that_host(target: Target) -> None:
    run_id = target.open()["run_id"]
    confirm = target.plan(run_id, "lost")["plan"]["confirm"]
    target.host = "other"
    result = target.plan(target.open()["run_id"], "lost", confirm)["result"]
    assert result["outcome"] == "refused"
    assert "for the host box, not other" in result["message"]["en"]


def test_after_a_step_that_failed_while_destroying_nothing_is_tried(target: Target) -> None:
    confirm = target.plan(target.open()["run_id"], "lost")["plan"]["confirm"]
    run_id = target.open()["run_id"]
    target.plan(run_id, "lost", confirm)
    target.begin(run_id, "rebuild", "lost", confirm=confirm)
    ended = target.end(run_id, "rebuild", ok=False, error="the disk is full")
    assert ended["next"] is None
    result = target.close(run_id)
    assert result["outcome"] == "acted_not_recovered"
    assert "the disk is full" in result["message"]["en"]


def test_the_breaker_opens_refuses_and_closes_on_verified_health(target: Target) -> None:
    for _ in range(3):
        assert target.recover("stopped", "start", BAD)["outcome"] == "acted_not_recovered"
    refused = target.plan(target.open()["run_id"], "stopped")["result"]
    assert (refused["outcome"], refused["escalate"]) == ("refused", True)
    assert "3 recoveries of fake failed in a row" in refused["message"]["en"]
    run_id = target.open()["run_id"]
    target.plan(run_id, "healthy")
    assert any(event["event"] == "breaker" and event["action"] == "closed" for event in target.events(run_id))
    assert target.recover("stopped", "start", GOOD)["outcome"] == "recovered"


def test_what_fails_on_another_host_is_not_counted(target: Target) -> None:
    for _ in range(4):
        assert target.recover("stopped", "start", {**BAD, "spares_breaker": True})["outcome"] == "acted_not_recovered"
    assert not (target.state_dir / "breakers" / "fake.json").exists()


def test_a_recovery_clears_the_count(target: Target) -> None:
    target.recover("stopped", "start", BAD)
    target.recover("stopped", "start", BAD)
    target.recover("stopped", "start", GOOD)
    target.recover("stopped", "start", BAD)
    assert target.recover("stopped", "start", GOOD)["outcome"] == "recovered"


def test_a_dry_run_writes_its_own_record_and_nothing_else(target: Target) -> None:
    target.check = True
    run_id = target.open()["run_id"]
    planned = target.plan(run_id, "lost")
    assert planned["plan"]["confirm"]
    assert target.begin(run_id, "rebuild", "lost")["proceed"]
    target.end(run_id, "rebuild", stable_seconds=60)
    result = target.close(run_id)
    assert (result["outcome"], result["dry_run"]) == ("predicted", True)
    assert result["message"]["en"].startswith("DRY RUN")
    assert result["message"]["en"].endswith("(DRY RUN)")
    files = [path.relative_to(target.state_dir) for path in target.state_dir.rglob("*") if path.is_file()]
    assert files == [Path("runs") / f"{run_id}.jsonl"]
    assert all(event["dry_run"] for event in target.events(run_id))


def test_a_dry_run_beside_a_real_one_is_let_in_and_told(target: Target) -> None:
    real = target.open()["run_id"]
    target.check = True
    opened = target.open()
    assert real in opened["held_by"]
    assert target.plan(opened["run_id"], "healthy")["result"]["outcome"] == "already_healthy"
    assert target.locked
    target.check = False
    target.close(real, error="enough")


def test_a_dry_run_does_not_close_a_breaker(target: Target) -> None:
    target.recover("stopped", "start", BAD)
    before = (target.state_dir / "breakers" / "fake.json").read_bytes()
    target.check = True
    target.plan(target.open()["run_id"], "healthy")
    assert (target.state_dir / "breakers" / "fake.json").read_bytes() == before


def test_a_read_only_runbook_takes_no_lock(target: Target) -> None:
    real = target.open()["run_id"]
    opened = target.open(read_only=True)
    assert opened["result"] is None
    target.plan(opened["run_id"], "healthy")
    target.close(real, error="enough")


def test_a_run_is_closed_once(target: Target) -> None:
    run_id = target.open()["run_id"]
    target.plan(run_id, "healthy")
    assert "closed already (already_healthy)" in target.call("close", run_id=run_id, fails=True)["msg"]


def test_a_run_that_was_never_opened_is_named(target: Target) -> None:
    missing = "20260131T120000Z-00000001"
    assert missing in target.call("close", run_id=missing, fails=True)["msg"]
    assert "no run id" in target.call("close", run_id="../x", fails=True)["msg"]


def test_the_values_of_the_env_file_are_in_no_record_and_no_answer(target: Target, tmp_path: Path) -> None:
    env = tmp_path / ".env"
    env.write_text("DB_PASSWORD=planted-one\nREDIS_URL=redis://:planted-two@redis/0\nRELEASE=abc\n")
    run_id = target.open(env_file=str(env))["run_id"]
    found = diagnosis("stopped", evidence=[{"what": "log", "value": "auth failed for planted-one"}])
    answers = [target.call("plan", run_id=run_id, diagnosis=found, ladder=LADDER, env_file=str(env))]
    answers.append(target.begin(run_id, "start", "stopped", env_file=str(env)))
    answers.append(target.end(run_id, "start", ok=False, error="redis://:planted-two@redis refused", env_file=str(env)))
    answers.append(target.close(run_id, env_file=str(env)))
    assert "planted" not in json.dumps(answers)
    assert "planted" not in (target.state_dir / "runs" / f"{run_id}.jsonl").read_text()


def test_a_quiet_rung_lengthens_the_lease_and_its_end_shortens_it(target: Target) -> None:
    run_id = target.open()["run_id"]
    target.plan(run_id, "stopped")
    target.begin(run_id, "start", "stopped")
    lease = json.loads((target.state_dir / "lock.json").read_text())
    assert lease["time_to_live"] == 90
    target.end(run_id, "start")
    lease = json.loads((target.state_dir / "lock.json").read_text())
    assert lease["time_to_live"] == 30
    target.close(run_id, verification=GOOD)


def test_a_step_after_which_a_container_restarts_has_failed(target: Target, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "ansible.module_utils.whats_agent.run_steps.watch", lambda *_arguments: ["app restarted (exit code 1)"]
    )
    run_id = target.open()["run_id"]
    target.plan(run_id, "stopped")
    target.begin(run_id, "start", "stopped")
    ended = target.end(run_id, "start", stable_seconds=1, project="whats_agent")
    assert (ended["ok"], ended["error"], ended["next"]) == (False, "app restarted (exit code 1)", "rebuild")
    assert "app restarted" in target.close(run_id)["message"]["en"]


def test_what_stopped_a_step_is_told_in_the_language_it_was_raised_in(target: Target) -> None:
    run_id = target.open()["run_id"]
    target.plan(run_id, "stopped")
    target.begin(run_id, "start", "stopped")
    target.end(run_id, "start", ok=False, error="Start it: it does not start", error_pt="ele não inicia")
    reason = target.close(run_id)["reason"]
    assert reason["en"] == "the step start failed: Start it: it does not start"
    assert reason["pt"] == "o passo start falhou: ele não inicia"


def test_what_stopped_a_run_is_told_in_both_languages(target: Target) -> None:
    run_id = target.open()["run_id"]
    assert target.close(run_id, error="no Docker", error_pt="sem Docker")["reason"] == {
        "en": "no Docker",
        "pt": "sem Docker",
    }
    run_id = target.open()["run_id"]
    assert target.close(run_id, error="no Docker")["reason"] == {"en": "no Docker", "pt": "no Docker"}


def test_a_window_that_did_not_stand_is_not_told_in_another_error_s_words(
    target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ansible.module_utils.whats_agent.run_steps.watch", lambda *_arguments: ["app restarted"])
    run_id = target.open()["run_id"]
    target.plan(run_id, "stopped")
    target.begin(run_id, "start", "stopped")
    target.end(run_id, "start", error_pt="outro", stable_seconds=1, project="whats_agent")
    assert "app restarted" in target.close(run_id)["reason"]["pt"]


def test_the_lease_is_kept_alive_through_the_stable_window(target: Target, monkeypatch: pytest.MonkeyPatch) -> None:
    beating: list[str] = []

    def stands(*_arguments: object) -> list[str]:
        beating.extend(thread.name for thread in threading.enumerate())
        return []

    monkeypatch.setattr("ansible.module_utils.whats_agent.run_steps.watch", stands)
    run_id = target.open()["run_id"]
    target.plan(run_id, "stopped")
    target.begin(run_id, "start", "stopped")
    target.end(run_id, "start", stable_seconds=60, project="whats_agent")
    assert "lease-heartbeat" in beating
    target.close(run_id, verification=GOOD)


def test_a_dry_run_whose_step_breaks_says_that_it_is_not_predictable(target: Target) -> None:
    target.check = True
    run_id = target.open()["run_id"]
    target.plan(run_id, "stopped")
    target.begin(run_id, "start", "stopped")
    target.end(run_id, "start", ok=False, error="needs what the task before would have made")
    result = target.close(run_id)
    assert result["outcome"] == "predicted"
    assert "not predictable beyond this point: needs what" in result["message"]["en"]


@pytest.mark.parametrize("entry_point", ["watcher", "timer"])
def test_a_mute_holds_back_what_is_unattended_and_says_so(target: Target, entry_point: str) -> None:
    Control(target.state_dir, HOLDER).mute("fake", 600, "the disk is being replaced")
    opened = target.call("open", host="box", component="fake", holder={**HOLDER, "entry_point": entry_point})
    assert opened["result"]["outcome"] == "refused"
    assert "muted until" in opened["result"]["message"]["en"]
    assert "the disk is being replaced" in opened["result"]["message"]["pt"]
    assert target.events(opened["run_id"])[-1]["outcome"] == "refused"
    assert not (target.state_dir / "lock.json").exists()


def test_a_mute_holds_back_neither_people_nor_other_components(target: Target) -> None:
    Control(target.state_dir, HOLDER).mute("fake", 600, "maintenance")
    first = target.open()
    assert first["result"] is None
    target.close(first["run_id"])
    watcher = {**HOLDER, "entry_point": "watcher"}
    other = target.call("open", host="box", component="other", holder=watcher)
    assert other["result"] is None
    target.close(other["run_id"])


def _tell_by(target: Target, channels: str) -> None:
    target.state_dir.mkdir()
    (target.state_dir / "notify.json").write_text(channels)


def test_people_are_told_of_an_end_that_concerns_them(target: Target, tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    command = [sys.executable, "-c", f"import sys; open({str(kept)!r}, 'a').write(sys.stdin.read())"]
    _tell_by(target, json.dumps({"command": command}))
    healthy = target.open()["run_id"]
    target.plan(healthy, "healthy")
    assert not kept.exists(), "nobody wants to hear that all is well"
    run_id = target.open()["run_id"]
    target.plan(run_id, "unknown_cause")
    told = json.loads(kept.read_text())
    assert (told["run"], told["outcome"], told["escalate"]) == (run_id, "refused", True)
    assert [event["event"] for event in target.events(run_id)][-2:] == ["close", "notify"]


@pytest.mark.parametrize("broken", ['{"command": ["/no/such/program"]}', "{", '{"command": "shell string"}'])
def test_word_that_can_not_be_sent_is_recorded_and_decides_nothing(target: Target, broken: str) -> None:
    _tell_by(target, broken)
    run_id = target.open()["run_id"]
    result = target.plan(run_id, "unknown_cause")["result"]
    assert result["outcome"] == "refused"
    last = target.events(run_id)[-1]
    assert (last["event"], last["ok"]) == ("notify", False)
    assert last["error"]


def test_a_muted_component_sends_no_word(target: Target, tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    _tell_by(target, json.dumps({"command": ["/usr/bin/touch", str(kept)]}))
    Control(target.state_dir, HOLDER).mute("fake", 600, "maintenance")
    run_id = target.open()["run_id"]
    target.plan(run_id, "unknown_cause")
    assert not kept.exists()
    assert "muted" in target.events(run_id)[-1]["error"]
