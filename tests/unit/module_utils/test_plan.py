# SPDX-License-Identifier: GPL-3.0-or-later
"""What a run decides, and what a consent stands for: pure functions, so every case is a row."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from ansible.module_utils.whats_agent.breaker import BreakerState
from ansible.module_utils.whats_agent.consent import LIFETIME, Subject, consent_hash, refuse_consent, state_digest
from ansible.module_utils.whats_agent.errors import WhatsAgentError
from ansible.module_utils.whats_agent.plan import Plan, Situation, check_diagnosis, decide, remedies_for, subject_of

NOW = 1_770_000_000
BOTH = {"en": "text", "pt": "texto"}
LADDER: list[dict[str, Any]] = [
    {
        "cause": "stopped",
        "remedies": [
            {"name": "start", "destructive": False, "changes": BOTH},
            {"name": "rebuild", "destructive": True, "changes": BOTH},
        ],
    },
    {"cause": "lost", "remedies": [{"name": "rebuild", "destructive": True, "changes": BOTH}]},
]
SITUATION = Situation("box", BreakerState("fake"), {"start": 2.5}, "", NOW, None, dry_run=False)


def diagnosis(cause: str, **more: Any) -> dict[str, Any]:
    return {
        "component": "fake",
        "cause": cause,
        "healthy": cause == "healthy",
        "evidence": [{"what": "state", "value": cause}],
        "summary": BOTH,
        "state": {"backup": "b1"},
        **more,
    }


def plan(cause: str, situation: Situation = SITUATION, **more: Any) -> Plan:
    return decide(check_diagnosis(diagnosis(cause, **more), "fake"), LADDER, situation)


def test_healthy_needs_nothing() -> None:
    assert plan("healthy").outcome == "already_healthy"


def test_bad_input_is_refused_even_where_all_is_well() -> None:
    found = plan("healthy", refuse={"reason": {"en": "no such backup", "pt": "não há tal backup"}})
    assert (found.outcome, found.reason) == ("refused", {"en": "no such backup", "pt": "não há tal backup"})


def test_what_belongs_elsewhere_is_refused_and_names_the_runbook() -> None:
    found = plan("stopped", belongs_to="recover_db.yml")
    assert found.outcome == "refused"
    assert found.next_step is not None
    assert "playbooks/recover_db.yml" in found.next_step["en"]


def test_what_belongs_to_a_playbook_that_is_only_announced_is_for_a_person_by_the_guide() -> None:
    found = plan("stopped", belongs_to="recover_system.yml")
    assert (found.outcome, found.escalate) == ("refused", True)
    assert found.next_step is not None
    assert "ansible-playbook" not in found.next_step["pt"]
    assert "Sistema Completamente Indisponível" in found.next_step["pt"]


def test_an_unknown_cause_is_escalated() -> None:
    found = plan("weird")
    assert (found.outcome, found.escalate) == ("refused", True)


def test_mild_remedies_run_unattended_with_how_long_they_took() -> None:
    found = plan("stopped")
    assert found.outcome is None
    assert [(r.name, r.last_seconds) for r in found.remedies] == [("start", 2.5), ("rebuild", None)]


def test_what_destroys_first_is_refused_without_consent_and_prints_it() -> None:
    found = plan("lost", loses={"en": "4 messages", "pt": "4 mensagens"})
    assert found.outcome == "refused"
    assert found.reason is not None
    assert "4 messages" in found.reason["en"]
    assert found.next_step == {
        "en": f"to consent, add -e confirm={found.confirm}",
        "pt": f"para consentir, acrescente -e confirm={found.confirm}",
    }


def test_a_fitting_consent_lets_it_run() -> None:
    confirm = plan("lost").confirm
    assert confirm is not None
    found = plan("lost", replace(SITUATION, confirm=confirm, now=NOW + LIFETIME))
    assert (found.outcome, found.consented) == (None, True)


def test_a_dry_run_needs_no_consent() -> None:
    assert plan("lost", replace(SITUATION, dry_run=True)).outcome is None


def test_a_wrong_consent_is_refused_even_where_none_was_needed() -> None:
    found = plan("stopped", replace(SITUATION, confirm="aaaaaa-000000000000"))
    assert found.outcome == "refused"


@pytest.mark.parametrize("confirm", ["aaaaaa-000000000000", "yes"])
def test_a_consent_that_nothing_planned_needs_is_not_held_against_it(confirm: str) -> None:
    """After a kill, what was consented to has only to be finished, by the very same command."""
    mild = [{"cause": "half_done", "remedies": [{"name": "finish", "destructive": False, "changes": BOTH}]}]
    found = decide(check_diagnosis(diagnosis("half_done"), "fake"), mild, replace(SITUATION, confirm=confirm))
    assert (found.outcome, found.consented, found.confirm) == (None, False, None)


def test_an_open_breaker_lets_nothing_act_and_shows_the_last_failure() -> None:
    failures = tuple({"at": "t", "run": "r", "cause": "stopped", "error": f"e{n}"} for n in range(3))
    found = plan("stopped", replace(SITUATION, breaker=BreakerState("fake", failures)))
    assert (found.outcome, found.escalate) == ("refused", True)
    assert found.reason is not None
    assert "e2" in found.reason["en"]
    assert plan("healthy", replace(SITUATION, breaker=BreakerState("fake", failures))).outcome == "already_healthy"


@pytest.mark.parametrize(
    ("broken", "problem"),
    [
        ({"cause": "stopped"}, "lacks component"),
        (diagnosis("stopped", component="other"), "is of 'other'"),
        (diagnosis("stopped", healthy="yes"), "healthy must be"),
        (diagnosis("stopped", healthy=True), "says healthy=True"),
        (diagnosis("stopped", evidence=[]), "without evidence"),
        (diagnosis("stopped", summary={"en": "only"}), "must be"),
    ],
    ids=["missing", "component", "type", "contradiction", "evidence", "language"],
)
def test_a_diagnosis_that_breaks_the_contract_is_an_error(broken: dict[str, Any], problem: str) -> None:
    with pytest.raises(WhatsAgentError, match=problem):
        check_diagnosis(broken, "fake")


@pytest.mark.parametrize(
    "rung",
    [
        {"destructive": False, "changes": BOTH},
        {"name": "x", "changes": BOTH},
        {"name": "x", "destructive": "no", "changes": BOTH},
        {"name": "x", "destructive": False},
        {"name": "x", "destructive": False, "changes": BOTH, "outcome": "predicted"},
    ],
    ids=["name", "destructive", "type", "changes", "outcome"],
)
def test_a_rung_that_breaks_the_contract_is_an_error(rung: dict[str, Any]) -> None:
    with pytest.raises(WhatsAgentError):
        remedies_for([{"cause": "c", "remedies": [rung]}], "c", {})


SUBJECT = Subject("box", "fake", "lost", ("rebuild",), state_digest({"backup": "b1"}))


@pytest.mark.parametrize(
    ("now_it_is", "words"),
    [
        (replace(SUBJECT, host="other"), "for the host box, not other"),
        (replace(SUBJECT, component="app"), "for fake, not app"),
        (replace(SUBJECT, cause="stopped"), "the cause is now stopped"),
        (replace(SUBJECT, remedies=("drop",)), "other steps"),
        (replace(SUBJECT, state=state_digest({"backup": "b2"})), "state that has moved"),
    ],
    ids=["host", "component", "cause", "steps", "state"],
)
def test_a_consent_to_something_else_is_refused_with_what_differs(now_it_is: Subject, words: str) -> None:
    given = consent_hash(SUBJECT, NOW)
    reason = refuse_consent(given, now_it_is, now=NOW, issued=SUBJECT)
    assert reason is not None
    assert words in reason["en"]
    assert refuse_consent(given, now_it_is, now=NOW, issued=None) is not None


@pytest.mark.parametrize(
    ("age", "words"),
    [(0, None), (LIFETIME, None), (LIFETIME + 1, "expired"), (-30, None), (-3600, "from the future")],
)
def test_a_consent_is_good_for_its_lifetime_only(age: int, words: str | None) -> None:
    reason = refuse_consent(consent_hash(SUBJECT, NOW - age), SUBJECT, now=NOW, issued=SUBJECT)
    assert (reason is None) == (words is None)
    if words and reason:
        assert words in reason["en"]


@pytest.mark.parametrize("given", ["yes", "-", "x-123", "ABC-123456789012", "tp0-12345678901é", "tp0-1234567890123"])
def test_what_is_no_hash_is_called_so(given: str) -> None:
    reason = refuse_consent(given, SUBJECT, now=NOW, issued=None)
    assert reason is not None


def test_a_hash_can_not_be_made_to_last_by_a_new_stamp() -> None:
    stamp, digest = consent_hash(SUBJECT, NOW).split("-")
    later = consent_hash(SUBJECT, NOW + 10 * LIFETIME).split("-")[0]
    assert stamp != later
    assert refuse_consent(f"{later}-{digest}", SUBJECT, now=NOW + 10 * LIFETIME, issued=SUBJECT) is not None


def test_the_subject_counts_only_what_destroys() -> None:
    checked = check_diagnosis(diagnosis("stopped"), "fake")
    assert subject_of(checked, remedies_for(LADDER, "stopped", {}), "box").remedies == ("rebuild",)
