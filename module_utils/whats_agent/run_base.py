# SPDX-License-Identifier: GPL-3.0-or-later
"""What every operation of a run stands on: what it is about, its journal, its lease, and how it ends."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from . import notify
from .breaker import THRESHOLD, Breaker
from .clock import SYSTEM_CLOCK, Clock
from .control import UNATTENDED, read_mute
from .env_file import parse_env
from .errors import Text, WhatsAgentError
from .journal import STATE_DIR, Journal, close_abandoned, new_run_id, read_events, run_path
from .lock import TIME_TO_LIVE, HostLock, LockHeldError
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

    def renew(self, *, time_to_live: float | None = None) -> None:
        """Renew the lease, for `time_to_live` from now on if that is given, or raise because it is no longer ours."""
        if self._holds_lease:
            self._lock.renew(self.run_id, time_to_live=time_to_live)

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
        held_back = self._held_back(holder)
        if held_back is not None:
            opened["result"] = held_back
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
            close_abandoned(self._journal_of(dead.run), self.run_id)
        return opened

    def _held_back(self, holder: Mapping[str, str]) -> dict[str, Any] | None:
        """End a run that nobody is at the keyboard of, while its component is muted."""
        if holder.get("entry_point") not in UNATTENDED:
            return None
        mute = read_mute(self.settings.state_dir, self.about.component, self._clock)
        if mute is None:
            return None
        command = f"oncall unmute {self.about.component} --why …"
        step = {"en": f"wait, or {command}", "pt": f"espere, ou {command}"}
        return self._finish("refused", reason=mute.describe(), next_step=step)

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
        counts: bool = True,
    ) -> dict[str, Any]:
        """End the run; return its result. `counts`: whether the breaker is told, also of what no remedy here could have done."""
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
        if self._holds_lease and counts:
            self._count(result)
        result = redact(result, self.known_secrets)
        self._journal.write("close", **{k: v for k, v in result.items() if k not in ("run", "dry_run")})
        if self._holds_lease:
            self._give_back(result)
        return result

    def _give_back(self, result: Mapping[str, Any]) -> None:
        self._lock.release(self.run_id)
        self._tell(result)

    def _tell(self, result: Mapping[str, Any]) -> None:
        """Send word of the end. The run is over and recorded by now, so nothing that happens here can change it."""
        if not notify.is_news(result):
            return
        try:
            mute = read_mute(self.settings.state_dir, self.about.component, self._clock)
            channels = notify.read_channels(self.settings.state_dir / notify.FILE_NAME)
        except WhatsAgentError as error:
            self._journal.write("notify", ok=False, error=error.message)
            return
        if channels == notify.Channels():
            return
        if mute is not None:
            self._journal.write("notify", ok=False, error=mute.describe()["en"])
            return
        for told in notify.send(channels, notify.text_of(result), result, self._clock):
            self._journal.write("notify", **told)

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
