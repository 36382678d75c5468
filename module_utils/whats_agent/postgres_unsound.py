# SPDX-License-Identifier: GPL-3.0-or-later
"""A restore that was closed because what it restored serves and is not sound: told until a later proof finds it sound.

Checking all of it takes too long for each look, so what the restore found stays written in its record. It counts as long as the
restore's volume is in use, whatever has been tried since, and ends with a backup that was taken of it afterwards and proven.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .clock import SYSTEM_CLOCK, Clock
from .files import read_json, write_json

if TYPE_CHECKING:
    from pathlib import Path

    from .pgbackrest import Backup
    from .postgres_host import DatabasePlace


def closed_unsound(place: DatabasePlace, volume: str) -> dict[str, Any] | None:
    """Return the record of the restore that brought the volume in use and was closed as not sound, or None."""
    return next((record for _path, record in _unsettled(place) if record.get("new_volume") == volume), None)


def note_proof(place: DatabasePlace, backup: Backup, clock: Clock = SYSTEM_CLOCK) -> bool:
    """Write down that a proven backup shows a database to be sound again; returns whether there was anything to settle.

    Only one on the restore's own timeline has read the pages that it left, and it has taken none itself: whatever the clocks say.
    """
    settled = [(path, record) for path, record in _unsettled(place) if record.get("timeline") == backup.timeline]
    for path, record in settled:
        write_json(path, {**record, "found_sound": {"backup": backup.label, "at": clock.rfc3339()}})
    return bool(settled)


def _unsettled(place: DatabasePlace) -> list[tuple[Path, dict[str, Any]]]:
    found = []
    for path in sorted(place.restores_dir.glob("*.json")):
        record = read_json(path)
        if isinstance(record, dict) and record.get("unsound") and not record.get("found_sound"):
            found.append((path, record))
    return found
