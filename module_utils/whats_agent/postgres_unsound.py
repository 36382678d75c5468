# SPDX-License-Identifier: GPL-3.0-or-later
"""A restore that was closed because what it restored serves and is not sound: told until a later proof finds it sound.

Checking all of it takes too long for each look, so what the restore found stays written in its record (`restore.json`). It counts
as long as the restore's volume is in use, and ends with another restore, or with a backup taken since and proven.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

from .clock import SYSTEM_CLOCK, Clock
from .files import read_json, write_json

if TYPE_CHECKING:
    from .pgbackrest import Backup
    from .postgres_host import DatabasePlace


def closed_unsound(place: DatabasePlace, volume: str) -> dict[str, Any] | None:
    """Return the record of the restore that brought the volume in use and was closed as not sound, or None."""
    state = read_json(place.restore_path)
    if not isinstance(state, dict) or not state.get("finished_at") or not state.get("unsound"):
        return None
    return state if state.get("new_volume") == volume and not state.get("found_sound") else None


def note_proof(place: DatabasePlace, backup: Backup, clock: Clock = SYSTEM_CLOCK) -> bool:
    """Write down that a proven backup shows the database to be sound again; returns whether there was anything to settle.

    Only one that was begun after the restore had ended has read the pages that it left.
    """
    state = read_json(place.restore_path)
    found = closed_unsound(place, state["new_volume"]) if isinstance(state, dict) and state.get("new_volume") else None
    if found is None or backup.start < datetime.fromisoformat(found["finished_at"]).timestamp():
        return False
    write_json(place.restore_path, {**found, "found_sound": {"backup": backup.label, "at": clock.rfc3339()}})
    return True
