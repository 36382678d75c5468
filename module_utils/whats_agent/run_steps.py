# SPDX-License-Identifier: GPL-3.0-or-later
"""The rungs of a run: what is checked at the moment of acting, and how a rung ends."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from .consent import Subject, consent_hash, refuse_consent, state_digest
from .docker_host import DockerHost
from .errors import Text, WhatsAgentError
from .lock import heartbeat
from .plan import Diagnosis, check_diagnosis
from .report import last_step
from .run_base import RunBase, diagnosis_fields
from .stable import watch


class Steps(RunBase):
    """Beginning and ending a rung."""

    def begin_step(
        self,
        step: str,
        diagnosis: Mapping[str, Any],
        confirm: str = "",
        verification: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Check at the moment of acting that the symptom is still the planned one, and record the start.

        `verification` is the one that failed after the rung before, if there was one.
        Returns `{step, proceed, gone, result}`. `gone`: healthy by now, so verify instead of acting. `result` is set when the run
        ends here: the cause is another one, or consent no longer fits.
        """
        self.renew()
        if verification is not None:
            self._journal.write("verify", **dict(verification))
        checked = check_diagnosis(diagnosis, self.about.component)
        planned = self._planned()
        rung = next((entry for entry in planned["remedies"] if entry["name"] == step), None)
        if rung is None:
            raise WhatsAgentError(f"the step {step} is not in this run's plan", step=step, cause=planned["cause"])
        if checked.healthy:
            self._journal.write("recheck", step=step, cause=checked.cause, gone=True)
            return {"step": step, "proceed": False, "gone": True, "result": None}
        reason = self._refuse_step(checked, planned, rung, confirm)
        if reason is not None:
            self._journal.write("diagnosis", **diagnosis_fields(diagnosis))
            events = self._events()
            acted = self._acted(events)
            result = self._finish(
                "acted_not_recovered" if acted else "refused",
                cause=checked.cause,
                remedy=last_step(events),
                reason=reason,
                next_step=self._after_refusal(checked, planned),
                escalate=acted,
            )
            return {"step": step, "proceed": False, "gone": False, "result": result}
        if self._holds_lease and rung.get("quiet_seconds"):
            self._lock.renew(self.run_id, time_to_live=max(self.settings.time_to_live, float(rung["quiet_seconds"])))
        self._journal.write("step", phase="begin", step=step, destructive=rung["destructive"])
        return {"step": step, "proceed": True, "gone": False, "result": None}

    def _after_refusal(self, checked: Diagnosis, planned: Mapping[str, Any]) -> Text:
        """Tell what to do when a step was refused: run again, with the consent that fits now where one is needed."""
        step = {
            "en": "run again: it plans for what it finds then",
            "pt": "execute de novo: o plano será feito para o que for encontrado",
        }
        if checked.cause != planned["cause"] or "subject" not in planned:
            return step
        subject = replace(Subject.of(planned["subject"]), state=state_digest(checked.state))
        code = consent_hash(subject, int(self._clock.wall()))
        self._journal.write("consent", confirm=code, subject=subject.as_dict())
        return {
            "en": f"to consent, run again with -e confirm={code}",
            "pt": f"para consentir, execute de novo com -e confirm={code}",
        }

    def _refuse_step(
        self, checked: Diagnosis, planned: Mapping[str, Any], rung: Mapping[str, Any], confirm: str
    ) -> Text | None:
        if checked.cause != planned["cause"]:
            return {
                "en": f"the cause changed from {planned['cause']} to {checked.cause} before {rung['name']}",
                "pt": f"a causa mudou de {planned['cause']} para {checked.cause} antes de {rung['name']}",
            }
        if checked.refuse is not None:
            return checked.refuse
        if not rung["destructive"] or self.about.dry_run:
            return None
        if not confirm:
            return {
                "en": f"the milder remedies did not help, and {rung['name']} destroys: it needs your consent",
                "pt": f"os remédios mais leves não ajudaram, e {rung['name']} destrói: precisa do seu consentimento",
            }
        subject = Subject.of(planned["subject"])
        present = replace(subject, host=self.about.host, cause=checked.cause, state=state_digest(checked.state))
        # How long the run itself took must not make a consent given in time expire under way.
        return refuse_consent(confirm, present, now=int(confirm.partition("-")[0], 36), issued=subject)

    def end_step(
        self,
        step: str,
        *,
        ok: bool,
        error: str = "",
        error_pt: str = "",
        stable_seconds: float = 0,
        project: str = "",
    ) -> dict[str, Any]:
        """Record how a rung ended: `ok` when its tasks ran through. The lease goes back to its usual time to live.

        After a rung that ended well, let `stable_seconds` pass, in which the containers of `project` must stand: what is
        verified then is what stays. Returns `{step, ok, seconds, error, next}`: `next` is the rung to take when this one
        does not help; none after a rung that failed while destroying, since no guess may follow that.
        """
        if self._holds_lease:
            self._lock.renew(self.run_id, time_to_live=self.settings.time_to_live)
        begun = [
            e for e in self._events() if e["event"] == "step" and e.get("phase") == "begin" and e.get("step") == step
        ]
        if not begun:
            raise WhatsAgentError(f"the step {step} ends without having begun", step=step)
        seconds = round(self._clock.boottime() - begun[-1]["boot"], 1)
        tasks_ran = ok
        if ok and stable_seconds and not self.about.dry_run:
            fallen = self._stand(stable_seconds, project)
            ok, error, error_pt = not fallen, "; ".join(fallen), ""
        fields: dict[str, Any] = {"phase": "end", "step": step, "ok": ok, "seconds": seconds}
        if error:
            fields["error"] = error
        if error and error_pt:
            fields["error_pt"] = error_pt
        self._journal.write("step", **fields)
        names = [str(remedy["name"]) for remedy in self._planned()["remedies"]]
        following: str | None = names[names.index(step) + 1] if step != names[-1] else None
        if not tasks_ran and begun[-1]["destructive"]:
            following = None
        return {"step": step, "ok": ok, "seconds": seconds, "error": error, "next": following}

    def _stand(self, seconds: float, project: str) -> list[str]:
        """Let the stable window pass; return what did not stand in it. An engine that cannot be asked is verification's."""
        with heartbeat(self.run_id if self._holds_lease else None, self.settings.state_dir, clock=self._clock):
            if project:
                try:
                    return watch(DockerHost(), project, seconds, self._clock)
                except WhatsAgentError as error:
                    self._journal.write("window", unseen=error.message)
            self._clock.sleep(seconds)
        return []
