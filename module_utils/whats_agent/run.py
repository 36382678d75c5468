# SPDX-License-Identifier: GPL-3.0-or-later
"""One run of a runbook on its target: open, plan, steps, close. Modules and timers call it; state lives in the journal.

Each call is a process of its own, so what an earlier call decided is read back from the run's journal, and every call
renews the lease: a run that lost it stops here before it can act beside another.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .consent import Subject
from .errors import WhatsAgentError
from .journal import last_durations, read_events, run_ids, run_path
from .plan import Diagnosis, Plan, Situation, begins_at_once, check_diagnosis, decide, subject_of
from .report import last_step, unpredictable, why_not
from .run_base import About, Settings, diagnosis_fields
from .run_steps import Steps

__all__ = ["About", "Run", "Settings"]

_SEARCHED_PLANS = 50  # journals looked through for the plan that issued a consent


class Run(Steps):
    """The operations of one run."""

    # Plan ------------------------------------------------------------------------------------------------------------

    def plan(
        self, diagnosis: Mapping[str, Any], ladder: Sequence[Mapping[str, Any]], confirm: str = ""
    ) -> tuple[Plan, dict[str, Any] | None]:
        """Decide; returns the plan, and the run's result when the decision ends it (healthy, refused)."""
        self.renew()
        checked = check_diagnosis(diagnosis, self.about.component)
        self._journal.write("diagnosis", **diagnosis_fields(diagnosis))
        names = [str(rung.get("name")) for entry in ladder for rung in entry.get("remedies") or []]
        breaker = self._breaker.read()
        plan = decide(
            checked,
            ladder,
            Situation(
                host=self.about.host,
                breaker=breaker,
                last=last_durations(self.settings.state_dir, self.about.component, names)
                if not checked.healthy
                else {},
                confirm=confirm,
                now=int(self._clock.wall()),
                issued=self._issued(confirm) if confirm else None,
                dry_run=self.about.dry_run,
            ),
        )
        self._journal.write("plan", **self._plan_fields(plan, checked))
        if checked.healthy and breaker.failures and not self.about.dry_run:
            self._breaker.reset()
            self._journal.write("breaker", action="closed", why="verified healthy", failures=list(breaker.failures))
        if plan.outcome is None:
            return plan, None
        return plan, self._finish(
            plan.outcome, cause=plan.cause, reason=plan.reason, next_step=plan.next_step, escalate=plan.escalate
        )

    def _plan_fields(self, plan: Plan, diagnosis: Diagnosis) -> dict[str, Any]:
        fields: dict[str, Any] = {
            "cause": plan.cause,
            "remedies": [remedy.as_dict() for remedy in plan.remedies],
            "outcome": plan.outcome,
            "reason": plan.reason,
            "loses": plan.loses,
            "consented": plan.consented,
        }
        if plan.confirm is not None:
            fields["confirm"] = plan.confirm
            fields["subject"] = subject_of(diagnosis, plan.remedies, self.about.host).as_dict()
        return fields

    def _issued(self, confirm: str) -> Subject | None:
        """Find the plan that printed this consent on this host."""
        for run_id in run_ids(self.settings.state_dir)[:_SEARCHED_PLANS]:
            for event in read_events(run_path(self.settings.state_dir, run_id)):
                if event["event"] in ("plan", "consent") and event.get("confirm") == confirm:
                    return Subject.of(event["subject"])
        return None

    def begin_first(self, plan: Plan, diagnosis: Mapping[str, Any]) -> dict[str, Any] | None:
        """Begin the first rung on the look that the plan rests on, or return None: one more look is needed before it.

        Returns what `begin_step` does.
        """
        checked = check_diagnosis(diagnosis, self.about.component)
        if not begins_at_once(checked, plan, self._clock.boottime()):
            return None
        return self.begin_step(plan.remedies[0].name, diagnosis)

    # Close -----------------------------------------------------------------------------------------------------------

    def close(self, verification: Mapping[str, Any] | None, error: str = "", error_pt: str = "") -> dict[str, Any]:
        """End a run that planned to act, and return its result. `error` is what stopped it, if something did."""
        events = self._events()
        already = next((event for event in events if event["event"] == "close"), None)
        if already is not None:
            raise WhatsAgentError(f"run {self.run_id} is closed already ({already['outcome']})", run=self.run_id)
        planned = next((event for event in reversed(events) if event["event"] == "plan"), None)
        ends = [event for event in events if event["event"] == "step" and event.get("phase") == "end"]
        last = last_step(events)
        if verification is not None:
            self._journal.write("verify", step=last, **dict(verification))
        if self.about.dry_run and planned is not None and not error:
            needed = planned["remedies"][0]["destructive"]  # a milder first rung needs no consent to be tried
            return self._finish(
                "predicted",
                cause=planned["cause"],
                remedy=last,
                reason=unpredictable(ends),
                confirm=planned.get("confirm") if needed else None,
            )
        cause = planned["cause"] if planned else None
        checks = list((verification or {}).get("checks") or [])
        if verification is not None and verification.get("ok") is True and not error:
            outcome = self._success(planned, ends)
            return self._finish(outcome, cause=cause, remedy=last, rpo=verification.get("rpo"), checks=checks)
        reason = why_not(error, ends, verification, error_pt)
        outcome = "acted_not_recovered" if self._acted(events) else "refused"
        counts = bool(error) or not (verification or {}).get("spares_breaker")
        return self._finish(
            outcome,
            cause=cause,
            remedy=last,
            reason=reason,
            checks=checks,
            escalate=outcome != "refused",
            counts=counts,
        )

    @staticmethod
    def _success(planned: Mapping[str, Any] | None, ends: Sequence[Mapping[str, Any]]) -> str:
        if not ends or planned is None:
            return "already_healthy"
        by_name = {entry["name"]: entry for entry in planned["remedies"]}
        return str(by_name[ends[-1]["step"]]["outcome"])
