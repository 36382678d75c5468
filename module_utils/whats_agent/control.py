# SPDX-License-Identifier: GPL-3.0-or-later
"""What people decide beside runs: break a dead lock, close or open a breaker, mute a component. All of it is journalled."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from .breaker import THRESHOLD, Breaker
from .clock import SYSTEM_CLOCK, Clock
from .errors import Text, WhatsAgentError
from .files import append_line, ensure_directory, read_json, write_json
from .lock import HostLock
from .redact import redact

_NAME = re.compile(r"[a-z][a-z0-9_]{0,40}")
UNATTENDED = ("watcher", "timer")  # entry points with nobody at the keyboard: what a mute holds back
MAX_MUTE = 7 * 86400  # seconds: a mute that outlives a week hides a fault that nobody looks at


@dataclass(frozen=True)
class Mute:
    """Alerts and unattended runs of a component are held back `until` (RFC 3339). Runs started by people are not."""

    component: str
    until: str
    by: str
    why: str
    since: str

    def describe(self) -> Text:
        """Return who muted what until when, and what that holds back."""
        return {
            "en": f"{self.component} is muted until {self.until} by {self.by} ({self.why}): nothing unattended acts on it",
            "pt": f"{self.component} está silenciado até {self.until} por {self.by} ({self.why}): nada age nele sozinho",
        }

    def is_over(self, clock: Clock) -> bool:
        """Tell whether the time is up, by this host's clock."""
        return clock.utc() >= datetime.fromisoformat(self.until)


class Control:
    """The decisions of one host."""

    def __init__(
        self, state_dir: Path, by: Mapping[str, str], *, dry_run: bool = False, clock: Clock = SYSTEM_CLOCK
    ) -> None:
        """`by` has user, controller and entry_point: who decides. A dry run answers what would change and writes nothing."""
        self._state_dir = state_dir
        self._by = dict(by)
        self._dry_run = dry_run
        self._clock = clock

    def break_lock(self, run_id: str, why: str) -> bool:
        """Remove the lease of a run that is named, so that nobody breaks another one than the one looked at."""
        lock = HostLock(self._state_dir, clock=self._clock)
        present = lock.read()
        if present is None:
            return False
        if present.run != run_id:
            raise WhatsAgentError(f"the lock is held by {present.describe()}, not by run {run_id}", held_by=present.run)
        if not self._dry_run:
            self._record("break_lock", why, lease=asdict(present), dead=lock.is_dead(present))
            lock.release(run_id)
        return True

    def close_breaker(self, component: str, why: str) -> bool:
        """Forget a component's failed recoveries, because a person looked into them."""
        breaker = Breaker(self._state_dir, component, clock=self._clock)
        failures = breaker.read().failures
        if failures and not self._dry_run:
            self._record("close_breaker", why, component=component, failures=list(failures))
            breaker.reset()
        return bool(failures)

    def open_breaker(self, component: str, why: str, threshold: int = THRESHOLD) -> bool:
        """Forbid runs to act on a component until a person closes the breaker again (or its health is verified)."""
        breaker = Breaker(self._state_dir, component, threshold=threshold, clock=self._clock)
        if breaker.read().is_open:
            return False
        if not self._dry_run:
            self._record("open_breaker", why, component=component)
            while not breaker.record_failure("by-hand", "by hand", why).is_open:
                pass
        return True

    def mute(self, component: str, seconds: float, why: str) -> Mute:
        """Mute a component for so many seconds; a mute that is there already is replaced."""
        if not 0 < seconds <= MAX_MUTE:
            raise WhatsAgentError(f"a mute lasts between 1 second and {MAX_MUTE // 86400} days, not {seconds:g} s")
        since = self._clock.utc()
        until = datetime.fromtimestamp(self._clock.wall() + seconds, tz=since.tzinfo)
        mute = Mute(
            component=component,
            until=until.isoformat(timespec="seconds"),
            by=f"{self._by.get('user')}@{self._by.get('controller')}",
            why=why,
            since=since.isoformat(timespec="seconds"),
        )
        path = _mute_path(self._state_dir, component)
        if not self._dry_run:
            self._record("mute", why, component=component, until=mute.until)
            ensure_directory(path.parent)
            write_json(path, asdict(mute))
        return mute

    def unmute(self, component: str, why: str) -> bool:
        """End a mute; return whether there was one."""
        path = _mute_path(self._state_dir, component)
        if not path.exists():
            return False
        if not self._dry_run:
            self._record("unmute", why, component=component)
            path.unlink()
        return True

    def note(self, component: str, why: str) -> bool:
        """Write down why something unattended acted on a component, or did not."""
        _mute_path(self._state_dir, component)  # a name that names no other file
        if not self._dry_run:
            self._record("note", why, component=component)
        return not self._dry_run

    def _record(self, action: str, why: str, **fields: Any) -> None:
        if not why.strip():
            raise WhatsAgentError(f"{action} needs a reason, for those who read the journal later")
        line = {"at": self._clock.rfc3339(), "event": "control", "action": action, "why": why, "by": self._by, **fields}
        ensure_directory(self._state_dir)
        append_line(self._state_dir / "control.jsonl", json.dumps(redact(line), ensure_ascii=False, default=str))


def _mute_path(state_dir: Path, component: str) -> Path:
    if not _NAME.fullmatch(component):
        raise WhatsAgentError(f"{component!r} is no component name", component=component)
    return state_dir / "mutes" / f"{component}.json"


def read_mute(state_dir: Path, component: str, clock: Clock = SYSTEM_CLOCK) -> Mute | None:
    """Return a component's mute while it lasts."""
    value = read_json(_mute_path(state_dir, component))
    mute = Mute(**value) if value else None
    return None if mute is None or mute.is_over(clock) else mute


def mutes(state_dir: Path, clock: Clock = SYSTEM_CLOCK) -> list[Mute]:
    """Return the mutes that last."""
    names = sorted(path.stem for path in (state_dir / "mutes").glob("*.json"))
    return [mute for name in names if (mute := read_mute(state_dir, name, clock)) is not None]


def decisions(state_dir: Path, limit: int) -> list[dict[str, Any]]:
    """Return the last decisions people took, newest first."""
    path = state_dir / "control.jsonl"
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()[-limit:]
    return [json.loads(line) for line in reversed(lines) if line.startswith("{") and line.endswith("}")]
