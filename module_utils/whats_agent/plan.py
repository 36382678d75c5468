# SPDX-License-Identifier: GPL-3.0-or-later
"""What a run decides: pure functions from a diagnosis, a ladder and a consent to a plan. They touch nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from .breaker import BreakerState
from .consent import Subject, consent_hash, refuse_consent, state_digest
from .errors import Text, WhatsAgentError
from .playbooks import by_hand

SUCCESSES = ("already_healthy", "recovered", "rolled_back", "predicted")
FAILURES = ("acted_not_recovered", "refused")
FRESH_S = 5.0  # a diagnosis that began to look no longer ago needs no second look before the first rung


@dataclass(frozen=True)
class Remedy:
    """One rung: what it is called, what it changes, and whether consent is needed.

    `outcome` is what a run that it heals ends with; `quiet_seconds` how long its tasks may run without a heartbeat;
    `last_seconds` how long it took the last time on this host.
    """

    name: str
    destructive: bool
    changes: Text
    outcome: str = "recovered"
    quiet_seconds: float | None = None
    last_seconds: float | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return JSON-able data."""
        return {
            "name": self.name,
            "destructive": self.destructive,
            "changes": self.changes,
            "outcome": self.outcome,
            "quiet_seconds": self.quiet_seconds,
            "last_seconds": self.last_seconds,
        }


@dataclass(frozen=True)
class Diagnosis:
    """What a component's diagnosis said, in the shape of docs/interfaces.md, checked.

    `looked_at` is when it began to look, in seconds of the target's boot clock; None where it does not tell.
    """

    component: str
    cause: str
    healthy: bool
    evidence: list[dict[str, Any]]
    summary: Text
    belongs_to: str | None
    refuse: Text | None
    state: dict[str, Any]
    loses: Text | None
    looked_at: float | None = None


@dataclass(frozen=True)
class Plan:
    """What will happen. `outcome` is set when it is already decided; otherwise `remedies` are to be climbed in order.

    `confirm` is the consent hash that fits now, None when nothing destructive is planned; `consented` tells whether the
    operator gave it.
    """

    cause: str
    outcome: str | None
    reason: Text | None
    remedies: tuple[Remedy, ...] = ()
    confirm: str | None = None
    consented: bool = False
    loses: Text | None = None
    escalate: bool = False
    next_step: Text | None = field(default=None)


def check_text(value: Any, where: str) -> Text:
    """Return a text in both languages, or fail naming where it is missing."""
    if not isinstance(value, Mapping) or not all(isinstance(value.get(k), str) and value[k] for k in ("en", "pt")):
        raise WhatsAgentError(f"{where} must be {{en: …, pt: …}}", value=value)
    return {"en": str(value["en"]), "pt": str(value["pt"])}


def check_diagnosis(value: Mapping[str, Any], component: str) -> Diagnosis:
    """Return a checked diagnosis. A component that breaks the contract is an error, never a guess."""
    missing = [k for k in ("component", "cause", "healthy", "summary") if k not in value]
    if missing:
        raise WhatsAgentError(f"the diagnosis of {component} lacks {', '.join(missing)}", missing=missing)
    if value["component"] != component:
        raise WhatsAgentError(f"the diagnosis is of {value['component']!r}, not of {component!r}")
    healthy = value["healthy"]
    if not isinstance(healthy, bool):
        raise WhatsAgentError(f"the diagnosis of {component}: healthy must be true or false, not {healthy!r}")
    if healthy != (value["cause"] == "healthy"):
        raise WhatsAgentError(f"the diagnosis of {component} says healthy={healthy} and cause={value['cause']!r}")
    evidence = value.get("evidence") or []
    if not healthy and not evidence:
        raise WhatsAgentError(f"the diagnosis of {component} names {value['cause']!r} without evidence")
    refuse = value.get("refuse")
    return Diagnosis(
        component=component,
        cause=str(value["cause"]),
        healthy=healthy,
        evidence=[dict(item) for item in evidence],
        summary=check_text(value["summary"], f"the summary of the diagnosis of {component}"),
        belongs_to=value.get("belongs_to") or None,
        refuse=check_text(refuse["reason"], "refuse.reason") if refuse else None,
        state=dict(value.get("state") or {}),
        loses=check_text(value["loses"], "loses") if value.get("loses") else None,
        looked_at=None if value.get("looked_at") is None else float(value["looked_at"]),
    )


def remedies_for(ladder: Sequence[Mapping[str, Any]], cause: str, last: Mapping[str, float]) -> tuple[Remedy, ...]:
    """Return the rungs for a cause, mildest first; none when the ladder does not know the cause."""
    found: list[Remedy] = []
    for entry in ladder:
        if entry.get("cause") != cause:
            continue
        for rung in entry.get("remedies") or []:
            name = str(rung.get("name", ""))
            if not name or not isinstance(rung.get("destructive"), bool):
                raise WhatsAgentError(
                    f"the ladder's rung {rung!r} for {cause} needs a name and destructive: true/false"
                )
            outcome = str(rung.get("outcome", "recovered"))
            if outcome not in ("recovered", "rolled_back"):
                raise WhatsAgentError(f"the ladder's rung {name}: outcome is recovered or rolled_back, not {outcome}")
            quiet = rung.get("quiet_seconds")
            found.append(
                Remedy(
                    name=name,
                    destructive=rung["destructive"],
                    changes=check_text(rung.get("changes"), f"the changes of the rung {name}"),
                    outcome=outcome,
                    quiet_seconds=None if quiet is None else float(quiet),
                    last_seconds=last.get(name),
                )
            )
    return tuple(found)


def begins_at_once(diagnosis: Diagnosis, plan: Plan, now: float) -> bool:
    """Tell whether the look that the plan rests on is the check before its first rung as well: it is that fresh.

    `now` is the boot clock's reading. Before what destroys, the symptom is always looked at once more.
    """
    if plan.outcome is not None or not plan.remedies or plan.remedies[0].destructive or diagnosis.looked_at is None:
        return False
    return 0 <= now - diagnosis.looked_at <= FRESH_S


def _escalation(state: BreakerState) -> Text:
    last = state.failures[-1]
    return {
        "en": (
            f"{len(state.failures)} recoveries of {state.component} failed in a row, the last at {last['at']} "
            f"({last['cause']}: {last['error']}): escalate to the DevOps engineer; nothing more is tried by itself"
        ),
        "pt": (
            f"{len(state.failures)} recuperações de {state.component} falharam em seguida, a última às {last['at']} "
            f"({last['cause']}: {last['error']}): escale para o engenheiro DevOps; nada mais é tentado sozinho"
        ),
    }


def _decided_by_diagnosis(diagnosis: Diagnosis) -> Plan | None:
    """Return the plan of a diagnosis that leaves nothing to do here."""
    if diagnosis.refuse is not None:
        return Plan(diagnosis.cause, "refused", diagnosis.refuse)
    if diagnosis.healthy:
        return Plan(diagnosis.cause, "already_healthy", diagnosis.summary)
    if diagnosis.belongs_to is not None:
        instead = by_hand(diagnosis.belongs_to)
        if instead is not None:
            return Plan(diagnosis.cause, "refused", diagnosis.summary, next_step=instead, escalate=True)
        reason = {
            "en": f"{diagnosis.summary['en']}. This is for playbooks/{diagnosis.belongs_to}",
            "pt": f"{diagnosis.summary['pt']}. Isto cabe a playbooks/{diagnosis.belongs_to}",
        }
        command = f"ansible-playbook playbooks/{diagnosis.belongs_to}"
        step = {"en": f"run {command}", "pt": f"execute {command}"}
        return Plan(diagnosis.cause, "refused", reason, next_step=step)
    return None


@dataclass(frozen=True)
class Situation:
    """What a decision depends on besides the diagnosis. `now` is seconds since the epoch on the target's clock."""

    host: str
    breaker: BreakerState
    last: Mapping[str, float]
    confirm: str
    now: int
    issued: Subject | None
    dry_run: bool


def decide(diagnosis: Diagnosis, ladder: Sequence[Mapping[str, Any]], situation: Situation) -> Plan:
    """Decide what to do about a diagnosis."""
    decided = _decided_by_diagnosis(diagnosis)
    if decided is not None:
        return decided
    cause = diagnosis.cause
    remedies = remedies_for(ladder, cause, situation.last)
    if situation.breaker.is_open:
        return Plan(cause, "refused", _escalation(situation.breaker), remedies, escalate=True)
    if not remedies:
        reason = {
            "en": f"no remedy is known for {cause}: {diagnosis.summary['en']}",
            "pt": f"nenhum remédio conhecido para {cause}: {diagnosis.summary['pt']}",
        }
        return Plan(cause, "refused", reason, escalate=True)
    subject = subject_of(diagnosis, remedies, situation.host)
    code = consent_hash(subject, situation.now) if subject.remedies else None
    # Where nothing destroys, a consent guards nothing: what it was given for may be half done, and only has to be finished.
    consented = bool(situation.confirm) and code is not None
    if consented:
        why_not = refuse_consent(situation.confirm, subject, now=situation.now, issued=situation.issued)
        if why_not is not None:
            return Plan(cause, "refused", why_not, remedies, code, loses=diagnosis.loses)
    if remedies[0].destructive and not consented and not situation.dry_run:
        return _ask_consent(diagnosis, remedies, code)
    return Plan(cause, None, None, remedies, code, consented, diagnosis.loses)


def subject_of(diagnosis: Diagnosis, remedies: Sequence[Remedy], host: str) -> Subject:
    """Return what a consent to these remedies stands for."""
    return Subject(
        host=host,
        component=diagnosis.component,
        cause=diagnosis.cause,
        remedies=tuple(remedy.name for remedy in remedies if remedy.destructive),
        state=state_digest(diagnosis.state),
    )


def _ask_consent(diagnosis: Diagnosis, remedies: tuple[Remedy, ...], code: str | None) -> Plan:
    loses = diagnosis.loses or {"en": "what would be lost is unknown", "pt": "não se sabe o que se perderia"}
    reason = {
        "en": f"{remedies[0].name} destroys and needs your consent: {loses['en']}",
        "pt": f"{remedies[0].name} destrói e precisa do seu consentimento: {loses['pt']}",
    }
    step = {"en": f"to consent, add -e confirm={code}", "pt": f"para consentir, acrescente -e confirm={code}"}
    return Plan(diagnosis.cause, "refused", reason, remedies, code, loses=diagnosis.loses, next_step=step)
