# SPDX-License-Identifier: GPL-3.0-or-later
"""What every operation of a run stands on: what it is about, its journal, its lease, and how it ends."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from .breaker import THRESHOLD, Breaker
from .clock import SYSTEM_CLOCK, Clock
from .env_file import parse_env
from .errors import Text, WhatsAgentError
from .journal import STATE_DIR, Journal, new_run_id, read_events, run_path
from .lock import TIME_TO_LIVE, HostLock
from .plan import FAILURES
from .redact import redact, secrets_of
from .report import message, recommend, timings


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


class RunBase:
    """One run's identity, journal and lease, and its end."""

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
        self.known_secrets = known_secrets(settings.env_file)
        self._journal = self._journal_of(self.run_id)

    @classmethod
    def new(cls, settings: Settings, about: About) -> Self:
        """Name a run that is to be opened."""
        return cls(settings, new_run_id(settings.clock), about)

    @classmethod
    def resume(cls, settings: Settings, run_id: str) -> Self:
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

    def _planned(self) -> dict[str, Any]:
        planned = [event for event in self._events() if event["event"] == "plan"]
        if not planned:
            raise WhatsAgentError(f"run {self.run_id} has no plan yet", run=self.run_id)
        return planned[-1]

    @staticmethod
    def _acted(events: Sequence[Mapping[str, Any]]) -> bool:
        return any(event["event"] == "step" and event.get("phase") == "begin" for event in events)

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


def known_secrets(env_file: Path | None) -> tuple[str, ...]:
    """Return the values that must never be shown. An env file that is missing or broken is diagnosis's to name, not ours."""
    if env_file is None:
        return ()
    try:
        return tuple(secrets_of(parse_env(env_file.read_text(encoding="utf-8"), str(env_file))))
    except (OSError, UnicodeDecodeError, WhatsAgentError):
        return ()


def diagnosis_fields(diagnosis: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a journal keeps of a diagnosis."""
    names = ("component", "cause", "healthy", "evidence", "summary", "belongs_to", "refuse", "state", "loses")
    return {name: diagnosis[name] for name in names if name in diagnosis}
