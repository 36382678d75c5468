# SPDX-License-Identifier: GPL-3.0-or-later
"""What each step of a restore does. `postgres_restore` decides which come next and keeps the state.

A step may have been cut short at any point, so each begins by looking at what is there.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import env_file, message_log_gap, pgbackrest, postgres_integrity, postgres_receiver, postgres_wal
from .clock import SYSTEM_CLOCK, Clock
from .errors import WhatsAgentError
from .pgbackrest import timeline_of
from .postgres_backrest import RESTORE_LABEL, Backrest
from .postgres_backup import follow_backup, percent_of
from .postgres_host import DATA_DIR, GID, UID, VOLUME_LABEL, VOLUME_ROLE, DatabasePlace, connect, one_shot_options
from .postgres_plan import refuse_other_users
from .postgres_standby import UnsoundBackupError, UnsoundContentError, UnsoundServiceError, follow_replay, wait_open

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future

    from .journal import Progress
    from .lock import Heart, Idle

STOP_S = 60
STOP_DAMAGED_S = 10
SWITCH_DEADLINE_S = 20.0
QUICK_QUERY_S = 0.5  # what one check may take before promotion
CLONE_TIMEOUT_S = 6 * 3600.0
# Those that write to the database. The app keeps taking webhooks: it needs nothing but its disk.
WRITERS = ("worker",)
SOURCE_DIR = "/source"
# A clone of a volume that another one has replaced: it must replay its own WAL only and then take the next free timeline,
# since two volumes on one timeline would overwrite each other in the archive.
CLONE_SETTINGS = """
restore_command = 'pgbackrest --stanza=main archive-get %f "%p"'
recovery_target_timeline = 'current'
"""


class GivenUpError(WhatsAgentError):
    """The volume is not filled any further, since something else has ended the restore."""


@dataclass(frozen=True)
class OldWal:
    """What the volume that was in use has and the archive lacks: in `data_dir`, up to the LSN `end`, where that is known."""

    data_dir: Path
    tail: postgres_wal.Tail
    end: str | None


class RestoreSteps:
    """The steps, over one restore's state. `note(step, details)` writes to the journal."""

    note: Callable[[str, dict[str, Any]], None]

    def __init__(
        self,
        place: DatabasePlace,
        backrest: Backrest,
        *,
        heart: Heart | Idle,
        progress: Callable[[str], Progress],
        backup_after: bool = True,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        """`progress(step)` gives a reporter for a step. `backup_after` takes the new backup within the restore."""
        self.place = place
        self.backrest = backrest
        self.docker = backrest.docker
        self.compose = backrest.compose
        self.heart = heart
        self.progress = progress
        self.backup_after = backup_after
        self.clock = clock
        self.state: dict[str, Any] = {}
        # Under way beside the first steps: the writers' stop, and the new volume's filling, which `given_up` ends.
        self.stopping: Future[None] | None = None
        self.filling: Future[dict[str, Any]] | None = None
        self.given_up = threading.Event()
        self.old_wal: OldWal | None = None  # what was seen of it while the new volume was being filled

    def _save(self, **changes: Any) -> None:
        raise NotImplementedError

    # Stopping --------------------------------------------------------------------------------------------------------

    def _writers_stopped(self) -> None:
        """Wait until the writers have stopped; raise what kept them from it."""
        if self.stopping is not None:
            self.stopping.result()

    def _step_fenced(self) -> dict[str, Any]:
        """Stop the server; one that still answers is asked first to hand over its WAL."""
        import psycopg

        container = self.docker.container(self.place.project, self.place.service)
        handed = False
        if container is not None and container.running:
            self._writers_stopped()
            try:
                with connect(self.place, "postgres", statement_timeout_s=SWITCH_DEADLINE_S) as admin:
                    if not admin.execute("select pg_is_in_recovery()").fetchone()[0]:
                        # A commit of now: a wanted time before it can be reached, whatever else was written since.
                        admin.execute("select pg_current_xact_id()")
                        admin.execute("select pg_switch_wal()")
                        handed = True
            except psycopg.Error:
                handed = False  # too damaged to ask: its WAL is read from the volume
        self._save(was_alive=handed or self.state.get("was_alive", False))
        # One that answers gets the time to write its checkpoint; from one that does not, its WAL is all that counts.
        self._stop_database(STOP_S if handed else STOP_DAMAGED_S)
        if self.docker.container(self.place.project, postgres_receiver.SERVICE) is not None:
            self.compose.stop(postgres_receiver.SERVICE)
        if self.docker.volume(self.state["old_volume"]) is not None:
            refuse_other_users(self.backrest, self.state["old_volume"])
        return {"asked_for_its_wal": handed}

    def _stop_database(self, timeout_s: int = STOP_S) -> None:
        container = self.docker.container(self.place.project, self.place.service)
        if container is None:
            return
        if container.status == "paused":
            self.docker.unpause(container.id)
        if container.status not in ("exited", "created", "dead"):
            self.compose.stop(self.place.service, timeout_s=timeout_s)
        state = self.docker.container(self.place.project, self.place.service)
        if state is not None and state.status in ("running", "restarting", "paused"):
            raise WhatsAgentError(
                f"the postgres container cannot be stopped (it is {state.status})",
                pt=f"o contêiner postgres não pode ser parado (está {state.status})",
            )

    # Restoring -------------------------------------------------------------------------------------------------------

    def _step_restored(self) -> dict[str, Any]:
        """Have the new volume filled, which began beside the steps before, and meanwhile see what WAL has to be carried over."""
        if self.filling is None:
            return self._fill()
        self.old_wal = self._look_at_old()
        return self.filling.result()

    def _go_on(self) -> None:
        """Raise when the filling is not to go on."""
        self.heart.check()
        if self.given_up.is_set():
            raise GivenUpError("the restore has ended for another reason")

    def _fill(self) -> dict[str, Any]:
        """Fill the new volume: from the chosen backup, or from the volume to go back to. No server has to be stopped for it."""
        name = self.state["new_volume"]
        there = self.docker.volume(name) is not None
        if there and self.state.get("source_volume"):
            self.docker.remove_volume(name)  # half a copy; nothing was ever started on it
            there = False
        if not there:
            self.docker.create_volume(name, {VOLUME_LABEL: VOLUME_ROLE, RESTORE_LABEL: self.state["id"]})
        if self.state.get("source_volume"):
            return self._clone(self.state["source_volume"], name)
        progress = self.progress("restore")
        size = self.state["size"]
        try:
            self.backrest.restore(
                self.state["backup"],
                self.state["repo"],
                name,
                delta=there,
                restore_id=self.state["id"],
                target_time=self.state["target_time"],
                on_percent=lambda percent: progress.update(int(size * percent / 100), size),
                check=self._go_on,
            )
        except WhatsAgentError as error:
            if error.details.get("rc") in pgbackrest.EXITS_DAMAGED:
                raise UnsoundBackupError(error.message, **error.details) from error
            raise
        return {"backup": self.state["backup"], "bytes": size}

    def _clone(self, source: str, target: str) -> dict[str, Any]:
        """Copy a volume, which is only read, and make a standby of the copy."""
        result = self.docker.run_once(
            self.backrest.service.image,
            ["cp", "--archive", f"{SOURCE_DIR}/.", f"{DATA_DIR}/"],
            volumes={source: {"bind": SOURCE_DIR, "mode": "ro"}, target: {"bind": DATA_DIR, "mode": "rw"}},
            labels={RESTORE_LABEL: self.state["id"]},
            timeout=CLONE_TIMEOUT_S,
            on_tick=lambda _container: self._go_on(),
            options=one_shot_options(),
        )
        if result.exit_code != 0:
            lines = result.stderr.strip().splitlines() or ["no message"]
            raise WhatsAgentError(
                f"the volume {source} cannot be copied: {lines[-1]}",
                pt=f"o volume {source} não pode ser copiado: {lines[-1]}",
                rc=result.exit_code,
            )
        data = self._volume_dir()
        for name in ("postmaster.pid", "recovery.signal"):
            (data / name).unlink(missing_ok=True)
        (data / "standby.signal").touch(mode=0o600)
        with (data / "postgresql.auto.conf").open("a", encoding="utf-8") as stream:
            stream.write(CLONE_SETTINGS)
        return {"copied": source}

    def _look_at_old(self) -> OldWal | None:
        """See what WAL the archive lacks and the volume that was in use has, and where that ends; None if it cannot be read."""
        source = self.state.get("source_volume")
        old = self.docker.volume(source or self.state["old_volume"])
        if old is None or not (Path(old.mountpoint) / "pg_wal").is_dir():
            return None
        data_dir = Path(old.mountpoint)
        tail = postgres_wal.unarchived(data_dir, frozenset(self.backrest.archived()), self.state.get("wal_start", ""))
        return OldWal(data_dir, tail, None if self.state["target_time"] else self._old_end(old.name, data_dir, tail))

    def _step_carried(self) -> dict[str, Any]:
        """Carry over what WAL the archive lacks, from the old volume and from a WAL receiver, and note where it ends.

        Either may have what the other lacks: a volume that was half removed, or whose newest segments are gone, is still one.
        """
        found, self.old_wal = self.old_wal or self._look_at_old(), None
        if found is None:
            self._save(expected_end=None)
            details: dict[str, Any] = {"old_volume": "not readable"}
        else:
            copied = 0
            if not self.state.get("source_volume"):
                copied = postgres_wal.copy_tail(found.tail, found.data_dir, self._volume_dir(), (UID, GID))
            self._save(expected_end=found.end)
            details = {"segments": len(found.tail.segments), "copied": copied}
        return {**details, **self._carry_received(), "expected_end": self.state["expected_end"]}

    def _carry_received(self) -> dict[str, Any]:
        """Carry over what a WAL receiver has and the archive lacks, where there is one; the end is the later of both."""
        # What lies behind a wanted time, or belongs to the volume that is being gone back behind, is not wanted.
        if self.state["target_time"] or self.state.get("source_volume"):
            return {}
        folder = postgres_receiver.receiver_dir(self.place, self.docker)
        if folder is None:
            return {}
        found = postgres_receiver.received(folder, self.backrest.archived(), self.state.get("wal_start", ""))
        copied = postgres_receiver.copy(found, folder, self._volume_dir(), (UID, GID))
        start = postgres_wal.first_of_tail(tuple(found.segments))
        if start is not None:
            argv = postgres_wal.waldump_argv(f"{DATA_DIR}/pg_wal", *start)
            walked = self.backrest.look_into(self.state["new_volume"], argv, restore_id=self.state["id"])
            end = postgres_wal.walked_to(walked.exit_code, walked.stderr + walked.stdout, found.segments)
            self._save(expected_end=postgres_wal.higher(self.state["expected_end"], end))
        return {"received": len(found.segments), "received_copied": copied}

    def _volume_dir(self) -> Path:
        volume = self.docker.volume(self.state["new_volume"])
        if volume is None:
            raise WhatsAgentError(
                f"the new volume {self.state['new_volume']} is gone; run this again",
                pt=f"o volume novo {self.state['new_volume']} desapareceu; execute de novo",
            )
        return Path(volume.mountpoint)

    def _old_end(self, volume: str, data_dir: Path, tail: postgres_wal.Tail) -> str | None:
        """Return the LSN at which the old volume's WAL ends, or None where there is none to walk through."""
        argv = postgres_wal.walk_argv(DATA_DIR, tail.segments)
        walked = self.backrest.look_into(volume, argv, restore_id=self.state["id"])
        held = postgres_wal.segments_in(data_dir)
        return postgres_wal.walked_to(walked.exit_code, walked.stderr + walked.stdout, held)

    # Verifying -------------------------------------------------------------------------------------------------------

    def _step_started(self) -> dict[str, Any]:
        """Start the service's own container on the new volume: a standby, which takes no writes, archives nothing."""
        details: dict[str, Any] = {}
        container = self.docker.container(self.place.project, self.place.service)
        if container is not None and container.running and container.mounts.get(DATA_DIR) == self.state["old_volume"]:
            # Somebody has started the database again meanwhile: what it has written since is carried over as well.
            self.compose.stop(*WRITERS)
            self._step_fenced()
            self.old_wal = None
            details = {"was_started_meanwhile": True, **self._step_carried()}
        self.compose.start(self.place.service, environment={"DB_VOLUME": self.state["new_volume"]})
        wait_open(self.place, self.docker, self.heart, self.clock)
        return details

    def _have_it_open(self) -> None:
        """Wait for the server on the new volume, which somebody else has restarted or stopped."""
        container = self.docker.container(self.place.project, self.place.service)
        if container is None or not container.running:
            self.compose.start(self.place.service, environment={"DB_VOLUME": self.state["new_volume"]})
        wait_open(self.place, self.docker, self.heart, self.clock)

    def _step_replayed(self) -> dict[str, Any]:
        """Wait until replay has come to the end of what there is, and see that this is the end it must reach."""
        expected, holes = self.state["expected_end"], self.state["holes"]
        wanted = pgbackrest.lsn_value(expected) if expected else None
        # A point in time and another timeline end before the newest archived segment.
        other = self.state["target_time"] is not None or bool(self.state.get("source_volume"))
        newest = None if other else self._newest_to_replay(holes)
        with connect(self.place, "postgres") as admin:
            position = follow_replay(
                admin,
                wanted,
                newest,
                stall_s=self.backrest.stall_s(),
                target_time=self.state["target_time"],
                progress=self.progress("replay"),
                heart=self.heart,
                clock=self.clock,
            )
        # A known hole may end it before the old volume's WAL does.
        if not postgres_wal.reached(position, None if holes else wanted, newest):
            raise UnsoundBackupError(
                f"replay ended at {pgbackrest.lsn_text(position)}, before {expected or newest}: WAL is missing",
                pt=f"a reaplicação terminou em {pgbackrest.lsn_text(position)}, antes de {expected or newest}: falta WAL",
            )
        return {"position": pgbackrest.lsn_text(position), "expected": expected}

    def _newest_to_replay(self, holes: list[str]) -> str | None:
        archived = self.backrest.archived()
        if not holes:
            return max(archived, default=None)
        return postgres_wal.newest_before(holes[0], {*archived, *postgres_wal.segments_in(self._volume_dir())})

    def _step_verified(self) -> dict[str, Any]:
        """Check what was restored while nobody can write to it.

        A proven backup was found sound once: what takes long is put off until the service is back. Nothing has vouched for any
        other yet, so all of it is checked before anybody relies on it.
        """
        vouched = bool(self.state["proven"])
        checks, later = postgres_integrity.run_checks(
            lambda name: connect(self.place, name),
            self.state["database"],
            query_limit_s=QUICK_QUERY_S if vouched else 0,
        )
        bad = postgres_integrity.failures(checks)
        structure = "later"
        if not vouched:
            container = self.docker.require_running(self.place.project, self.place.service)
            found, indexes = postgres_integrity.find_damage(self.docker, container.id)
            # A standby cannot rebuild an index; that is done as soon as it is none any more, and is no reason to stay without it.
            structure = "sound" if found.ok else "later"
            if found.ok or not indexes:
                bad = postgres_integrity.failures([*checks, found])
                checks.append(found)
        self._save(checks=[check.as_dict() for check in checks], put_off=later, structure=structure)
        if any(check.name == "pages" and not check.ok for check in checks):
            raise UnsoundBackupError(
                f"what was restored from {self.state['backup']} is not sound: {bad}",
                pt=f"o que foi restaurado de {self.state['backup']} não está íntegro: {bad}",
            )
        if bad:
            raise UnsoundContentError(
                f"what was restored from {self.state['backup']} is not sound: {bad}. If every backup leads there, the database "
                "was like that before: go back further (-e target_time=…)",
                pt=f"o que foi restaurado de {self.state['backup']} não está íntegro: {bad}. Se todo backup leva a isso, o banco "
                "já estava assim antes: volte mais no tempo (-e target_time=…)",
            )
        # Last of all: of what is not sound this could not be read either, and the verdict on it is the one to give.
        self._save(projected=self._projected())
        return {"checks": [check.as_dict() for check in checks], "put_off": later}

    # Serving ---------------------------------------------------------------------------------------------------------

    def _step_switched(self) -> dict[str, Any]:
        """Point `.env` at the new volume, by one rename."""
        env_file.set_env(self.place.env_path, {"DB_VOLUME": self.state["new_volume"]})
        self.backrest.forget_service()
        return {"old_volume": self.state["old_volume"], "new_volume": self.state["new_volume"]}

    def _step_promoted(self) -> dict[str, Any]:
        """End recovery: from here on the new volume takes writes."""
        self._ensure_running()
        with connect(self.place, "postgres") as admin:
            standby = admin.execute("select pg_is_in_recovery()").fetchone()[0]
            if standby and not admin.execute("select pg_promote(true, 60)").fetchone()[0]:
                raise WhatsAgentError(
                    "PostgreSQL did not end recovery within 60 s of being promoted; run this again",
                    pt="o PostgreSQL não encerrou a recuperação em 60 s após ser promovido; execute de novo",
                )
            for setting in ("recovery_target_time", "recovery_target_action", "recovery_target_timeline"):
                admin.execute(f"alter system reset {setting}")
            (segment,) = admin.execute("select pg_walfile_name(pg_current_wal_lsn())").fetchone()
        self._save(timeline=int(segment[:8], 16))
        return {"timeline": self.state["timeline"]}

    def _ensure_running(self) -> None:
        container = self.docker.container(self.place.project, self.place.service)
        if container is None or not container.running or container.mounts.get(DATA_DIR) != self.state["new_volume"]:
            self.compose.start(self.place.service)
            wait_open(self.place, self.docker, self.heart, self.clock)

    def _step_served(self) -> dict[str, Any]:
        """Let the writers in again: the worker replays the message log from the restored position."""
        folder = postgres_receiver.receiver_dir(self.place, self.docker)
        if folder is not None:
            postgres_receiver.put_aside(folder, self.state["id"])
        self._let_in()
        return {}

    def _let_in(self) -> None:
        """Start what was stopped beside the database: the WAL receiver, where there is one, and the writers.

        A receiver that does not start keeps nobody out: what it is missed for has causes and a remedy of its own.
        """
        try:
            if postgres_receiver.SERVICE in self.compose.services():
                self.compose.start(postgres_receiver.SERVICE)
        except WhatsAgentError as error:
            self.note("receiver_not_started", {"reason": error.message})
        self.compose.start(*WRITERS)

    def _step_archiving(self) -> dict[str, Any]:
        """Prove that WAL of the new timeline reaches the repository."""
        self._ensure_running()
        try:
            away = self.backrest.prove_archiving()
        except WhatsAgentError:
            # One of two repositories may have been lost with the volume: it begins anew.
            self.backrest.stanza_create()
            away = self.backrest.prove_archiving()
            return {"prepared_a_repository": True, **_told(away)}
        return _told(away)

    def _step_checked(self) -> dict[str, Any]:
        """Check heaps against indexes, and what was put off, now that the service is back; rebuild indexes that do not fit."""
        self._ensure_running()
        checks, _none = postgres_integrity.run_checks(
            lambda name: connect(self.place, name),
            self.state["database"],
            only=frozenset(self.state.get("put_off", [])),
        )
        if self.state.get("structure") != "sound":
            checks += self._structure()
        self._save(checks=[*self.state.get("checks", []), *(check.as_dict() for check in checks)])
        bad = postgres_integrity.failures(checks)
        if bad:
            raise UnsoundServiceError(
                f"the restored database serves, and is not sound: {bad}",
                pt=f"o banco restaurado atende, mas não está íntegro: {bad}",
                found=bad,
            )
        # Nothing prunes the log while this run holds the host, so it may be asked now that nobody waits for the answer.
        missing = message_log_gap.between(self.state.get("projected"), self._log_begins())
        self._save(log_missing=missing, log_missing_told=message_log_gap.told(missing))
        return {"checks": [check.as_dict() for check in checks], "log_missing": missing}

    def _projected(self) -> int | None:
        with connect(self.place, self.state["database"]) as inside:
            return message_log_gap.position_of(inside)

    def _log_begins(self) -> int | None:
        return message_log_gap.first_held(self.docker, self.place.project)

    def _structure(self) -> list[postgres_integrity.Check]:
        container = self.docker.require_running(self.place.project, self.place.service)
        found, indexes = postgres_integrity.find_damage(self.docker, container.id)
        if found.ok or not indexes:
            return [found]
        self.note("index_damaged", {"found": found.detail})
        rebuilt = postgres_integrity.rebuild(lambda name: connect(self.place, name), indexes)
        return [rebuilt, postgres_integrity.check_structure(self.docker, container.id)]

    def _step_backed_up(self) -> dict[str, Any]:
        """Take a full backup: the timeline is new, and the next restore should not have to go through this one."""
        if not self.backup_after:
            return {"skipped": True}
        self._ensure_running()
        taken = self.state.get("new_backups", {})
        away = pgbackrest.away(self.backrest.info())
        for repo in self.backrest.repositories():
            if str(repo) not in taken and repo not in away:
                label = self._backup_left_running(repo)
                if label is None:
                    reporter = self.progress(f"backup into repository {repo}")
                    label = self.backrest.backup("full", repo, percent_of(reporter)).label
                taken = {**taken, str(repo): label}
                self._save(new_backups=taken)
        return {"backups": taken, **_told(away)}

    def _backup_left_running(self, repo: int) -> str | None:
        """Wait for the backup that a killed run left at work in the container; return its label if it will do.

        It will if it is a full one without damaged pages that began on this restore's own timeline: so after the promotion,
        whatever the clocks say.
        """
        follow_backup(self.backrest, self.progress("backup left running"), heart=self.heart, clock=self.clock)
        timeline = self.state.get("timeline")
        found = [
            b
            for b in self.backrest.info().backups
            if b.repo == repo and b.type == "full" and not b.error and timeline_of(b.wal_start) == timeline
        ]
        return found[-1].label if found else None


def _told(away: dict[int, str]) -> dict[str, str]:
    """Note repositories that cannot be reached, where there are any. Their backups are the timers' to take once they are back."""
    return {"away": pgbackrest.told_away(away)} if away else {}
