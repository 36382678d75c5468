# SPDX-License-Identifier: GPL-3.0-or-later
"""What the watcher does about what it sees: hosts, runs and the clock are the test's."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from oncall.commands import watch as command
from oncall.engine import Finished, HostResult
from oncall.faults import Fault, faults_of
from oncall.project import Runbook, find_or_none
from oncall.watch import Policy, Watcher, verdict

RUNBOOKS = {
    "recover_db": Runbook("recover_db", Path("recover_db.yml"), {}, "database"),
    "backup": Runbook("backup", Path("backup.yml"), {}, "backup"),
    "deploy": Runbook("deploy", Path("deploy.yml"), {}, ""),
}
POLICY = Policy(every=15, looks=2, pause=90, longest=600)


def find(name: str) -> Runbook | None:
    return RUNBOOKS.get(name.removesuffix(".yml"))


def alert(name: str = "database_down", severity: str = "P0", runbook: str = "recover_db.yml") -> dict[str, Any]:
    return {"name": name, "severity": severity, "runbook": runbook, "summary": {"en": name, "pt": name}}


def answer(*alerts: dict[str, Any], host: str = "box", **seen: Any) -> HostResult:
    told = {"stale": False, "count": len(alerts), "alerts": list(alerts)}
    return HostResult(host, "ok", {"seen": {"alerts": told, "lock": None, "mutes": [], "breakers": [], **seen}})


def ended(outcome: str, **more: Any) -> Finished:
    result = {"outcome": outcome, "message": {"en": f"it is {outcome}", "pt": f"é {outcome}"}, **more}
    return Finished("successful", 0, [HostResult("box", outcome, result)], [])


@dataclass
class Hands:
    """Answers what the test says and keeps what it was asked to do."""

    answers: list[HostResult] = field(default_factory=list)
    finished: Finished = field(default_factory=lambda: ended("recovered"))
    ran: list[tuple[str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    told: list[str] = field(default_factory=list)
    said: list[str] = field(default_factory=list)

    def look(self) -> list[HostResult]:
        return self.answers

    def run(self, runbook: Runbook, fault: Fault) -> Finished:
        self.ran.append((runbook.name, fault.host))
        return self.finished

    def note(self, fault: Fault, why: str) -> None:
        self.notes.append(why.partition(":")[0])

    def tell(self, fault: Fault, kind: str, why: str) -> None:
        self.told.append(kind)

    def say(self, fault: Fault, kind: str, why: str) -> None:
        self.said.append(kind)


class Bench:
    """A watcher on a clock that moves by one interval per look."""

    def __init__(self) -> None:
        self.hands = Hands()
        self.now = 0.0
        self.watcher = Watcher(self.hands, find, POLICY, lambda: self.now)

    def look(self, times: int, *answers: HostResult) -> None:
        self.hands.answers = list(answers)
        for _ in range(times):
            self.watcher.look()
            self.now += POLICY.every


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Bench:
    monkeypatch.setenv("WHATS_AGENT_LANG", "en")
    return Bench()


def test_a_sound_host_is_left_alone(bench: Bench) -> None:
    bench.look(5, answer())
    assert (bench.hands.ran, bench.hands.said) == ([], [])


def test_a_grave_alert_that_holds_runs_its_runbook_once(bench: Bench) -> None:
    bench.look(1, answer(alert()))
    assert bench.hands.ran == []
    bench.look(1, answer(alert()))
    assert bench.hands.ran == [("recover_db", "box")]
    bench.look(4, answer(alert()))  # the alert lags behind the recovery
    assert bench.hands.ran == [("recover_db", "box")]
    bench.look(1, answer())
    assert bench.hands.said == bench.hands.notes == ["act", "recovered", "gone"]
    assert bench.hands.told == []


def test_an_alert_that_flickers_never_reaches_its_looks(bench: Bench) -> None:
    for _ in range(5):
        bench.look(1, answer(alert()))
        bench.look(1, answer())
    assert bench.hands.ran == []


def test_a_mild_alert_is_people_s(bench: Bench) -> None:
    bench.look(5, answer(alert(severity="P2")))
    assert bench.hands.ran == []


def test_a_mute_is_obeyed_and_said_once(bench: Bench) -> None:
    mute = {"component": "database", "until": "2026-01-31T12:00:00+00:00", "by": "ana@laptop", "why": "maintenance"}
    bench.look(10, answer(alert(), mutes=[mute]))
    assert (bench.hands.ran, bench.hands.said, bench.hands.notes) == ([], ["muted"], ["muted"])
    bench.look(1, answer(alert()))
    assert bench.hands.ran == [("recover_db", "box")]


def test_a_mute_of_another_component_holds_nothing_back(bench: Bench) -> None:
    mute = {"component": "backup", "until": "2026-01-31T12:00:00+00:00", "by": "ana@laptop", "why": "maintenance"}
    bench.look(2, answer(alert(), mutes=[mute]))
    assert bench.hands.ran == [("recover_db", "box")]


def test_an_open_breaker_is_obeyed_and_people_are_told_once(bench: Bench) -> None:
    breaker = {"component": "database", "open": True, "threshold": 3, "failures": [{}, {}, {}]}
    bench.look(10, answer(alert(), breakers=[breaker]))
    assert (bench.hands.ran, bench.hands.told, bench.hands.notes) == ([], ["breaker"], ["breaker"])


def test_it_waits_while_another_run_holds_the_host(bench: Bench) -> None:
    lease = {"run": "r1", "user": "ana", "controller": "laptop", "dead": False}
    bench.look(5, answer(alert(), lock=lease))
    assert (bench.hands.ran, bench.hands.said) == ([], ["locked"])
    bench.look(1, answer(alert(), lock={**lease, "dead": True}))
    assert bench.hands.ran == [("recover_db", "box")]


def test_between_attempts_it_waits_longer_and_longer(bench: Bench) -> None:
    bench.hands.finished = ended("acted_not_recovered")
    moments = []
    for _ in range(200):
        before = len(bench.hands.ran)
        bench.look(1, answer(alert()))
        if len(bench.hands.ran) > before:
            moments.append(bench.now)
    gaps = [later - earlier for earlier, later in pairwise(moments)]
    assert gaps[:4] == [90, 180, 360, 600]
    assert max(gaps) == 600
    assert bench.hands.told[0] == "not_recovered"


@pytest.mark.parametrize("outcome", ["recovered", "already_healthy"])
def test_an_alert_that_outlives_runs_that_ended_well_is_for_people(bench: Bench, outcome: str) -> None:
    bench.hands.finished = ended(outcome)
    bench.look(60, answer(alert()))
    assert len(bench.hands.told) == len(bench.hands.ran) - 2
    assert set(bench.hands.told) == {"persists"}


def test_a_fault_that_went_away_begins_anew(bench: Bench) -> None:
    bench.look(3, answer(alert()))
    bench.look(1, answer())
    bench.look(1, answer(alert()))
    assert len(bench.hands.ran) == 1
    bench.look(1, answer(alert()))
    assert len(bench.hands.ran) == 2


@pytest.mark.parametrize("runbook", ["recover_nothing.yml", "deploy.yml", "", "../evil.yml"])
def test_without_a_runbook_under_the_contract_people_are_told(bench: Bench, runbook: str) -> None:
    bench.look(4, answer(alert("queue_late", runbook=runbook)))
    assert (bench.hands.ran, bench.hands.told) == ([], ["no_runbook"])


def test_an_unreachable_host_is_told_and_not_written_to(bench: Bench) -> None:
    bench.look(3, HostResult("box", "unreachable", {}, "no route"), answer(alert(), host="other"))
    assert bench.hands.told == ["no_runbook"]
    assert bench.hands.notes == ["act", "recovered"]
    assert bench.hands.ran == [("recover_db", "other")]


def test_one_component_is_mended_once_for_all_its_alerts(bench: Bench) -> None:
    bench.look(2, answer(alert(), alert("archive_late", "P1"), alert("backup_late", "P1", "backup.yml")))
    assert bench.hands.ran == [("recover_db", "box"), ("backup", "box")]


@pytest.mark.parametrize(
    ("alerts", "name"), [({"problem": "connection refused"}, "agent_silent"), ({"stale": True}, "alerts_stale")]
)
def test_an_agent_that_says_nothing_of_worth_is_itself_the_fault(alerts: dict[str, Any], name: str) -> None:
    (fault,) = faults_of(answer(alerts=alerts), find, "en")
    assert (fault.name, fault.runbook) == (name, None)


def test_for_a_silent_agent_the_runbook_that_exists_is_taken() -> None:
    app = Runbook("recover_app", Path("recover_app.yml"), {}, "app")
    (fault,) = faults_of(answer(alerts={"problem": "refused"}), {"recover_app": app}.get, "en")
    assert (fault.runbook, fault.component) == (app, "app")


@pytest.mark.parametrize(
    ("finished", "kind"),
    [
        (ended("recovered"), "recovered"),
        (ended("refused"), "refused"),
        (ended("refused", escalate=True), "not_recovered"),
        (ended("acted_not_recovered"), "not_recovered"),
        (Finished("failed", 4, [HostResult("box", "unreachable", {}, "gone")], []), "no_outcome"),
        (Finished("failed", 1, [], ["[ERROR]: broken"]), "no_outcome"),
        (Finished("canceled", 254, [HostResult("box", "interrupted")], []), "interrupted"),
    ],
)
def test_what_came_of_a_run(finished: Finished, kind: str) -> None:
    assert verdict(finished, "en")[0] == kind


def test_the_watcher_gives_no_consent_and_says_who_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    played: dict[str, Any] = {}

    def run_playbook(playbook: Path, inventory: Path, **options: Any) -> Finished:
        played.update(options)
        return ended("recovered")

    monkeypatch.setattr("oncall.engine.run_playbook", run_playbook)
    hands = command.AnsibleHands(tmp_path, None, "/state", as_json=True, check=False, timeout=60)
    hands.run(RUNBOOKS["recover_db"], Fault("box", "database_down", "P0", "database", "down"))
    assert played["variables"] == {"runbook_entry_point": "watcher", "runbook_state_dir": "/state"}
    assert played["host"] == "box"


def test_a_late_backup_is_taken_and_proven_since_only_that_clears_its_alert(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    played: list[dict[str, Any]] = []

    def run_playbook(*_arguments: Any, **options: Any) -> Finished:
        played.append(options["variables"])
        return ended("recovered")

    monkeypatch.setattr("oncall.engine.run_playbook", run_playbook)
    hands = command.AnsibleHands(tmp_path, None, "/state", as_json=True, check=False, timeout=60)
    watcher = Watcher(hands, find, Policy(looks=1), lambda: 0.0)
    for name in ("backup_late", "backup_failed"):
        found = answer(alert(name, "P1", "backup.yml"), host=name)
        monkeypatch.setattr("oncall.engine.ask", lambda *_a, found=found, **_o: [found])
        watcher.look()
    assert [variables.get("prove") for variables in played] == [True, None]


def test_ansible_runner_never_takes_the_signals_that_end_the_watch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[Any] = []

    def ask(module: str, *_arguments: Any, **options: Any) -> list[HostResult]:
        said.append(options.get("cancelled"))
        return [HostResult("box", "ok", {})]

    def run_playbook(*_arguments: Any, **options: Any) -> Finished:
        said.append(options.get("cancelled"))
        return ended("recovered")

    monkeypatch.setattr("oncall.engine.ask", ask)
    monkeypatch.setattr("oncall.engine.run_playbook", run_playbook)
    hands = command.AnsibleHands(tmp_path, None, "/state", as_json=True, check=False, timeout=60)
    hands.look()
    hands.run(RUNBOOKS["recover_db"], Fault("box", "database_down", "P0", "database", "down"))
    hands.stop.set()
    hands.note(Fault("box", "database_down", "P0", "database", "down"), "act: …")
    assert None not in said
    assert said[2]() is False, "a note that began is seen through"


def test_the_component_of_a_real_runbook_is_read_from_it() -> None:
    found = find_or_none("recover_db.yml")
    assert found is not None
    assert found.component == "database"
    assert find_or_none("../playbooks/recover_db.yml") is None
