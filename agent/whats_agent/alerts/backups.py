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

    Ages in hours: of the newest proven backup, of the newest proven archive of the rest, of the file itself. `lag` in seconds: how
    long WAL has been waiting for the repository.
    """

    proven_age: float | None = None
    archive_age: float | None = None
    told_age: float | None = None
    lag: float | None = None
    problems: tuple[str, ...] = ()
    failed: tuple[str, ...] = ()
    jumps: tuple[str, ...] = ()


def read(path: Path, now: datetime) -> Backups:
    """Read the file; without one, for example before the first backup, nothing is known."""
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return Backups()
    if not isinstance(told, dict):
        return Backups()
    return Backups(
        proven_age=_hours(told.get("last_proven_at"), now),
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
    )


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
