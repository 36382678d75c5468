# SPDX-License-Identifier: GPL-3.0-or-later
"""Prove a backup: restore it in scratch, replay the archive, check it, and write the verdict onto it.

Nothing of the service is touched: a volume of its own, a container without a network, a socket of its own.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import pgbackrest, postgres_integrity, postgres_unsound
from .clock import SYSTEM_CLOCK, Clock
from .errors import WhatsAgentError
from .postgres_backrest import Backrest
from .postgres_host import DATA_DIR, GID, UID, database, one_shot_options, repository_mounts
from .postgres_plan import RESERVE_BYTES, disk_is_full, plan_restore, volumes_root
from .postgres_standby import follow_replay
from .postgres_wal import reached

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from .docker_host import DockerHost
    from .journal import Progress
    from .lock import Heart, Idle
    from .pgbackrest import Backup

SCRATCH_LABEL = "whats_agent.scratch"
OPEN_DEADLINE_S = 900.0
_MEMORY = "1g"
LOOK_AT_STRUCTURE = "playbooks/recover_db.yml -e database_check_structure=true"
DAMAGE = frozenset(["pages", "structure"])  # the checks that tell of a backup itself
IDLE_WAL_BYTES = 512  # a page header and a snapshot of running transactions: no commit


@dataclass(frozen=True)
class Proof:
    """What a proof came to. Seconds each; `rpo_s` is the age of the last commit that came back (None: no commit seen)."""

    backup: str
    ok: bool
    checks: list[dict[str, Any]]
    restore_s: float
    open_s: float
    check_s: float
    rto_s: float
    rpo_s: float | None

    def as_dict(self) -> dict[str, Any]:
        """Return JSON-able data."""
        return asdict(self)


def unarchived_seconds(backrest: Backrest, clock: Clock = SYSTEM_CLOCK) -> float:
    """Return for how long the running server has been writing WAL that the repository lacks: what would be lost now.

    That is, with its volume gone. 0 where nothing was written since the newest archived segment.
    """
    newest, archived_at = max(backrest.archived(), default=None), backrest.archived_at()
    with database(backrest.place, "postgres") as admin:
        (position,) = admin.execute("select pg_current_wal_insert_lsn()::text").fetchone()
    if newest is None or archived_at is None:
        raise WhatsAgentError("the repository holds no WAL: RPO is unbounded")
    behind = pgbackrest.lsn_value(position) - pgbackrest.segment_start(newest) - pgbackrest.WAL_SEGMENT_BYTES
    return 0.0 if behind <= IDLE_WAL_BYTES else round(clock.wall() - archived_at, 1)


def rehearsal(proof: Proof, rpo_s: float, *, rto_target_s: float, rpo_target_s: float) -> dict[str, Any]:
    """Judge a proof as the rehearsal of a recovery: measured against the targets. Pure."""
    missed = []
    if not proof.ok:
        missed.append("the restored database is not sound")
    if proof.rto_s > rto_target_s:
        missed.append(f"RTO {proof.rto_s:g} s is over its target of {rto_target_s:g} s")
    if rpo_s > rpo_target_s:
        missed.append(f"RPO {rpo_s:g} s is over its target of {rpo_target_s:g} s")
    return {
        "backup": proof.backup,
        "rto_s": proof.rto_s,
        "rto_target_s": rto_target_s,
        "rpo_s": rpo_s,
        "rpo_target_s": rpo_target_s,
        "missed": missed,
    }


class ScratchServer:
    """A server on a restored volume that nobody but the one who holds its socket can reach."""

    def __init__(self, docker: DockerHost, container: str, socket_dir: Path) -> None:
        """Name the running container and its socket on the host."""
        self.docker = docker
        self.container = container
        self.socket_dir = socket_dir

    def connect(self, dbname: str) -> Any:
        """Connect as the superuser."""
        import psycopg

        return psycopg.connect(
            host=str(self.socket_dir), user="postgres", dbname=dbname, connect_timeout=3, autocommit=True
        )

    def wait_open(self, heart: Heart | Idle, clock: Clock) -> None:
        """Wait until it takes connections; one that ended is an error with its last words."""
        import psycopg

        deadline = clock.boottime() + OPEN_DEADLINE_S
        while True:
            heart.check()
            try:
                self.connect("postgres").close()
            except psycopg.OperationalError as error:
                state = self.docker.inspect_if_present(self.container)
                if state is None or state.status in ("exited", "dead"):
                    words = self.docker.logs(self.container, tail=8).strip() if state else "no container"
                    raise WhatsAgentError(
                        f"PostgreSQL does not start on what was restored: {words.splitlines()[-1]}", log=words
                    ) from error
                if clock.boottime() > deadline:
                    raise WhatsAgentError(f"the restored server did not open within {OPEN_DEADLINE_S:.0f} s") from error
                clock.sleep(0.1)
            else:
                return


def scratch_volumes(docker: DockerHost) -> list[str]:
    """Return the volumes that proofs have made and not removed."""
    return [volume.name for volume in docker.volumes(SCRATCH_LABEL)]


def sweep(docker: DockerHost) -> None:
    """Remove what a killed proof left: its containers, then its volumes."""
    for container in docker.labelled(SCRATCH_LABEL):
        docker.remove_container(container)
    for volume in scratch_volumes(docker):
        docker.remove_volume(volume)


@contextlib.contextmanager
def scratch_server(backrest: Backrest, volume: str, scratch_id: str) -> Iterator[ScratchServer]:
    """Start a server on a volume, without network and without archiving; remove it afterwards."""
    docker = backrest.docker
    socket_dir = backrest.place.state_dir / "scratch" / scratch_id
    socket_dir.mkdir(parents=True, mode=0o700)
    os.chown(socket_dir, UID, GID)
    mounts = {
        **repository_mounts(backrest.service),
        volume: {"bind": DATA_DIR, "mode": "rw"},
        str(socket_dir): {"bind": "/var/run/postgresql", "mode": "rw"},
    }
    configuration = backrest.service.binds.get("/etc/whats_agent/postgres")
    if configuration is None:
        raise WhatsAgentError("the compose file mounts no PostgreSQL configuration: run playbooks/deploy.yml")
    mounts[configuration[0]] = {"bind": "/etc/whats_agent/postgres", "mode": "ro"}
    container = docker.create_container(
        backrest.service.image,
        ["serve", "-c", "listen_addresses="],
        environment={"WHATS_POSTGRES_ARCHIVE": "off"},
        volumes=mounts,
        network="bridge" if backrest.off_host_needed() else "none",
        labels={SCRATCH_LABEL: scratch_id},
        options={"init": True, "mem_limit": _MEMORY, "shm_size": "128m", **one_shot_options()},
    )
    try:
        docker.start(container)
        yield ScratchServer(docker, container, socket_dir)
    finally:
        docker.remove_container(container)
        shutil.rmtree(socket_dir, ignore_errors=True)


def replayed(
    server: ScratchServer, newest: str | None, stall_s: float, progress: Progress, *, heart: Heart | Idle, clock: Clock
) -> tuple[int, float | None]:
    """Follow replay to the end of the archive; return the position and the age of the last commit that came back."""
    with server.connect("postgres") as admin:
        position = follow_replay(admin, None, newest, stall_s=stall_s, progress=progress, heart=heart, clock=clock)
        (age,) = admin.execute("select extract(epoch from now() - pg_last_xact_replay_timestamp())::float8").fetchone()
    return position, age


def prove(
    backrest: Backrest,
    backup: Backup,
    *,
    heart: Heart | Idle,
    progress: Callable[[str], Progress],
    dbname: str,
    clock: Clock = SYSTEM_CLOCK,
) -> Proof:
    """Restore a backup in scratch and judge it. Raises only where no verdict is possible; the verdict is annotated."""
    docker = backrest.docker
    sweep(docker)
    # The plan's own refusals fit here as well: passphrase, repository, space.
    plan_restore(backrest, "", reserve=RESERVE_BYTES, clock=clock)
    scratch_id = f"{clock.stamp()}-{secrets.token_hex(2)}"
    volume = f"whats_agent_scratch_{scratch_id}"
    reporter = progress("prove")
    docker.create_volume(volume, {SCRATCH_LABEL: scratch_id})
    began = clock.boottime()
    try:
        backrest.restore(
            backup.label,
            backup.repo,
            volume,
            delta=False,
            restore_id=scratch_id,
            on_percent=lambda percent: reporter.update(int(backup.size * percent / 100), backup.size),
            check=heart.check,
        )
        restored = clock.boottime()
        with scratch_server(backrest, volume, scratch_id) as server:
            server.wait_open(heart, clock)
            newest = max(backrest.archived(), default=None)
            position, age = replayed(server, newest, backrest.stall_s(), progress("replay"), heart=heart, clock=clock)
            opened = clock.boottime()
            checks, _none = postgres_integrity.run_checks(server.connect, dbname)
            checks.append(advised(postgres_integrity.check_structure(docker, server.container)))
            whole = reached(position, None, newest)
            checks.append(
                postgres_integrity.Check("replay", whole, f"to {pgbackrest.lsn_text(position)}, archive to {newest}")
            )
            ended = clock.boottime()
    except WhatsAgentError as error:
        if error.details.get("rc") is None and "log" not in error.details:
            raise
        full = disk_is_full(volumes_root(backrest))
        if full is not None:
            raise full from error  # the backup is not to blame
        _annotate(backrest, backup, pgbackrest.DISPROVEN, clock)
        raise WhatsAgentError(f"backup {backup.label} is not restorable: {error.message}", **error.details) from error
    finally:
        sweep(docker)
    key = verdict(checks)
    if key is not None:
        _annotate(backrest, backup, key, clock)
    if key == pgbackrest.PROVEN:
        postgres_unsound.note_proof(backrest.place, backup, clock)
    return Proof(
        backup=backup.label,
        ok=key == pgbackrest.PROVEN,
        checks=[check.as_dict() for check in checks],
        restore_s=round(restored - began, 2),
        open_s=round(opened - restored, 2),
        check_s=round(ended - opened, 2),
        rto_s=round(ended - began, 2),
        rpo_s=None if age is None else round(age, 1),
    )


def advised(check: postgres_integrity.Check) -> postgres_integrity.Check:
    """Add to a structure that does not hold what to do: the database that was backed up is wrong likewise. Pure."""
    if check.ok:
        return check
    return replace(check, detail=f"{check.detail}; to name and mend it: {LOOK_AT_STRUCTURE}")


def verdict(checks: list[postgres_integrity.Check]) -> str | None:
    """Return what to write onto a backup: proven, disproven, or neither. Pure.

    Damage condemns it. A broken promise of the content, or WAL missing after it, does not: the database was like that, or the
    archive is at fault, and the backup may be the only way back to before.
    """
    broken = {check.name for check in checks if not check.ok}
    if not broken:
        return pgbackrest.PROVEN
    return pgbackrest.DISPROVEN if broken & DAMAGE else None


def _annotate(backrest: Backrest, backup: Backup, key: str, clock: Clock) -> None:
    backrest.annotate(backup.label, backup.repo, key, clock.rfc3339())
