# SPDX-License-Identifier: GPL-3.0-or-later
"""Restore the stack's database into a fresh volume, in steps that a rerun resumes after a kill at any point.

Each step is written to `restore.json` once it is done, and each can be repeated. The old volume is read at most; `.env`
is switched by one rename after what was restored has been verified as a standby, and before it is promoted: from then on
the new volume is the truth, whoever is killed.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import env_file, pgbackrest, postgres_integrity, postgres_wal
from .clock import SYSTEM_CLOCK, Clock
from .errors import WhatsAgentError
from .files import ensure_directory, read_json, write_json
from .postgres_backrest import RESTORE_LABEL, Backrest
from .postgres_host import DATA_DIR, GID, UID, VOLUME_LABEL, VOLUME_ROLE, DatabasePlace, connect, one_shot_options
from .postgres_plan import RESERVE_BYTES, RestorePlan, parse_target_time, plan_restore, postgres_time
from .postgres_standby import UnsoundBackupError, follow_replay, wait_open

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from .docker_host import ExecResult
    from .journal import Progress
    from .lock import Heart, Idle

STEPS = (
    "planned",
    "fenced",
    "restored",
    "carried",
    "started",
    "replayed",
    "verified",
    "switched",
    "promoted",
    "archiving",
    "served",
    "checked",
    "backed_up",
)
SWITCH_DEADLINE_S = 20.0
MAX_ATTEMPTS = 3
# Those that write to the database. The app keeps taking webhooks: it needs nothing but its disk.
WRITERS = ("worker",)


@dataclass(frozen=True)
class Options:
    """What a caller may choose. `backup_after` takes the new backup within the restore."""

    target_time: str | None = None
    reserve: int = RESERVE_BYTES
    backup_after: bool = True
    run_id: str = ""


class Restore:
    """One restore and its state file."""

    def __init__(
        self,
        place: DatabasePlace,
        backrest: Backrest,
        *,
        options: Options,
        heart: Heart | Idle,
        progress: Callable[[str], Progress],
        note: Callable[[str, dict[str, Any]], None],
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        """`progress(step)` gives a reporter for a step, `note(step, details)` writes a finished step to the journal."""
        self.place = place
        self.backrest = backrest
        self.docker = backrest.docker
        self.compose = backrest.compose
        self.options = options
        self.heart = heart
        self.progress = progress
        self.note = note
        self.clock = clock
        self.state: dict[str, Any] = {}

    # State -----------------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """Keep a second restore out, also one whose controller died and which lives on by itself."""
        ensure_directory(self.place.state_dir)
        descriptor = os.open(self.place.state_dir / "restore.guard", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise WhatsAgentError(
                    "another restore is at work on this host (its controller may be gone); run this again when it has ended"
                ) from error
            yield
        finally:
            os.close(descriptor)

    def _save(self, **changes: Any) -> None:
        self.state.update(changes)
        write_json(self.place.restore_path, self.state)

    def _done(self, step: str) -> bool:
        return STEPS.index(self.state["step"]) >= STEPS.index(step)

    def run(self) -> dict[str, Any]:
        """Begin or resume; return the finished state."""
        with self._alone():
            self._load_or_plan()
            while True:
                try:
                    self._climb()
                except UnsoundBackupError as error:
                    self._reject(error)
                else:
                    break
            self._save(finished_at=self.clock.rfc3339())
            return self.state

    def abandon(self) -> bool:
        """Close a restore that nobody needs any more: let the writers in again. Returns whether there was one."""
        with self._alone():
            found = read_json(self.place.restore_path)
            if not isinstance(found, dict) or found.get("finished_at"):
                return False
            if self._env()["DB_VOLUME"] == found["new_volume"]:
                raise WhatsAgentError("the restore has switched volumes already: it has to be finished, not abandoned")
            self.state = found
            self._remove_leftovers()
            self.compose.start(*WRITERS)
            self._save(finished_at=self.clock.rfc3339(), abandoned=True)
            self.note("abandoned", {"old_volume": found["old_volume"], "new_volume": found["new_volume"]})
            return True

    def _climb(self) -> None:
        if not self._done("served"):
            self.compose.stop(*WRITERS)
        for step in STEPS[1:]:
            if self._done(step):
                continue
            self.heart.check()
            began = time.monotonic()
            details = getattr(self, f"_step_{step}")() or {}
            seconds = round(time.monotonic() - began, 2)
            times = {**self.state.get("seconds", {}), step: seconds}
            self._save(step=step, seconds=times)
            self.note(step, {"seconds": seconds, **details})

    def _load_or_plan(self) -> None:
        """Take up an unfinished restore, or plan a new one and write it down before anything is touched."""
        found = read_json(self.place.restore_path)
        if isinstance(found, dict) and not found.get("finished_at") and self._resumable(found):
            self.state = found
            self._remove_leftovers()
            return
        env = self._env()
        plan = self.plan(env["DB_VOLUME"])
        restore_id = f"{self.clock.stamp()}-{secrets.token_hex(2)}"
        self.state = {
            "id": restore_id,
            "run": self.options.run_id,
            "begun_at": self.clock.rfc3339(),
            "step": "planned",
            "attempt": 1,
            "rejected": [],
            "database": env["DB_NAME"],
            **self._choice(plan),
        }
        self._save()
        self.note(
            "planned", {"backup": plan.backup, "old_volume": plan.old_volume, "new_volume": self.state["new_volume"]}
        )

    def _resumable(self, state: dict[str, Any]) -> bool:
        """Tell whether an unfinished restore is still the one that is needed."""
        if state.get("target_time") != (self.plan_time() if self.options.target_time else None):
            return False
        volume = self._env()["DB_VOLUME"]
        if state["step"] in STEPS[STEPS.index("switched") :] or volume == state["new_volume"]:
            return bool(volume == state["new_volume"]) and self.docker.volume(volume) is not None
        return bool(volume == state["old_volume"])

    def plan_time(self) -> str | None:
        """Return the wanted time as PostgreSQL reads it."""
        wanted = self.options.target_time
        return postgres_time(parse_target_time(wanted)) if wanted else None

    def plan(self, volume: str, rejected: tuple[str, ...] = ()) -> RestorePlan:
        """Look at everything a restore depends on; refuse with the reason."""
        return plan_restore(
            self.backrest,
            volume,
            target_time=self.options.target_time,
            rejected=rejected,
            reserve=self.options.reserve,
            clock=self.clock,
        )

    def _choice(self, plan: RestorePlan) -> dict[str, Any]:
        suffix = f"_{self.state['attempt'] + 1}" if self.state else ""
        return {
            "backup": plan.backup,
            "proven": plan.proven,
            "size": plan.size,
            "holes": list(plan.holes),
            "target_time": plan.target_time,
            "old_volume": plan.old_volume,
            "new_volume": f"{self.place.project}_pgdata_{self.clock.stamp()}{suffix}",
            "expected_end": None,
        }

    def _reject(self, error: UnsoundBackupError) -> None:
        """Give a backup up and choose the next one, into another fresh volume; nothing has been switched yet."""
        rejected = [*self.state["rejected"], self.state["backup"]]
        self.note("backup_rejected", {"backup": self.state["backup"], "reason": error.message})
        if self.state["attempt"] >= MAX_ATTEMPTS or self._done("switched"):
            raise error
        self._stop_database()
        with contextlib.suppress(WhatsAgentError):  # the verdict is kept in the state file as well
            self.backrest.annotate(self.state["backup"], pgbackrest.DISPROVEN, self.clock.rfc3339())
        plan = self.plan(self.state["old_volume"], tuple(rejected))
        self._save(**self._choice(plan), rejected=rejected, attempt=self.state["attempt"] + 1, step="fenced")

    def _env(self) -> dict[str, str]:
        env = env_file.read_env(self.place.env_path)
        env_file.require(env, ("DB_VOLUME", "DB_NAME"), str(self.place.env_path))
        return env

    def _remove_leftovers(self) -> None:
        """Remove one-shot containers that a killed run left at work on the new volume."""
        for entry in self.docker.client.api.containers(
            all=True, filters={"label": [f"{RESTORE_LABEL}={self.state['id']}"]}
        ):
            self.docker.remove_container(entry["Id"])

    # Steps -----------------------------------------------------------------------------------------------------------

    def _step_fenced(self) -> dict[str, Any]:
        """Stop the server; one that still answers is asked first to hand over its WAL."""
        import psycopg

        container = self.docker.container(self.place.project, self.place.service)
        handed = False
        if container is not None and container.running:
            try:
                with connect(self.place, "postgres", statement_timeout_s=SWITCH_DEADLINE_S) as admin:
                    if not admin.execute("select pg_is_in_recovery()").fetchone()[0]:
                        admin.execute("select pg_switch_wal()")
                        handed = True
            except psycopg.Error:
                handed = False  # too damaged to ask: its WAL is read from the volume
        self._stop_database()
        return {"asked_for_its_wal": handed}

    def _stop_database(self) -> None:
        container = self.docker.container(self.place.project, self.place.service)
        if container is None:
            return
        if container.status == "paused":
            self.docker.client.api.unpause(container.id)
        if container.status not in ("exited", "created", "dead"):
            self.compose.stop(self.place.service)
        state = self.docker.container(self.place.project, self.place.service)
        if state is not None and state.status in ("running", "restarting", "paused"):
            raise WhatsAgentError(f"the postgres container cannot be stopped (it is {state.status})")

    def _step_restored(self) -> dict[str, Any]:
        """Restore the chosen backup into the new volume."""
        name = self.state["new_volume"]
        there = self.docker.volume(name) is not None
        if not there:
            self.docker.create_volume(name, {VOLUME_LABEL: VOLUME_ROLE, RESTORE_LABEL: self.state["id"]})
        progress = self.progress("restore")
        size = self.state["size"]
        try:
            self.backrest.restore(
                self.state["backup"],
                name,
                delta=there,
                restore_id=self.state["id"],
                target_time=self.state["target_time"],
                on_percent=lambda percent: progress.update(int(size * percent / 100), size),
                check=self.heart.check,
            )
        except WhatsAgentError as error:
            if error.details.get("rc") in (pgbackrest.EXIT_CHECKSUM, *pgbackrest.EXITS_MISSING_FILE):
                raise UnsoundBackupError(error.message, **error.details) from error
            raise
        return {"backup": self.state["backup"], "bytes": size}

    def _step_carried(self) -> dict[str, Any]:
        """Carry unarchived WAL over from the old volume, and learn where that WAL ends."""
        old = self.docker.volume(self.state["old_volume"])
        if old is None or not (Path(old.mountpoint) / "pg_wal").is_dir():
            return {"old_volume": "not readable"}
        new = self._volume_dir()
        tail = postgres_wal.unarchived(Path(old.mountpoint))
        copied = postgres_wal.copy_tail(tail, Path(old.mountpoint), new, (UID, GID))
        expected = None if self.state["target_time"] else self._old_end(old.name, tail)
        self._save(expected_end=expected)
        return {"segments": len(tail.segments), "copied": copied, "expected_end": expected}

    def _volume_dir(self) -> Path:
        volume = self.docker.volume(self.state["new_volume"])
        if volume is None:
            raise WhatsAgentError(f"the new volume {self.state['new_volume']} is gone; run this again", step="carried")
        return Path(volume.mountpoint)

    def _old_end(self, volume: str, tail: postgres_wal.Tail) -> str | None:
        """Return the LSN at which the old volume's WAL ends, or None where there is none to walk through."""
        control = self._look_into(volume, ["pg_controldata", f"--pgdata={DATA_DIR}"], 60)
        start = postgres_wal.walk_from(control.exit_code, control.stdout, control.stderr, tail)
        if start is None:
            return None
        walked = self._look_into(volume, postgres_wal.waldump_argv(f"{DATA_DIR}/pg_wal", *start), 600)
        return postgres_wal.parse_wal_end(walked.stderr + walked.stdout)

    def _look_into(self, volume: str, argv: list[str], timeout_s: float) -> ExecResult:
        """Run a command over the old volume, mounted read-only."""
        return self.docker.run_once(
            self.backrest.service.image,
            argv,
            volumes={volume: {"bind": DATA_DIR, "mode": "ro"}},
            environment={"LC_ALL": "C"},
            labels={RESTORE_LABEL: self.state["id"]},
            timeout=timeout_s,
            options=one_shot_options(),
        )

    def _step_started(self) -> dict[str, Any]:
        """Start the service's own container on the new volume: a standby, which takes no writes and archives nothing."""
        self.compose.start(self.place.service, environment={"DB_VOLUME": self.state["new_volume"]})
        self._wait_open()
        return {}

    def _wait_open(self) -> None:
        wait_open(self.place, self.docker, self.heart, self.clock)

    def _step_replayed(self) -> dict[str, Any]:
        """Wait until replay has come to the end of what there is, and see that this is the end it must reach."""
        expected = self.state["expected_end"]
        wanted = pgbackrest.lsn_value(expected) if expected else None
        timed, holed = self.state["target_time"] is not None, bool(self.state["holes"])
        newest = None if timed or holed else max(self.backrest.archived(), default=None)
        with connect(self.place, "postgres") as admin:
            position = follow_replay(
                admin, wanted, newest, progress=self.progress("replay"), heart=self.heart, clock=self.clock
            )
        if not holed and not postgres_wal.reached(position, wanted, newest):
            raise UnsoundBackupError(
                f"replay ended at {pgbackrest.lsn_text(position)}, before {expected or newest}: WAL is missing"
            )
        return {"position": pgbackrest.lsn_text(position), "expected": expected}

    def _step_verified(self) -> dict[str, Any]:
        """Check what was restored while nobody can write to it."""
        checks = postgres_integrity.quick_checks(lambda name: connect(self.place, name), self.state["database"])
        bad = postgres_integrity.failures(checks)
        self._save(checks=[check.as_dict() for check in checks])
        if bad:
            raise UnsoundBackupError(f"backup {self.state['backup']} was restored and is not sound: {bad}")
        return {"checks": [check.as_dict() for check in checks]}

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
                raise WhatsAgentError("PostgreSQL did not end recovery within 60 s of being promoted; run this again")
            if self.state["target_time"]:
                for setting in ("recovery_target_time", "recovery_target_action", "recovery_target"):
                    admin.execute(f"alter system reset {setting}")
            timeline = admin.execute("select timeline_id from pg_control_checkpoint()").fetchone()[0]
        return {"timeline": timeline}

    def _ensure_running(self) -> None:
        container = self.docker.container(self.place.project, self.place.service)
        if container is None or not container.running or container.mounts.get(DATA_DIR) != self.state["new_volume"]:
            self.compose.start(self.place.service)
            self._wait_open()

    def _step_archiving(self) -> dict[str, Any]:
        """Prove that WAL of the new timeline reaches the repository."""
        self._ensure_running()
        self.backrest.check()
        return {}

    def _step_served(self) -> dict[str, Any]:
        """Let the writers in again: the worker replays the message log from the restored position."""
        self.compose.start(*WRITERS)
        return {}

    def _step_checked(self) -> dict[str, Any]:
        """Check heaps against indexes, all of them, now that the service is back."""
        container = self.docker.require_running(self.place.project, self.place.service)
        check = postgres_integrity.check_structure(self.docker, container.id)
        if not check.ok:
            raise WhatsAgentError(f"the restored database serves, yet pg_amcheck finds: {check.detail}")
        return {"structure": check.detail}

    def _step_backed_up(self) -> dict[str, Any]:
        """Take a full backup: the timeline is new, and the next restore should not have to go through this one."""
        if not self.options.backup_after:
            return {"skipped": True}
        # Until the first checkpoint on the new timeline, pg_control names the old one, and pgBackRest refuses.
        with connect(self.place, "postgres") as admin:
            admin.execute("checkpoint")
        progress = self.progress("backup")
        backup = self.backrest.backup("full", lambda percent: progress.update(int(percent * 10), 1000))
        self._save(new_backup=backup.label)
        return {"backup": backup.label}
