# SPDX-License-Identifier: GPL-3.0-or-later
"""Decide how a database would be restored, and whether it can be, before anything is stopped."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from . import message_log_gap, postgres_receiver, postgres_repository
from .clock import SYSTEM_CLOCK, Clock
from .errors import WhatsAgentError
from .files import read_json
from .postgres_choice import choose, choose_for_time, holes_after, refuse_loss
from .postgres_host import DatabasePlace, free_bytes
from .postgres_target import check_target, postgres_time, time_window
from .postgres_unfinished import has_come_to
from .postgres_wal import Tail, segments_in, unarchived

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .pgbackrest import Backup
    from .postgres_backrest import Backrest

RESERVE_BYTES = 512 * 1024 * 1024  # for WAL that replay brings in, and for the server to run on
GROWTH = 1.05
PLAN_STANDS_S = 30.0  # as long as a lease without a heartbeat: until then no other run has been at work
FULL_BYTES = 32 * 1024 * 1024  # two WAL segments: with less, nothing that fails is to be taken at its word
MESSAGE_LOG_VOLUME = "whats_agent_message_log"


@dataclass(frozen=True)
class RestorePlan:
    """What a restore would use and need. Sizes in bytes, ages in seconds.

    `holes` are segments after the backup, whose first is `wal_start`, that neither the archive nor the old volume nor a WAL
    receiver has. `tail_segments` and `received_segments` are what the volume and the receiver have and the archive lacks.
    `log_gap` is how many entries of the message log may be gone from it that the restored database lacks; None: not known.
    `planned_at` is the boot clock's reading, in seconds.
    """

    backup: str
    repo: int
    proven: bool
    backup_age: float
    size: int
    needed: int
    free: int
    disk: str
    newest_wal: str
    wal_start: str
    holes: tuple[str, ...]
    old_volume: str
    old_readable: bool
    tail_segments: int
    off_host: bool
    message_log: bool
    source_volume: str | None = None
    target_time: str | None = None
    rejected: tuple[str, ...] = ()
    planned_at: float = 0.0
    log_gap: int | None = 0
    received_segments: int = 0

    def as_dict(self) -> dict[str, Any]:
        """Return JSON-able data."""
        return asdict(self)

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> Self:
        """Return the plan that `as_dict` made these data of; refuse what is no plan."""
        names = {field.name for field in fields(cls)}
        try:
            lists = {name: tuple(data[name]) for name in ("holes", "rejected")}
            return cls(**{name: value for name, value in data.items() if name in names} | lists)
        except (KeyError, TypeError) as error:
            raise WhatsAgentError(f"this is no plan of a restore: {error}; run without it") from error

    def stands(self, volume: str, target_time: str | None, clock: Clock = SYSTEM_CLOCK) -> bool:
        """Tell whether it may be acted on: it was made for this volume and this time, a moment ago."""
        age = clock.boottime() - self.planned_at
        return self.old_volume == volume and self.target_time == target_time and 0 <= age <= PLAN_STANDS_S

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
                f"WAL segment {self.holes[0]} is missing: replay ends there, and what was committed after it is lost",
                f"falta o segmento de WAL {self.holes[0]}: a reaplicação termina nele, e o que veio depois se perde",
            )
        elif self.old_readable:
            wal = (
                f"every commit comes back: {self.tail_segments} WAL segments that the archive lacks are read from the old volume",
                f"todos os commits voltam: {self.tail_segments} segmentos de WAL são lidos do volume antigo",
            )
        elif self.received_segments:
            count = self.received_segments
            wal = (
                f"WAL is archived up to {self.newest_wal}, and the WAL receiver has {count} segments that it lacks",
                f"o WAL está arquivado até {self.newest_wal}, e o receptor de WAL tem {count} segmentos que faltam ali",
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
        gap = message_log_gap.told(self.log_gap)
        if self.message_log and gap is not None:
            return (
                f"acknowledged messages are replayed as far as the message log reaches: {gap['en']}",
                f"mensagens confirmadas são reaplicadas até onde o log de mensagens alcança: {gap['pt']}",
            )
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


def needed_bytes(backup: Backup, tail: Tail, reserve: int = RESERVE_BYTES) -> int:
    """Return the free bytes a restore needs: the data, the carried WAL, and room for replay."""
    return int(backup.size * GROWTH) + tail.size + reserve


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
    try:
        repository, segments = backrest.contents()
    except WhatsAgentError:
        # A full disk keeps even the container from starting that would look; what the engine says of that helps nobody.
        refuse_full_disk(volumes_root(backrest))
        root = postgres_repository.repository_of(backrest.service.binds)
        if root is not None:
            postgres_repository.refuse_unopened(backrest.place, root)
        raise
    old = backrest.docker.volume(env_volume)
    old_dir = Path(old.mountpoint) if old is not None else None
    if old_dir is not None and not (old_dir / "pg_wal").is_dir():
        old_dir = None
    if old_dir is not None:
        refuse_other_users(backrest, env_volume)
    moment = None
    if target_time is not None:
        moment = check_target(
            target_time, time_window(backrest, repository, env_volume, old_dir, alive=alive, clock=clock)
        )
    held = segments_in(old_dir) if old_dir is not None else []
    folder = postgres_receiver.receiver_dir(backrest.place, backrest.docker)
    if folder is not None and moment is None:  # as the restore itself does: a wanted time needs none of it
        held += postgres_receiver.received(folder, segments).segments
    everything = sorted({*segments, *held})
    if moment is None:
        backup = choose(repository, everything, rejected)
        refuse_loss(holes_after(backup, everything), alive=alive)
    else:
        backup = choose_for_time(repository, everything, rejected, moment=moment, archive_times=backrest.archive_times)
    holes = tuple(holes_after(backup, everything))
    tail = unarchived(old_dir, frozenset(segments), backup.wal_start) if old_dir is not None else Tail((), ())
    received = (
        postgres_receiver.received(folder, segments, backup.wal_start).segments if folder and moment is None else []
    )
    carried = Tail(tuple(sorted({*tail.segments, *received})), tail.histories)
    needed = max(0, needed_bytes(backup, carried, reserve) - already_there)
    root = volumes_root(backrest)
    free = require_space(root, needed)
    return RestorePlan(
        backup=backup.label,
        repo=backup.repo,
        proven=backup.proven,
        backup_age=max(0.0, backup.age(clock.wall())),
        size=backup.size,
        needed=needed,
        free=free,
        disk=str(root),
        newest_wal=max(segments, default=""),
        wal_start=backup.wal_start,
        holes=holes,
        old_volume=env_volume,
        old_readable=old_dir is not None,
        tail_segments=len(tail.segments),
        off_host=repository.off_host,
        message_log=backrest.docker.volume(MESSAGE_LOG_VOLUME) is not None,
        target_time=postgres_time(moment) if moment else None,
        rejected=rejected,
        planned_at=clock.boottime(),
        received_segments=len(received),
        log_gap=expected_gap(backrest, backup, holes, moment.timestamp() if moment else None, clock),
    )


def expected_gap(
    backrest: Backrest, backup: Backup, holes: tuple[str, ...], moment: float | None, clock: Clock
) -> int | None:
    """Return how many entries the message log may lack for what a restore leads to. The log is asked only where it may lack any.

    The backup's own position is the least that the restored database holds: it is moved on by the WAL that is replayed.
    """
    if back_to(backup, holes, moment) > clock.wall() - message_log_gap.MAY_BE_PRUNED_S:
        return 0
    first = message_log_gap.first_held(backrest.docker, backrest.place.project)
    return message_log_gap.between(message_log_gap.projected(backup), first)


def back_to(backup: Backup, holes: tuple[str, ...], moment: float | None) -> float:
    """Return the earliest time that a restore may end at, in seconds since the epoch: all WAL being there, that is now. Pure."""
    if moment is not None:
        return moment
    return float(backup.stop) if holes else math.inf


def volumes_root(backrest: Backrest) -> Path:
    """Return where volumes lie."""
    return Path(backrest.docker.root())


def require_space(root: Path, needed: int) -> int:
    """Return the free bytes where volumes lie, or refuse when they are too few."""
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


def refuse_full_disk(root: Path) -> None:
    """Refuse a disk so full that it cannot even be looked how much a restore needs."""
    free = free_bytes(root)
    if free < FULL_BYTES:
        raise WhatsAgentError(
            f"the disk under {root} is full, too full to look at the backups: {_mb(free)} MB are free: "
            "free space first (playbooks/reclaim_disk.yml)",
            pt=f"o disco em {root} está cheio, cheio demais para consultar os backups: há {_mb(free)} MB livres: "
            "libere espaço antes (playbooks/reclaim_disk.yml)",
            free=free,
        )


def disk_is_full(root: Path) -> WhatsAgentError | None:
    """Return what to say when something failed while the disk of the volumes is full: the tools name other reasons for it."""
    free = free_bytes(root)
    if free >= FULL_BYTES:
        return None
    return WhatsAgentError(
        f"the disk under {root} ran full while the database was being restored: {_mb(free)} MB are free. The old volume is "
        "untouched; free space (playbooks/reclaim_disk.yml) and run this again",
        pt=f"o disco em {root} encheu durante a restauração: há {_mb(free)} MB livres. O volume antigo está intacto; "
        "libere espaço (playbooks/reclaim_disk.yml) e execute de novo",
        free=free,
    )


def refuse_other_users(backrest: Backrest, volume: str) -> None:
    """Refuse a volume that another container than the stack's own may be writing to: what it writes would be left behind."""
    own = backrest.docker.container(backrest.place.project, backrest.place.service)
    found = backrest.docker.writers(volume)
    names = [name for identity, name in found.items() if own is None or identity != own.id]
    if names:
        raise WhatsAgentError(
            f"the volume {volume} is in use by {', '.join(names)} as well, which may be writing to it: "
            f"stop that first (docker stop {names[0]})",
            pt=f"o volume {volume} também está em uso por {', '.join(names)}, que pode estar escrevendo nele: "
            f"pare isso antes (docker stop {names[0]})",
        )


# Going back behind a restore -----------------------------------------------------------------------------------------


def find_restore(place: DatabasePlace, wanted: str) -> dict[str, Any]:
    """Return the record of a finished restore, or of one whose database serves, by its id, its run, or `last`."""
    records = [read_json(path) for path in sorted(place.restores_dir.glob("*.json"))]
    latest = read_json(place.restore_path)
    if isinstance(latest, dict) and not latest.get("finished_at") and has_come_to(latest, "served"):
        records.append(latest)
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
    already_there: int = 0,
    clock: Clock = SYSTEM_CLOCK,
) -> RestorePlan:
    """Plan to go back to the volume that a restore replaced: a copy of it, on a timeline of its own.

    `already_there` are bytes that an interrupted one has already written.
    """
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
    refuse_other_users(backrest, source.name)
    size = sum(path.lstat().st_size for path in Path(source.mountpoint).rglob("*") if path.is_file())
    repository = backrest.info()
    if repository.problem:
        raise WhatsAgentError(repository.problem, status=repository.status, pt=repository.problem_pt)
    needed = max(0, int(size * GROWTH) + reserve - already_there)
    root = volumes_root(backrest)
    begun = datetime.fromisoformat(str(record["begun_at"]).replace("Z", "+00:00")).timestamp()
    return RestorePlan(
        backup=f"volume {source.name}",
        repo=0,
        proven=False,
        backup_age=max(0.0, clock.wall() - begun),
        size=size,
        needed=needed,
        free=require_space(root, needed),
        disk=str(root),
        newest_wal=repository.wal_max,
        wal_start="",
        holes=(),
        old_volume=env_volume,
        old_readable=True,
        tail_segments=0,
        off_host=repository.off_host,
        message_log=backrest.docker.volume(MESSAGE_LOG_VOLUME) is not None,
        source_volume=source.name,
        log_gap=0 if clock.wall() - begun < message_log_gap.MAY_BE_PRUNED_S else None,
    )


def _mb(size: int) -> int:
    return size // (1024 * 1024)
