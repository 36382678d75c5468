# SPDX-License-Identifier: GPL-3.0-or-later
"""Decide how a database would be restored, and whether it can be, before anything is stopped."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import pgbackrest
from .clock import SYSTEM_CLOCK, Clock
from .errors import WhatsAgentError
from .files import read_json
from .postgres_host import DATA_DIR, DatabasePlace, free_bytes
from .postgres_wal import Tail, segments_in, unarchived

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
    repo: int
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
    source_volume: str | None = None
    target_time: str | None = None
    rejected: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Return JSON-able data."""
        return asdict(self)

    @property
    def loses(self) -> dict[str, str]:
        """Say what the restore costs, English and Portuguese."""
        age = _age(self.backup_age)
        if self.source_volume is not None:
            return {
                "en": f"the volume {self.source_volume} as it was {age} ago; what was written since is undone; "
                + self._message_log[0],
                "pt": f"o volume {self.source_volume} como era há {age}; o que foi escrito desde então é desfeito; "
                + self._message_log[1],
            }
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
        log = self._message_log
        return {
            "en": f"backup {self.backup} ({proof[0]}), {age} old; {wal[0]}; {log[0]}",
            "pt": f"backup {self.backup} ({proof[1]}), de {age} atrás; {wal[1]}; {log[1]}",
        }

    @property
    def _message_log(self) -> tuple[str, str]:
        if self.message_log:
            return (
                "0 acknowledged messages lost, they are replayed from the message log",
                "0 mensagens confirmadas perdidas, elas são reaplicadas do log de mensagens",
            )
        return (
            "the message log's volume is gone: messages after that are lost",
            "o volume do log de mensagens sumiu: mensagens depois disso se perdem",
        )


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
        raise WhatsAgentError(
            f"{text!r} is no time; write it as 2026-01-31T12:00:00-03:00",
            pt=f"{text!r} não é um momento; escreva como 2026-01-31T12:00:00-03:00",
        ) from error
    if moment.tzinfo is None:
        raise WhatsAgentError(
            f"{text!r} names no offset from UTC; write it as 2026-01-31T12:00:00-03:00 or with a Z",
            pt=f"{text!r} não diz o fuso; escreva como 2026-01-31T12:00:00-03:00 ou com Z",
        )
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
            f"no backup is left to try: {', '.join(rejected)} could not be restored soundly (the best was {best.label})",
            pt=f"não resta backup para tentar: {', '.join(rejected)} não puderam ser restaurados com integridade",
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
    alive: bool = False,
    rejected: tuple[str, ...] = (),
    reserve: int = RESERVE_BYTES,
    already_there: int = 0,
    clock: Clock = SYSTEM_CLOCK,
) -> RestorePlan:
    """Look at the repository, the old volume and the disk; return the plan or refuse with the reason. Stops nothing.

    `alive` tells whether the server takes commits, so that any time up to now can be reached. `already_there` are bytes
    that an interrupted restore has already written.
    """
    repository = backrest.info()
    if repository.problem:
        raise WhatsAgentError(repository.problem, status=repository.status, pt=repository.problem_pt)
    before = None
    target = None
    if target_time is not None:
        moment = parse_target_time(target_time)
        if moment > clock.utc() + timedelta(seconds=1):
            raise WhatsAgentError(
                f"{target_time} lies in the future; the latest is now, {clock.rfc3339()}",
                pt=f"{target_time} está no futuro; o mais tarde é agora, {clock.rfc3339()}",
            )
        before = moment.timestamp()
        target = postgres_time(moment)
    segments = backrest.archived()
    backup = choose(repository, segments, rejected, before)
    old = backrest.docker.volume(env_volume)
    old_dir = Path(old.mountpoint) if old is not None else None
    readable = old_dir is not None and (old_dir / "pg_wal").is_dir()
    tail = unarchived(old_dir) if old_dir is not None and readable else Tail((), ())
    if before is not None and not alive:
        refuse_after_last_commit(last_commit(backrest, env_volume, old_dir), before, backup)
    needed = max(0, needed_bytes(backup, tail, reserve) - already_there)
    free = require_space(backrest, needed)
    return RestorePlan(
        backup=backup.label,
        repo=backup.repo,
        proven=backup.proven,
        backup_age=max(0.0, backup.age(clock.wall())),
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


def require_space(backrest: Backrest, needed: int) -> int:
    """Return the free bytes where volumes lie, or refuse when they are too few."""
    root = Path(str(backrest.docker.client.info()["DockerRootDir"]))
    free = free_bytes(root)
    if free < needed:
        raise WhatsAgentError(
            f"the restore needs {_mb(needed)} MB under {root} and {_mb(free)} MB are free: "
            "free space first (playbooks/reclaim_disk.yml)",
            pt=f"a restauração precisa de {_mb(needed)} MB em {root} e há {_mb(free)} MB livres: "
            "libere espaço antes (playbooks/reclaim_disk.yml)",
            needed=needed,
            free=free,
        )
    return free


_COMMIT = re.compile(r"COMMIT (\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(?:\.\d+)?) UTC")
# Prints the last commit of the first of the named segments that has one. pg_waldump ends with an error where the records end.
_LAST_COMMIT = (
    'for name in "$@"; do '
    f'found=$(pg_waldump --rmgr=Transaction "{DATA_DIR}/pg_wal/$name" 2>/dev/null | grep -o "COMMIT .* UTC" | tail -n 1); '
    'if [ -n "$found" ]; then echo "$found"; exit 0; fi; done; exit 0'
)


def parse_last_commit(output: str) -> float | None:
    """Return the time (seconds since the epoch) of the last commit that `pg_waldump` lists, or None."""
    found = _COMMIT.findall(output)
    return datetime.fromisoformat(f"{found[-1]}+00:00").timestamp() if found else None


def last_commit(backrest: Backrest, volume: str, data_dir: Path | None) -> float | None:
    """Return the time of the last commit of a server that is gone, at most too late; None when nothing tells.

    The old volume's WAL tells it exactly. Without it the archive does not (it opens only over a restored volume), but no
    commit in it is younger than its newest file.
    """
    if data_dir is not None and (data_dir / "pg_wal").is_dir():
        names = sorted(segments_in(data_dir), reverse=True)
        found = parse_last_commit(backrest.look_into(volume, ["sh", "-c", _LAST_COMMIT, "sh", *names]).stdout)
        if found is not None:
            return found
    return backrest.archived_at()


def refuse_after_last_commit(moment: float | None, wanted: float, backup: Backup) -> None:
    """Refuse a wanted time that lies after the last commit: replay would never reach it, and the server would die."""
    latest = backup.stop if moment is None else moment
    if wanted > latest:
        raise WhatsAgentError(
            f"{pgbackrest.iso(wanted)} lies after the last commit that can be had; "
            f"valid are {pgbackrest.iso(backup.stop)} to {pgbackrest.iso(latest)}, or no time at all for everything",
            pt=f"{pgbackrest.iso(wanted)} é depois do último commit disponível; "
            f"valem {pgbackrest.iso(backup.stop)} a {pgbackrest.iso(latest)}, ou nenhum momento, para tudo",
            earliest=pgbackrest.iso(backup.stop),
            latest=pgbackrest.iso(latest),
        )


# Going back behind a restore -----------------------------------------------------------------------------------------


def history_dir(place: DatabasePlace) -> Path:
    """Return where the records of finished restores lie."""
    return place.state_dir / "restores"


def find_restore(place: DatabasePlace, wanted: str) -> dict[str, Any]:
    """Return the record of a finished restore, by its id, its run, or `last`."""
    folder = history_dir(place)
    records = [read_json(path) for path in sorted(folder.glob("*.json"))] if folder.is_dir() else []
    found = [r for r in records if isinstance(r, dict) and (wanted == "last" or wanted in (r.get("id"), r.get("run")))]
    if not found:
        known = ", ".join(str(r["run"] or r["id"]) for r in records[-5:] if isinstance(r, dict)) or "none"
        raise WhatsAgentError(
            f"there is no finished restore {wanted} to go back behind; the last ones: {known}",
            pt=f"não há restauração terminada {wanted} para desfazer; as últimas: {known}",
        )
    return found[-1]


def plan_undo(
    backrest: Backrest,
    env_volume: str,
    record: dict[str, Any],
    *,
    reserve: int = RESERVE_BYTES,
    clock: Clock = SYSTEM_CLOCK,
) -> RestorePlan:
    """Plan to go back to the volume that a restore replaced: a copy of it, on a timeline of its own."""
    if record["new_volume"] != env_volume:
        raise WhatsAgentError(
            f"the restore {record['id']} made {record['new_volume']}, and {env_volume} is in use: "
            "only the latest restore can be undone",
            pt=f"a restauração {record['id']} criou {record['new_volume']}, e {env_volume} está em uso: "
            "só a última restauração pode ser desfeita",
        )
    source = backrest.docker.volume(record["old_volume"])
    if source is None:
        raise WhatsAgentError(
            f"the volume {record['old_volume']} of before the restore is gone: nothing to go back to",
            pt=f"o volume {record['old_volume']} de antes da restauração sumiu: não há para onde voltar",
        )
    if not (Path(source.mountpoint) / "global" / "pg_control").is_file():
        raise WhatsAgentError(
            f"the volume {record['old_volume']} of before the restore holds no database that starts",
            pt=f"o volume {record['old_volume']} de antes da restauração não tem um banco que inicie",
        )
    size = sum(path.lstat().st_size for path in Path(source.mountpoint).rglob("*") if path.is_file())
    repository = backrest.info()
    if repository.problem:
        raise WhatsAgentError(repository.problem, status=repository.status, pt=repository.problem_pt)
    needed = int(size * GROWTH) + reserve
    begun = datetime.fromisoformat(str(record["begun_at"]).replace("Z", "+00:00")).timestamp()
    return RestorePlan(
        backup=f"volume {source.name}",
        repo=0,
        proven=False,
        backup_age=max(0.0, clock.wall() - begun),
        size=size,
        needed=needed,
        free=require_space(backrest, needed),
        newest_wal=repository.wal_max,
        holes=(),
        old_volume=env_volume,
        old_readable=True,
        tail_segments=0,
        off_host=repository.off_host,
        message_log=backrest.docker.volume(MESSAGE_LOG_VOLUME) is not None,
        source_volume=source.name,
    )


def _mb(size: int) -> int:
    return size // (1024 * 1024)
