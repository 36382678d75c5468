# SPDX-License-Identifier: GPL-3.0-or-later
"""Which backup a restore takes: how far the WAL after each leads, and what no backup leads to."""

from __future__ import annotations

import functools
import math
from typing import TYPE_CHECKING

from . import pgbackrest
from .errors import WhatsAgentError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from datetime import datetime

    from .pgbackrest import Backup, Repository


def choose(
    repository: Repository,
    segments: list[str],
    rejected: tuple[str, ...],
    before: float | None = None,
    leads_there: Callable[[Backup], bool] | None = None,
) -> Backup:
    """Choose the backup: the best one whose WAL is whole up to the end, else the best one there is.

    A missing segment between an old backup and a newer one costs nothing when the newer one is taken, so a gapless
    unproven backup goes before a proven one with a hole: what is restored is verified before anybody relies on it. Where
    another end is wanted than that of all WAL, `leads_there` tells whether a backup's WAL is whole as far as that.
    """
    best = pgbackrest.choose_backup(repository, before=before)
    usable = [b for b in pgbackrest.candidates(repository, before=before) if b.label not in rejected]
    if not usable:
        raise WhatsAgentError(
            f"no backup is left to try: {', '.join(rejected)} could not be restored soundly (the best was {best.label})",
            pt=f"não resta backup para tentar: {', '.join(rejected)} não puderam ser restaurados com integridade",
        )
    leads_there = leads_there or (lambda b: not holes_after(b, segments))
    return next((b for b in usable if leads_there(b)), usable[0])


def choose_for_time(
    repository: Repository,
    segments: list[str],
    rejected: tuple[str, ...],
    *,
    moment: datetime,
    archive_times: Callable[[], Mapping[str, float]],
) -> Backup:
    """Choose the backup for a point in time; one that lies behind a hole in the WAL of every backup is refused.

    `archive_times` tells when each segment was archived, in seconds since the epoch; it is asked only where there is a hole.
    """
    wanted = moment.timestamp()
    archive_times = functools.cache(archive_times)

    def ends(backup: Backup) -> float:
        return replay_ends(backup, segments, archive_times)

    backup = choose(repository, segments, rejected, wanted, lambda b: ends(b) > wanted)
    if ends(backup) > wanted:
        return backup
    usable = [b for b in pgbackrest.candidates(repository) if b.label not in rejected]
    furthest = max((b for b in usable if b.stop < wanted), key=ends)
    hole = holes_after(furthest, segments)[0]
    earliest = pgbackrest.earliest_time(repository) or 0.0
    valid = [pgbackrest.iso(earliest), pgbackrest.iso(max(earliest, ends(furthest)))]
    again = [
        pgbackrest.iso(b.stop + 1)
        for b in sorted(usable, key=lambda b: b.stop)
        if b.stop >= wanted and ends(b) > b.stop
    ][:1]
    raise WhatsAgentError(
        f"{moment.isoformat()} lies behind the WAL segment {hole}, which is missing in the repository and in the volume: replay "
        f"ends there; valid are {valid[0]} to shortly before {valid[1]}{''.join(f', and from {begins} on' for begins in again)}, "
        "or put the segment back from a copy of the repository",
        pt=f"{moment.isoformat()} é depois do segmento de WAL {hole}, que falta no repositório e no volume: a reaplicação termina "
        f"nele; valem {valid[0]} até pouco antes de {valid[1]}{''.join(f', e a partir de {begins}' for begins in again)}, "
        "ou recoloque o segmento a partir de uma cópia do repositório",
        range=valid,
        segment=hole,
    )


def holes_after(backup: Backup, segments: list[str]) -> list[str]:
    """Return the segments missing between a backup's start and the newest there is, on its timeline and later ones."""
    if not backup.wal_start:
        return []
    later = [s for s in segments if int(s[:8], 16) >= backup.timeline and s[8:] >= backup.wal_start[8:]]
    if backup.wal_start not in segments:
        return [backup.wal_start]
    return pgbackrest.missing_segments(later, backup.wal_start) or pgbackrest.missing_between(later, backup.wal_start)


def replay_ends(backup: Backup, segments: list[str], archive_times: Callable[[], Mapping[str, float]]) -> float:
    """Return up to when replay can come from a backup, at most too late: its first hole; in seconds since the epoch. Pure.

    No commit before a hole is younger than the file of the archive that lies before it. Whatever is not certain is given the
    benefit of the doubt, since replay itself tells in the end: what only the old volume holds, and a timeline that replay may have
    left before the hole.
    """
    holes = holes_after(backup, segments)
    if not holes:
        return math.inf
    timeline, position = holes[0][:8], holes[0][8:]
    if any(name[:8] > timeline and name[8:] <= position for name in segments):
        return math.inf
    before = [name for name in segments if backup.wal_start[8:] <= name[8:] < position]
    if not before:
        return 0.0  # the backup itself is not whole
    archived = archive_times().get(max(before, key=lambda name: (name[8:], name[:8])))
    return math.inf if archived is None else archived + 1  # they come in whole seconds


def refuse_loss(holes: Sequence[str], *, alive: bool) -> None:
    """Refuse to restore a database that still takes commits up to a hole in its WAL: it has what lies behind that."""
    if not holes or not alive:
        return
    hole = holes[0]
    raise WhatsAgentError(
        f"WAL segment {hole} is missing in the repository and in the volume: a restore would lose what was committed after it, "
        "and the database, damaged as it is, still has that. Nothing was touched; put the segment back from a copy of the "
        "repository, or save what matters (pg_dump of the sound tables) and go back on purpose (-e target_time=…)",
        pt=f"falta o segmento de WAL {hole} no repositório e no volume: uma restauração perderia o que veio depois dele, "
        "e o banco, mesmo corrompido, ainda o tem. Nada foi alterado; recoloque o segmento a partir de uma cópia do "
        "repositório, ou salve o que importa (pg_dump das tabelas íntegras) e volte de propósito (-e target_time=…)",
        segment=hole,
    )
