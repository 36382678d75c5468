# SPDX-License-Identifier: GPL-3.0-or-later
"""How the backups stand, from the file that the server's backup timers write."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Backups:
    """What the file tells; None and empty mean that nobody knows, or that there is nothing to tell.

    Ages in hours: of the newest proven backup (in the repository where it is oldest), of the newest proven archive of the rest, of
    the file itself. `lag` in seconds: how long WAL has been waiting for the repository. `held` are repositories that cannot expire.
    """

    proven_age: float | None = None
    archive_age: float | None = None
    told_age: float | None = None
    lag: float | None = None
    problems: tuple[str, ...] = ()
    failed: tuple[str, ...] = ()
    jumps: tuple[str, ...] = ()
    held: tuple[str, ...] = ()


def read(path: Path, now: datetime) -> Backups:
    """Read the file; without one, for example before the first backup, nothing is known."""
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return Backups()
    if not isinstance(told, dict):
        return Backups()
    return Backups(
        proven_age=_proven_age(told, now),
        archive_age=_hours(told.get("last_archive_at"), now),
        told_age=_hours(told.get("at"), now),
        lag=_number(told.get("archive_lag_s")),
        problems=tuple(_problems(told)),
        failed=tuple(
            f"{kind}: {entry.get('reason')}" for kind, entry in _entries(told, "failed") if isinstance(entry, dict)
        ),
        jumps=tuple(
            f"{jump.get('backup')} ({jump.get('type')}, repository {jump.get('repo')}): {_megabytes(jump.get('before'))} to "
            f"{_megabytes(jump.get('bytes'))} MB"
            for jump in told.get("size_jumps") or []
            if isinstance(jump, dict)
        ),
        held=tuple(
            f"repository {number}: {held.get('fulls')} full backups instead of {held.get('keep')}, since {held.get('since')}"
            for number, held in _entries(told, "expiry_held")
            if isinstance(held, dict)
        ),
    )


def _proven_age(told: dict[str, Any], now: datetime) -> float | None:
    """For how long a proof has been due, in hours: in the repository where it is longest, a proof in another does not count."""
    moments = [told.get("last_proven_at")]
    moments += [entry.get("proof_due_since") for _number, entry in _entries(told, "proofs") if isinstance(entry, dict)]
    return max((age for moment in moments if (age := _hours(moment, now)) is not None), default=None)


def _problems(told: dict[str, Any]) -> Iterator[str]:
    for number, problem in _entries(told, "repository_problems"):
        yield f"repository {number}: {problem}"
    for name, problem in _entries(told, "archive_problems"):
        yield f"{name} archive: {problem}"


def _entries(told: dict[str, Any], name: str) -> list[tuple[str, Any]]:
    found = told.get(name)
    return sorted(found.items()) if isinstance(found, dict) else []


def _hours(told: Any, now: datetime) -> float | None:
    try:
        at = datetime.fromisoformat(told)
    except (ValueError, TypeError):
        return None
    return (now.astimezone(UTC) - at).total_seconds() / 3600 if at.tzinfo else None


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) else None


def _megabytes(value: Any) -> int | None:
    return round(value / (1024 * 1024)) if isinstance(value, int | float) else None
