# SPDX-License-Identifier: GPL-3.0-or-later
"""The circuit breaker per component.

After so many failed recoveries in a row, people must look before anything acts again.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .clock import SYSTEM_CLOCK, Clock
from .errors import WhatsAgentError
from .files import ensure_directory, read_json, write_json

THRESHOLD = 3
_NAME = re.compile(r"[a-z][a-z0-9_]{0,40}")


@dataclass(frozen=True)
class BreakerState:
    """`failures` since the last verified health, oldest first: `{at, run, cause, error}`. Open means: do not act."""

    component: str
    failures: tuple[dict[str, Any], ...] = ()
    threshold: int = THRESHOLD

    @property
    def is_open(self) -> bool:
        """Whether so many recoveries failed that no further one may start."""
        return len(self.failures) >= self.threshold

    def as_dict(self) -> dict[str, Any]:
        """Return JSON-able data."""
        return {
            "component": self.component,
            "open": self.is_open,
            "threshold": self.threshold,
            "failures": list(self.failures),
        }


class Breaker:
    """One component's breaker on this host; its file survives reboots."""

    def __init__(
        self, state_dir: Path, component: str, *, threshold: int = THRESHOLD, clock: Clock = SYSTEM_CLOCK
    ) -> None:
        """Name the breaker's file; nothing is touched yet."""
        if not _NAME.fullmatch(component):
            raise WhatsAgentError(f"{component!r} is no component name", component=component)
        self.component = component
        self._path = state_dir / "breakers" / f"{component}.json"
        self._threshold = threshold
        self._clock = clock

    def read(self) -> BreakerState:
        """Return the state. A broken file is an error that names it: better no action than an action unguarded."""
        value = read_json(self._path)
        failures = tuple(value["failures"]) if value else ()
        return BreakerState(self.component, failures, self._threshold)

    def record_failure(self, run: str, cause: str, error: str) -> BreakerState:
        """Count a recovery that acted and did not help."""
        entry = {"at": self._clock.rfc3339(), "run": run, "cause": cause, "error": error[:500]}
        return self._write((*self.read().failures, entry))

    def reset(self) -> bool:
        """Forget the failures: health was verified, or a person decided so; return whether there were any."""
        if not self.read().failures:
            return False
        self._write(())
        return True

    def _write(self, failures: tuple[dict[str, Any], ...]) -> BreakerState:
        ensure_directory(self._path.parent)
        write_json(self._path, {"component": self.component, "failures": list(failures)})
        return BreakerState(self.component, failures, self._threshold)


def components(state_dir: Path) -> list[str]:
    """Return the components that have a breaker file."""
    return sorted(path.stem for path in (state_dir / "breakers").glob("*.json"))
