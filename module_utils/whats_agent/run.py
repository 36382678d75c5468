# SPDX-License-Identifier: GPL-3.0-or-later
"""One run of a runbook on its target: open, plan, steps, close. Modules and timers call it; state lives in the journal.

Each call is a process of its own, so what an earlier call decided is read back from the run's journal, and every call
renews the lease: a run that lost it stops here before it can act beside another.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from .breaker import THRESHOLD, Breaker
from .clock import SYSTEM_CLOCK, Clock
from .consent import Subject, consent_hash, refuse_consent, state_digest
from .docker_host import DockerHost
from .env_file import parse_env
from .errors import Text, WhatsAgentError
from .journal import STATE_DIR, Journal, last_durations, new_run_id, read_events, run_ids, run_path
from .lock import TIME_TO_LIVE, HostLock, LockHeldError
from .plan import FAILURES, Diagnosis, Plan, Situation, check_diagnosis, decide, subject_of
from .redact import redact, secrets_of
from .report import message, recommend, timings
from .stable import watch

_SEARCHED_PLANS = 50  # journals looked through for the plan that issued a consent


@dataclass(frozen=True)
class Settings:
    """Where and how runs are kept on a host. `env_file` tells which values must never be shown."""

    state_dir: Path = STATE_DIR
    env_file: Path | None = None
    time_to_live: float = TIME_TO_LIVE
    breaker_threshold: int = THRESHOLD
    clock: Clock = SYSTEM_CLOCK


@dataclass(frozen=True)
class About:
    """What a run is about; its journal's first line remembers it. `host` is the inventory's name."""

    host: str
    component: str
    playbook: str = ""
    dry_run: bool = False
    read_only: bool = False


class Run:
    """The operations of one run."""

    def __init__(self, settings: Settings, run_id: str, about: About) -> None:
        """Name a run; use `new` or `resume`."""
        self.settings = settings
        self.about = about
        self.run_id = run_id
        self._clock = settings.clock
        self._lock = HostLock(settings.state_dir, time_to_live=settings.time_to_live, clock=settings.clock)
        self._breaker = Breaker(
            settings.state_dir, about.component, threshold=settings.breaker_threshold, clock=settings.clock
        )
        self.known_secrets = _known_secrets(settings.env_file)
        self._journal = self._journal_of(self.run_id)

    @classmethod
    def new(cls, settings: Settings, about: About) -> Run:
        """Name a run that is to be opened."""
        return cls(settings, new_run_id(settings.clock), about)

    @classmethod
    def resume(cls, settings: Settings, run_id: str) -> Run:
        """Go on with a run that an earlier call opened; what it is about stands in its journal."""
        opened = read_events(run_path(settings.state_dir, run_id))[:1]
        if not opened or opened[0]["event"] != "open":
            raise WhatsAgentError(f"run {run_id} was never opened", run=run_id)
        fields = {name: opened[0][name] for name in ("host", "component", "playbook", "read_only")}
        return cls(settings, run_id, About(dry_run=bool(opened[0].get("dry_run")), **fields))

    def _journal_of(self, run_id: str) -> Journal:
        return Journal(
            self.settings.state_dir,
            run_id,
            dry_run=self.about.dry_run,
            known_secrets=self.known_secrets,
            clock=self._clock,
        )

    @property
    def _holds_lease(self) -> bool:
        return not (self.about.dry_run or self.about.read_only)

    def _events(self) -> list[dict[str, Any]]:
        return read_events(run_path(self.settings.state_dir, self.run_id))

    def renew(self) -> None:
        """Renew the lease, or raise because it is no longer ours."""
        if self._holds_lease:
            self._lock.renew(self.run_id)

    # Open ------------------------------------------------------------------------------------------------------------

    def open(self, holder: Mapping[str, str]) -> dict[str, Any]:
        """Record the run and take the host's lease; a held one ends the run as refused.

        Returns `{run_id, result, taken_over, held_by}`; `result` is None while the run goes on.
        """
        self._journal.write(
            "open",
            component=self.about.component,
            playbook=self.about.playbook,
            host=self.about.host,
            read_only=self.about.read_only,
            holder=dict(holder),
        )
        opened: dict[str, Any] = {"run_id": self.run_id, "result": None, "taken_over": None, "held_by": None}
        if not self._holds_lease:
            present = self._lock.read()
            if present is not None and not self._lock.is_dead(present):
                opened["held_by"] = present.describe()
                self._journal.write("lock", held_by=present.describe())
            return opened
        try:
            dead = self._lock.acquire(self.run_id, self.about.component, holder)
        except LockHeldError as error:
            owner = error.details["holder"]
            reason = {
                "en": error.message,
                "pt": (
                    f"outra execução ocupa este servidor: {owner['run']} ({owner['component']}) de "
                    f"{owner['user']}@{owner['controller']} por {owner['entry_point']}, desde {owner['since']}"
                ),
            }
            step = {"en": f"wait for run {owner['run']} to end", "pt": f"espere a execução {owner['run']} terminar"}
            opened["result"] = self._finish("refused", reason=reason, next_step=step)
            return opened
        if dead is not None:
            opened["taken_over"] = dead.run
            self._journal.write("takeover", of=dead.run, holder=asdict(dead))
            self._close_abandoned(dead.run)
        return opened

    def _close_abandoned(self, run_id: str) -> None:
        """Close the journal of a run whose holder died, so that no run stays open for ever."""
        if not run_path(self.settings.state_dir, run_id).exists():
            return
        if any(event["event"] == "close" for event in read_events(run_path(self.settings.state_dir, run_id))):
            return
        reason = {
            "en": f"abandoned: its holder died and run {self.run_id} took its lease over",
            "pt": f"abandonada: quem a executava morreu e a execução {self.run_id} assumiu",
        }
        self._journal_of(run_id).write("close", outcome="abandoned", reason=reason, taken_over_by=self.run_id)

    # Plan ------------------------------------------------------------------------------------------------------------

    def plan(
        self, diagnosis: Mapping[str, Any], ladder: Sequence[Mapping[str, Any]], confirm: str = ""
    ) -> tuple[Plan, dict[str, Any] | None]:
        """Decide; returns the plan, and the run's result when the decision ends it (healthy, refused)."""
        self.renew()
        checked = check_diagnosis(diagnosis, self.about.component)
        self._journal.write("diagnosis", **_diagnosis_fields(diagnosis))
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

    # Steps -----------------------------------------------------------------------------------------------------------

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
            self._journal.write("diagnosis", **_diagnosis_fields(diagnosis))
            events = self._events()
            acted = self._acted(events)
            result = self._finish(
                "acted_not_recovered" if acted else "refused",
                cause=checked.cause,
                remedy=_last_step(events),
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
        self, step: str, *, ok: bool, error: str = "", stable_seconds: float = 0, project: str = ""
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
            ok, error = not fallen, "; ".join(fallen)
        fields: dict[str, Any] = {"phase": "end", "step": step, "ok": ok, "seconds": seconds}
        if error:
            fields["error"] = error
        self._journal.write("step", **fields)
        names = [str(remedy["name"]) for remedy in self._planned()["remedies"]]
        following: str | None = names[names.index(step) + 1] if step != names[-1] else None
        if not tasks_ran and begun[-1]["destructive"]:
            following = None
        return {"step": step, "ok": ok, "seconds": seconds, "error": error, "next": following}

    def _stand(self, seconds: float, project: str) -> list[str]:
        """Let the stable window pass; return what did not stand in it. An engine that cannot be asked is verification's."""
        if project:
            try:
                return watch(DockerHost(), project, seconds, self._clock)
            except WhatsAgentError as error:
                self._journal.write("window", unseen=error.message)
        self._clock.sleep(seconds)
        return []

    def _planned(self) -> dict[str, Any]:
        planned = [event for event in self._events() if event["event"] == "plan"]
        if not planned:
            raise WhatsAgentError(f"run {self.run_id} has no plan yet", run=self.run_id)
        return planned[-1]

    @staticmethod
    def _acted(events: Sequence[Mapping[str, Any]]) -> bool:
        return any(event["event"] == "step" and event.get("phase") == "begin" for event in events)

    # Close -----------------------------------------------------------------------------------------------------------

    def close(self, verification: Mapping[str, Any] | None, error: str = "") -> dict[str, Any]:
        """End a run that planned to act, and return its result. `error` is what stopped it, if something did."""
        events = self._events()
        already = next((event for event in events if event["event"] == "close"), None)
        if already is not None:
            raise WhatsAgentError(f"run {self.run_id} is closed already ({already['outcome']})", run=self.run_id)
        planned = next((event for event in reversed(events) if event["event"] == "plan"), None)
        ends = [event for event in events if event["event"] == "step" and event.get("phase") == "end"]
        last = _last_step(events)
        if verification is not None:
            self._journal.write("verify", step=last, **dict(verification))
        if self.about.dry_run and planned is not None and not error:
            unpredictable = _unpredictable(ends)
            needed = planned["remedies"][0]["destructive"]  # a milder first rung needs no consent to be tried
            return self._finish(
                "predicted",
                cause=planned["cause"],
                remedy=last,
                reason=unpredictable,
                confirm=planned.get("confirm") if needed else None,
            )
        cause = planned["cause"] if planned else None
        checks = list((verification or {}).get("checks") or [])
        if verification is not None and verification.get("ok") is True and not error:
            outcome = self._success(planned, ends)
            return self._finish(outcome, cause=cause, remedy=last, rpo=verification.get("rpo"), checks=checks)
        reason = _why_not(error, ends, verification)
        outcome = "acted_not_recovered" if self._acted(events) else "refused"
        return self._finish(
            outcome, cause=cause, remedy=last, reason=reason, checks=checks, escalate=outcome != "refused"
        )

    @staticmethod
    def _success(planned: Mapping[str, Any] | None, ends: Sequence[Mapping[str, Any]]) -> str:
        if not ends or planned is None:
            return "already_healthy"
        by_name = {entry["name"]: entry for entry in planned["remedies"]}
        return str(by_name[ends[-1]["step"]]["outcome"])

    def _finish(
        self,
        outcome: str,
        *,
        cause: str | None = None,
        remedy: str | None = None,
        reason: Text | None = None,
        rpo: Mapping[str, Any] | None = None,
        next_step: Text | None = None,
        confirm: str | None = None,
        checks: Sequence[Mapping[str, Any]] = (),
        escalate: bool = False,
    ) -> dict[str, Any]:
        result: dict[str, Any] = {
            "run": self.run_id,
            "host": self.about.host,
            "component": self.about.component,
            "outcome": outcome,
            "ok": outcome not in FAILURES,
            "cause": cause,
            "remedy": remedy,
            "reason": reason,
            "rpo": dict(rpo) if rpo else None,
            "confirm": confirm,
            "escalate": escalate,
            "dry_run": self.about.dry_run,
            "seconds": timings(self._events(), self._clock.boottime()),
        }
        result["checks"] = checks
        result["next_step"] = next_step or recommend(result)
        result["message"] = message(result)
        if self._holds_lease:
            self._count(result)
        result = redact(result, self.known_secrets)
        self._journal.write("close", **{k: v for k, v in result.items() if k not in ("run", "dry_run")})
        if self._holds_lease:
            self._lock.release(self.run_id)
        return result

    def _count(self, result: Mapping[str, Any]) -> None:
        """Tell the breaker: a recovery that failed counts, a verified one clears."""
        if result["outcome"] == "acted_not_recovered":
            reason = (result["reason"] or {}).get("en", "")
            state = self._breaker.record_failure(self.run_id, str(result["cause"]), reason)
            self._journal.write("breaker", action="counted", open=state.is_open, failures=len(state.failures))
        elif result["outcome"] in ("recovered", "rolled_back") and self._breaker.reset():
            self._journal.write("breaker", action="closed", why="recovery verified")


def _last_step(events: Sequence[Mapping[str, Any]]) -> str | None:
    return next((str(e["step"]) for e in reversed(events) if e["event"] == "step" and e.get("phase") == "end"), None)


def _diagnosis_fields(diagnosis: Mapping[str, Any]) -> dict[str, Any]:
    names = ("component", "cause", "healthy", "evidence", "summary", "belongs_to", "refuse", "state", "loses")
    return {name: diagnosis[name] for name in names if name in diagnosis}


def _known_secrets(env_file: Path | None) -> tuple[str, ...]:
    """Return the values that must never be shown. An env file that is missing or broken is diagnosis's to name, not ours."""
    if env_file is None:
        return ()
    try:
        return tuple(secrets_of(parse_env(env_file.read_text(encoding="utf-8"), str(env_file))))
    except (OSError, UnicodeDecodeError, WhatsAgentError):
        return ()


def _unpredictable(ends: Sequence[Mapping[str, Any]]) -> Text | None:
    """Say of a dry run that its step could not be played through, and so is not predictable from there on."""
    failed = next((event for event in ends if not event.get("ok")), None)
    if failed is None:
        return None
    step, why = failed["step"], failed.get("error", "")
    return {
        "en": f"the step {step} is not predictable beyond this point: {why}",
        "pt": f"o passo {step} não é previsível além deste ponto: {why}",
    }


def _why_not(error: str, ends: Sequence[Mapping[str, Any]], verification: Mapping[str, Any] | None) -> Text:
    """Say why a run did not recover: what stopped it, the failed checks, or the failed step."""
    if error:
        return {"en": error, "pt": error}
    failed = [c for c in (verification or {}).get("checks") or [] if not c.get("ok")]
    if failed:
        named = ", ".join(f"{c['name']} ({c.get('detail', '')})" for c in failed)
        return {"en": f"verification failed: {named}", "pt": f"a verificação falhou: {named}"}
    if ends and not ends[-1].get("ok"):
        step, why = ends[-1]["step"], ends[-1].get("error", "")
        return {"en": f"the step {step} failed: {why}", "pt": f"o passo {step} falhou: {why}"}
    return {"en": "nothing verified that it is healthy", "pt": "nada verificou que está saudável"}
