# SPDX-License-Identifier: GPL-3.0-or-later
"""Restore the stack's database into a fresh volume, in steps that a rerun resumes after a kill at any point.

Each step is written to `restore.json` once it is done, and each can be repeated. The old volume is read at most; `.env`
is switched by one rename after what was restored has been verified as a standby, and before it is promoted: from then on
the new volume is the truth, whoever is killed. What comes after the writers were let in closes the restore; nobody waits for it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import env_file, pgbackrest
from .clock import SYSTEM_CLOCK, Clock
from .errors import WhatsAgentError
from .files import ensure_directory, read_json, write_json
from .lock import LeaseLostError
from .postgres_backrest import RESTORE_LABEL, Backrest
from .postgres_host import DATA_DIR, DatabasePlace, connect
from .postgres_plan import (
    RESERVE_BYTES,
    RestorePlan,
    disk_is_full,
    find_restore,
    plan_restore,
    plan_undo,
    require_space,
)
from .postgres_restore_steps import WRITERS, RestoreSteps
from .postgres_standby import UnsoundBackupError, UnsoundContentError, UnsoundServiceError
from .postgres_target import parse_target_time, postgres_time
from .postgres_unfinished import STEPS, finish_first, goes_on, has_come_to, may_be_given_up, same_wish, wanted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from .journal import Progress
    from .lock import Heart, Idle

# What the writers need not have stopped for: a dead server takes no commits, and a volume being filled has no server. The volume is
# filled from the beginning on, beside whatever has to be stopped.
ASIDE = ("fenced", "restored")
MAX_ATTEMPTS = 3
# How a connection ends, or does not come about, when somebody stops or restarts the server: without a code, or with one of these.
CONNECTION_LOST = frozenset([None, "57P01", "57P02", "57P03"])


@dataclass(frozen=True)
class Options:
    """What a caller may choose. `undo` names a restore (by its id, its run, or `last`) to go back behind.

    `plan` is one that a diagnosis has only just made (`RestorePlan.as_dict`); without it, or when it does not fit, the restore is
    planned anew.
    """

    target_time: str | None = None
    undo: str | None = None
    plan: Mapping[str, Any] | None = None
    reserve: int = RESERVE_BYTES
    backup_after: bool = True
    run_id: str = ""


class Restore(RestoreSteps):
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
        super().__init__(
            place, backrest, heart=heart, progress=progress, backup_after=options.backup_after, clock=clock
        )
        self.options = options
        self.note = note

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

    def _finish(self, **changes: Any) -> None:
        """Close the restore, and keep its record for those who want to go back behind it."""
        self._save(finished_at=self.clock.rfc3339(), **changes)
        ensure_directory(self.place.restores_dir)
        write_json(self.place.restores_dir / f"{self.state['id']}.json", self.state)

    def _done(self, step: str) -> bool:
        return has_come_to(self.state, step)

    # Running ---------------------------------------------------------------------------------------------------------

    def run(self) -> dict[str, Any]:
        """Begin or resume; return the finished state."""
        with self._alone():
            self._load_or_plan()
            try:
                self._climb_until_sound()
            except LeaseLostError:
                raise  # another run may be acting: not one step more
            except Exception as error:  # whatever it was, a database that served must serve again
                told = self._full_disk() or self._told(error)
                if self._done("served"):
                    raise self._not_closed(error, told) from error
                self._bring_back(told)
                if told is error:
                    raise
                raise told from error
            self._finish()
            return self.state

    def _told(self, error: Exception) -> WhatsAgentError:
        """Return an error as one for the operator: of one that nobody foresaw its kind, and where it arose in the details."""
        if isinstance(error, WhatsAgentError):
            return error
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
        step = self.state["step"]
        return WhatsAgentError(
            f"the restore broke off after the step {step}: {reason}; run this again",
            pt=f"a restauração foi interrompida depois da etapa {step}: {reason}; execute de novo",
            traceback=[line.rstrip() for line in traceback.format_exception(error)[-6:]],
        )

    def _not_closed(self, error: Exception, told: WhatsAgentError) -> WhatsAgentError:
        """Leave a restore whose database serves so that nothing is stuck behind it; return what the operator has to know.

        What is not sound ends it, without a backup that would push a sound one out: checking once more would find the same. For
        anything else it stays open, behind whatever keeps it from being closed (`postgres_causes`), and a rerun goes on.
        """
        back = f"-e undo={self.state['run'] or self.state['id']}"
        if isinstance(error, UnsoundServiceError):
            self._finish(unsound=error.details.get("found", error.message))
            return WhatsAgentError(
                f"{error.message}. No backup was taken of it, and the restore is closed. Choose: behind it ({back}), an earlier "
                "time (-e target_time=…), or save the tables concerned (pg_dump), mend them and have that proven "
                "(playbooks/backup.yml -e type=full -e prove=true)",
                pt=f"{error.details.get('pt') or error.message}. Nenhum backup dele foi feito, e a restauração está encerrada. "
                f"Escolha: antes dela ({back}), um momento anterior (-e target_time=…), ou salve as tabelas em questão (pg_dump), "
                "corrija-as e comprove isso (playbooks/backup.yml -e type=full -e prove=true)",
                **{name: value for name, value in error.details.items() if name != "pt"},
            )
        step = STEPS[min(STEPS.index(self.state["step"]) + 1, len(STEPS) - 1)]
        told_back = ("", "")
        if may_be_given_up(self.state, self.state["new_volume"]):
            told_back = (f" Back behind it: {back}", f" Para voltar antes dela: {back}")
        self._save(held_up=step, reason=told.message)
        return WhatsAgentError(
            f"the restored database serves, and the restore cannot be closed, in the step {step}: {told.message}. Run this again: "
            f"it mends what it can of that, proves archiving, checks the rest and takes the new backup.{told_back[0]}",
            pt=f"o banco restaurado está em serviço, e a restauração não pode ser encerrada, na etapa {step}: "
            f"{told.details.get('pt') or told.message}. Execute de novo: o que for possível é corrigido, o arquivamento é "
            f"comprovado, o resto é verificado e o novo backup é feito.{told_back[1]}",
            **{name: value for name, value in told.details.items() if name != "pt"},
        )

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
            self._discard()
            self._let_in()
            self._save(finished_at=self.clock.rfc3339(), abandoned=True)
            self.note("abandoned", {"old_volume": found["old_volume"], "new_volume": found["new_volume"]})
            return True

    def _climb_until_sound(self) -> None:
        while True:
            try:
                self._climb()
            except UnsoundBackupError as error:
                if self._full_disk() is not None:
                    raise  # whatever it looked like, the backup is not to blame
                self._reject(error)
            else:
                # This one keeps what the suspects did not: it was they that were at fault.
                for label, repo in self.state.get("suspects", []):
                    self._disprove(label, repo)
                return

    def _climb(self) -> None:
        self.given_up.clear()
        self.old_wal = None
        # What the threads import must be imported by now, and the SDK imports more at its first call: two threads that import
        # psycopg and the SDK at the same time share modules, and Python 3.11 then hangs for ever, once in forty times.
        import psycopg  # noqa: F401 - for the steps

        self.docker.volume(self.state["new_volume"])
        with ThreadPoolExecutor(max_workers=2) as aside:
            self.stopping = None if self._done("served") else aside.submit(self.compose.stop, *WRITERS)
            self.filling = None if self._done("restored") else aside.submit(self._fill)
            try:
                self._take_steps()
            except BaseException:
                self.given_up.set()  # nobody waits for the volume any more
                raise

    def _take_steps(self) -> None:
        import psycopg

        for step in STEPS[1:]:
            if self._done(step):
                continue
            self.heart.check()
            if step not in ASIDE:
                self._writers_stopped()
            began = time.monotonic()
            try:
                details = self._take(step)
            except psycopg.Error as error:
                reason = " ".join(str(error).split())[:300]
                raise WhatsAgentError(f"PostgreSQL broke off in the step {step}: {reason}", step=step) from error
            seconds = round(time.monotonic() - began, 2)
            times = {**self.state.get("seconds", {}), step: seconds}
            self._save(step=step, seconds=times, held_up=None)
            self.note(step, {"seconds": seconds, **details})

    def _take(self, step: str) -> dict[str, Any]:
        """Take a step, and once more where somebody has restarted the server under it: each looks first what is there."""
        import psycopg

        act: Callable[[], dict[str, Any] | None] = getattr(self, f"_step_{step}")
        try:
            return act() or {}
        except psycopg.OperationalError as error:
            if not self._done("started") or error.sqlstate not in CONNECTION_LOST:
                raise
            self.note("connection_lost", {"in_step": step, "reason": " ".join(str(error).split())[:300]})
        self._have_it_open()
        return act() or {}

    def _bring_back(self, error: WhatsAgentError) -> None:
        """Give a database that served before back to its writers, where the restore failed before it was switched.

        The new volume was a standby at most, so the old one is still the truth, and its archive has nothing foreign in it.
        """
        if not self.state.get("was_alive") or self._done("switched"):
            return
        try:
            self._stop_database()
            self._discard()
            self._save(step="fenced" if self._done("fenced") else "planned")
            self.compose.start(self.place.service)
            self._let_in()
        except LeaseLostError:
            raise
        except Exception as second:  # of the two reasons neither may hide the other
            raise WhatsAgentError(
                f"{error.message}; and the database of before, untouched, could not be started again: "
                f"{getattr(second, 'message', second)}",
                **error.details,
            ) from second
        self.note("brought_back", {"volume": self.state["old_volume"], "reason": error.message})
        self._save(finished_at=self.clock.rfc3339(), failed=error.message)

    def _full_disk(self) -> WhatsAgentError | None:
        disk = self.state.get("disk")
        return disk_is_full(Path(disk)) if disk else None

    def _discard(self) -> None:
        """Remove the volume that this restore has been filling: nothing was ever written to it but what a backup holds."""
        name = self.state["new_volume"]
        volume = self.docker.volume(name)
        if volume is None or volume.labels.get(RESTORE_LABEL) != self.state["id"] or self._done("switched"):
            return
        container = self.docker.container(self.place.project, self.place.service)
        if container is not None and name in container.mounts.values():
            self._stop_database()
            self.docker.remove_container(container.id)
        self.docker.remove_volume(name)

    def _disprove(self, label: str, repo: int) -> None:
        with contextlib.suppress(WhatsAgentError):  # the verdict is kept in the state file as well
            self.backrest.annotate(label, repo, pgbackrest.DISPROVEN, self.clock.rfc3339())

    def _reject(self, error: UnsoundBackupError) -> None:
        """Give a backup up and choose the next one, into another fresh volume; nothing has been switched yet."""
        backup, repo = self.state["backup"], self.state["repo"]
        rejected = [*self.state["rejected"], backup]
        self.note("backup_rejected", {"backup": backup, "reason": error.message})
        if self.state["attempt"] >= MAX_ATTEMPTS or self._done("switched") or self.state.get("source_volume"):
            raise error
        self._stop_database()
        if isinstance(error, UnsoundContentError):
            self._save(suspects=[*self.state.get("suspects", []), [backup, repo]])
        else:
            self._disprove(backup, repo)
        self._discard()  # before the next one is planned: it needs the space
        try:
            plan = self.plan(self.state["old_volume"], tuple(rejected))
        except WhatsAgentError as none_left:
            raise WhatsAgentError(f"{error.message}; and {none_left.message}", **error.details) from error
        self._save(**self._choice(plan), rejected=rejected, attempt=self.state["attempt"] + 1, step="fenced")

    # Planning --------------------------------------------------------------------------------------------------------

    def _load_or_plan(self) -> None:
        """Take up an unfinished restore, or plan a new one and write it down before anything is touched."""
        env = self._env()
        found = self._unfinished()
        if found is not None and self._to_be_finished(found, env["DB_VOLUME"]):
            self.state = found
            self._remove_leftovers()
            removed = self._done("restored") and self.docker.volume(found["new_volume"]) is None
            if removed or self._old_is_back():
                self._save(step="fenced")  # somebody removed what was half done, or has the database of before write on
            return
        served = self._give_up(found, env["DB_VOLUME"]) if found is not None else False
        plan = self.plan_of(env["DB_VOLUME"])
        self.state = {
            "id": f"{self.clock.stamp()}-{secrets.token_hex(2)}",
            "run": self.options.run_id,
            "begun_at": self.clock.rfc3339(),
            "step": "planned",
            "attempt": 1,
            "rejected": [],
            "database": env["DB_NAME"],
            "undo": self.options.undo,
            "was_alive": served,
            **self._choice(plan),
        }
        self._save()
        names = {name: self.state[name] for name in ("backup", "source_volume", "old_volume", "new_volume")}
        self.note("planned", names)

    def plan_of(self, volume: str) -> RestorePlan:
        """Return the plan to act on: the one that this run's diagnosis has just made, if it is this restore's, else a new one."""
        if self.options.plan is not None and not self.options.undo:
            plan = RestorePlan.of(self.options.plan)
            if plan.stands(volume, self._wanted_time(), self.clock):
                require_space(Path(plan.disk), plan.needed)
                return plan
        return self.plan(volume)

    def _wanted_time(self) -> str | None:
        wanted = self.options.target_time
        return postgres_time(parse_target_time(wanted)) if wanted else None

    def _unfinished(self) -> dict[str, Any] | None:
        found = read_json(self.place.restore_path)
        return found if isinstance(found, dict) and not found.get("finished_at") else None

    def _to_be_finished(self, state: dict[str, Any], volume: str) -> bool:
        """Tell whether an unfinished restore is the one to finish; if so, what it was begun for is what is wanted from now on.

        Another wish was consented to with this one in sight, so it may take its place, except while that would leave a
        volume in use that is not in order.
        """
        if not goes_on(state, volume, present=self.docker.volume(volume) is not None):
            return False
        if not same_wish(state, self.options.target_time, self.options.undo):
            if may_be_given_up(state, volume):
                return False
            refusal = finish_first(state)
            raise WhatsAgentError(refusal["en"], pt=refusal["pt"])
        self.options = replace(self.options, target_time=state.get("target_time"), undo=state.get("undo"))
        return True

    def _old_is_back(self) -> bool:
        """Tell whether the server that had been started on the new volume, to be checked, is the one of before again."""
        if not self._done("started") or self._done("switched"):
            return False
        container = self.docker.container(self.place.project, self.place.service)
        return container is not None and container.mounts.get(DATA_DIR) == self.state["old_volume"]

    def _give_up(self, state: dict[str, Any], volume: str) -> bool:
        """Clear away a restore that something else is begun in the place of. Returns whether the database served before it.

        What it was filling goes. Its volume stays where that is in use by now, and with it the record to go back behind it.
        """
        self.state = state
        self._remove_leftovers()
        self.note("given_up", {"restore": state["id"], "wanted": wanted(state)[0], "step": state["step"]})
        served = bool(state.get("was_alive")) and volume == state["old_volume"]
        if volume == state["new_volume"]:
            self._finish(superseded=True)
        else:
            self._discard()
        self.state = {}
        # The plan of the diagnosis counts as free what has just gone.
        self.options = replace(self.options, plan=None)
        return served

    def foresee(self) -> dict[str, Any]:
        """Return what `run` would do, without touching anything: the plan, or what is to be finished."""
        volume = self._env()["DB_VOLUME"]
        found = self._unfinished()
        if found is not None and self._to_be_finished(found, volume):
            return {"finishes": found["id"], **{name: found.get(name) for name in ("step", "target_time", "undo")}}
        plan = self.plan_of(volume)
        return {**plan.as_dict(), "loses": plan.loses}

    def plan(self, volume: str, rejected: tuple[str, ...] = ()) -> RestorePlan:
        """Look at everything a restore depends on; refuse with the reason."""
        if self.options.undo:
            record = find_restore(self.place, self.options.undo)
            return plan_undo(self.backrest, volume, record, reserve=self.options.reserve, clock=self.clock)
        return plan_restore(
            self.backrest,
            volume,
            target_time=self.options.target_time,
            alive=self._alive(),
            rejected=rejected,
            reserve=self.options.reserve,
            clock=self.clock,
        )

    def _alive(self) -> bool:
        """Tell whether the server answers, or did when this restore began."""
        import psycopg

        if self.state.get("was_alive"):
            return True
        try:
            with connect(self.place, "postgres") as admin:
                return not admin.execute("select pg_is_in_recovery()").fetchone()[0]
        except psycopg.Error:
            return False

    def _choice(self, plan: RestorePlan) -> dict[str, Any]:
        suffix = f"_{self.state['attempt'] + 1}" if self.state else ""
        return {
            "backup": plan.backup,
            "repo": plan.repo,
            "source_volume": plan.source_volume,
            "proven": plan.proven,
            "size": plan.size,
            "disk": plan.disk,
            "wal_start": plan.wal_start,
            "holes": list(plan.holes),
            "target_time": plan.target_time,
            "old_volume": plan.old_volume,
            "new_volume": f"{self.place.project}_pgdata_{self.clock.stamp()}{suffix}",
            "expected_end": None,
        }

    def _env(self) -> dict[str, str]:
        env = env_file.read_env(self.place.env_path)
        env_file.require(env, ("DB_VOLUME", "DB_NAME"), str(self.place.env_path))
        return env

    def _remove_leftovers(self) -> None:
        """Remove one-shot containers that a killed run left at work on the new volume."""
        label = f"{RESTORE_LABEL}={self.state['id']}"
        for container in self.docker.labelled(label):
            self.docker.remove_container(container)
