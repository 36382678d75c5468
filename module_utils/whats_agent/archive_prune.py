# SPDX-License-Identifier: GPL-3.0-or-later
"""Let the agent drop from its message log what is old and kept elsewhere, never more than that."""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import archive_log
from .pgbackrest import PROJECTED

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .archive_place import ArchivePlace
    from .pgbackrest import Backup, Repository
    from .postgres_backrest import Backrest


def limit(archived: int, repository: Repository) -> int:
    """Return up to which id the log may be pruned: archived proven, and in each repository's newest proven backup. Pure.

    A database restored from any of these lacks nothing before it; what comes after is replayed from the log.
    """
    held = [_projected(repository.of(number)) for number in {backup.repo for backup in repository.backups}]
    return min(archived, *held) if held else 0


def _projected(backups: Sequence[Backup]) -> int:
    """Return up to which id the newest proven one of a repository's backups holds everything; 0 where nobody knows."""
    proven = [backup for backup in backups if backup.proven]
    projected = proven[-1].annotations.get(PROJECTED, "") if proven else ""
    return int(projected) if projected.isdecimal() else 0


def prune(place: ArchivePlace, backrest: Backrest, archived: int) -> list[str]:
    """Prune up to the limit; the agent itself keeps what is younger than 8 days or not in PostgreSQL. Say what was done.

    Without a worker (an incident is on) nothing is pruned: the next archive will do it.
    """
    up_to = limit(archived, backrest.info())
    worker = backrest.docker.container(place.project, "worker")
    if up_to == 0 or worker is None or not worker.running:
        return []
    removed = archive_log.prune(place, backrest.docker, up_to)
    return [f"dropped {removed} old records from the message log"] if removed else []
