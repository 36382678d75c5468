# SPDX-License-Identifier: GPL-3.0-or-later
"""Decide how a database would be restored, and whether it can be, before anything is stopped."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import pgbackrest
from .clock import SYSTEM_CLOCK, Clock
from .errors import WhatsAgentError
from .postgres_host import free_bytes
from .postgres_wal import Tail, unarchived

if TYPE_CHECKING:
    from .pgbackrest import Backup, Repository
    from .postgres_backrest import Backrest

RESERVE_BYTES = 512 * 1024 * 1024  # for WAL that replay brings in, and for the server to run on
GROWTH = 1.05
MESSAGE_LOG_VOLUME = "whats_agent_message_log"


@dataclass(frozen=True)
class RestorePlan:
    """What a restore would use and need. Sizes in bytes, ages in seconds.

    `holes` are archived segments missing after the backup; `tail` is what the old volume still holds unarchived.
    """

    backup: str
    proven: bool
    backup_age: float
    size: int
    needed: int
    free: int
    newest_wal: str
    holes: tuple[str, ...]
    old_volume: str
    old_readable: bool
    tail_segments: int
    off_host: bool
    message_log: bool
    target_time: str | None = None
    rejected: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Return JSON-able data."""
        return asdict(self)

    @property
    def loses(self) -> dict[str, str]:
        """Say what the restore costs, English and Portuguese."""
        age = _age(self.backup_age)
        proof = ("proven", "comprovado") if self.proven else ("not yet proven", "ainda não comprovado")
        if self.target_time is not None:
            wal = (f"changes after {self.target_time} are undone", f"mudanças após {self.target_time} são desfeitas")
        elif self.holes:
            wal = (
                f"WAL segment {self.holes[0]} is missing, replay ends there",
                f"falta o segmento de WAL {self.holes[0]}, a reaplicação termina nele",
            )
        elif self.old_readable:
            wal = (
                f"every commit comes back: {self.tail_segments} unarchived WAL segments are read from the old volume",
                f"todos os commits voltam: {self.tail_segments} segmentos de WAL são lidos do volume antigo",
            )
        else:
            wal = (
                f"WAL is archived up to {self.newest_wal}",
                f"o WAL está arquivado até {self.newest_wal}",
            )
        if self.message_log:
            log = (
                "0 acknowledged messages lost, they are replayed from the message log",
                "0 mensagens confirmadas perdidas, elas são reaplicadas do log de mensagens",
            )
        else:
            log = (
                "the message log's volume is gone: messages after that are lost",
                "o volume do log de mensagens sumiu: mensagens depois disso se perdem",
            )
        return {
            "en": f"backup {self.backup} ({proof[0]}), {age} old; {wal[0]}; {log[0]}",
            "pt": f"backup {self.backup} ({proof[1]}), de {age} atrás; {wal[1]}; {log[1]}",
        }


def _age(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 2 * 3600:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.0f} h"


def parse_target_time(text: str) -> datetime:
    """Read a point in time. Without an offset it would silently mean the container's zone, so that is refused."""
    try:
        moment = datetime.fromisoformat(text.strip().replace("Z", "+00:00"))
    except ValueError as error:
        raise WhatsAgentError(f"{text!r} is no time; write it as 2026-01-31T12:00:00-03:00") from error
    if moment.tzinfo is None:
        raise WhatsAgentError(f"{text!r} names no offset from UTC; write it as 2026-01-31T12:00:00-03:00 or with a Z")
    return moment


def postgres_time(moment: datetime) -> str:
    """Return a time as PostgreSQL's recovery target reads it, offset included."""
    return moment.isoformat(sep=" ", timespec="microseconds")


def needed_bytes(backup: Backup, tail: Tail, reserve: int = RESERVE_BYTES) -> int:
    """Return the free bytes a restore needs: the data, the carried WAL, and room for replay."""
    return int(backup.size * GROWTH) + tail.size + reserve


def choose(repository: Repository, segments: list[str], rejected: tuple[str, ...], before: float | None) -> Backup:
    """Choose the backup: the best one whose WAL is whole up to the end, else the best one there is.

    A missing segment between an old backup and a newer one costs nothing when the newer one is taken, so a gapless
    unproven backup goes before a proven one with a hole: what is restored is verified before anybody relies on it.
    """
    best = pgbackrest.choose_backup(repository, before=before)
    usable = [b for b in pgbackrest.candidates(repository, before=before) if b.label not in rejected]
    if not usable:
        raise WhatsAgentError(
            f"no backup is left to try: {', '.join(rejected)} could not be restored soundly (the best was {best.label})"
        )
    return next((b for b in usable if not holes_after(b, segments)), usable[0])


def holes_after(backup: Backup, segments: list[str]) -> list[str]:
    """Return the archived segments missing between a backup's start and the newest, on its timeline and later ones."""
    if not backup.wal_start:
        return []
    later = [s for s in segments if int(s[:8], 16) >= backup.timeline and s[8:] >= backup.wal_start[8:]]
    if backup.wal_start not in segments:
        return [backup.wal_start]
    return pgbackrest.missing_segments(later, backup.wal_start)


def plan_restore(
    backrest: Backrest,
    env_volume: str,
    *,
    target_time: str | None = None,
    rejected: tuple[str, ...] = (),
    reserve: int = RESERVE_BYTES,
    already_there: int = 0,
    clock: Clock = SYSTEM_CLOCK,
) -> RestorePlan:
    """Look at the repository, the old volume and the disk; return the plan or refuse with the reason. Stops nothing.

    `already_there` are bytes that an interrupted restore has already written.
    """
    repository = backrest.info()
    if repository.problem:
        raise WhatsAgentError(repository.problem, status=repository.status)
    before = None
    target = None
    if target_time is not None:
        moment = parse_target_time(target_time)
        if moment > clock.utc() + timedelta(seconds=1):
            raise WhatsAgentError(f"{target_time} lies in the future; the latest is now, {clock.rfc3339()}")
        before = moment.timestamp()
        target = postgres_time(moment)
    segments = backrest.archived()
    backup = choose(repository, segments, rejected, before)
    old = backrest.docker.volume(env_volume)
    old_dir = Path(old.mountpoint) if old is not None else None
    readable = old_dir is not None and (old_dir / "pg_wal").is_dir()
    tail = unarchived(old_dir) if old_dir is not None and readable else Tail((), ())
    root = Path(str(backrest.docker.client.info()["DockerRootDir"]))
    free = free_bytes(root)
    needed = max(0, needed_bytes(backup, tail, reserve) - already_there)
    if free < needed:
        raise WhatsAgentError(
            f"the restore needs {_mb(needed)} MB under {root} and {_mb(free)} MB are free: "
            "free space first (playbooks/reclaim_disk.yml)",
            needed=needed,
            free=free,
        )
    return RestorePlan(
        backup=backup.label,
        proven=backup.proven,
        backup_age=backup.age(clock.wall()),
        size=backup.size,
        needed=needed,
        free=free,
        newest_wal=max(segments, default=""),
        holes=tuple(holes_after(backup, segments)),
        old_volume=env_volume,
        old_readable=readable,
        tail_segments=len(tail.segments),
        off_host=repository.off_host,
        message_log=backrest.docker.volume(MESSAGE_LOG_VOLUME) is not None,
        target_time=target,
        rejected=rejected,
    )


def _mb(size: int) -> int:
    return size // (1024 * 1024)
