# SPDX-License-Identifier: GPL-3.0-or-later
"""What a server's timer runs: `python3 -m whats_agent_ops.backup_timer full|diff|incr|prove|archive|status`.

It takes the same lock and writes the same journal as a playbook, and waits for a run that holds the host; `status` only looks
and takes none. Each tells the agent's alerts how the backups stand. Exit codes: 0 done, 1 failed (the last line of stderr says
why), 75 the host stayed locked. While the component `backup` is muted it does nothing, says so, records it and exits 0.
"""

from __future__ import annotations

import argparse
import os
import sys
import traceback
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from . import archive_prune, backup_status, env_file, postgres_backup, postgres_proof_round, stack_archive
from .archive_place import DEFAULT_REPOSITORY, ArchivePlace
from .clock import SYSTEM_CLOCK
from .compose import ComposeProject
from .control import read_mute
from .docker_host import DockerHost
from .errors import WhatsAgentError
from .journal import Journal, Progress, close_abandoned, new_run_id
from .lock import HostLock, LockHeldError, heartbeat
from .postgres_backrest import Backrest
from .postgres_host import DatabasePlace
from .redact import redact_text
from .run_base import known_secrets

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .lock import Heart, Idle, Lease
    from .pgbackrest import BackupType

EXIT_DONE, EXIT_FAILED, EXIT_LOCKED = 0, 1, 75
ENGINE_TIMEOUT_S = 3600  # a backup may be silent for long
WAIT_S = 900.0
RETRY_S = 10.0
RESERVED = ("at", "boot", "run", "event")  # what a line of a journal says of itself


def parse_arguments(argv: Sequence[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="whats_agent_ops.backup_timer", description=__doc__)
    parser.add_argument("kind", choices=["full", "diff", "incr", "prove", "archive", "status"])
    parser.add_argument("--stack-dir", type=Path, default=Path("/opt/whats_agent"))
    parser.add_argument("--state-dir", type=Path, default=Path("/var/lib/whats_agent"))
    parser.add_argument("--keep-full", type=int, default=postgres_backup.DEFAULT_KEEP_FULL)
    parser.add_argument("--archive", default=DEFAULT_REPOSITORY, help="where this host's archive of the rest lies")
    return parser.parse_args(argv)


def work(backrest: Backrest, arguments: argparse.Namespace, journal: Journal, heart: Heart | Idle) -> dict[str, Any]:
    """Do what the timer is for; return what the journal's last line is to hold."""
    kind = arguments.kind

    def progress(step: str) -> Progress:
        return Progress(journal, step)

    if kind == "archive":
        place = archive_place(arguments)
        reporter = Progress(journal, "archive", unit="parts")
        done = stack_archive.archive(place, backrest.docker, heart=heart, progress=reporter)
        if done.not_copied:
            raise WhatsAgentError(done.not_copied, snapshot=done.snapshot, steps=done.steps)
        pruned = archive_prune.prune(place, backrest, done.log.last_id)
        return {"snapshot": done.snapshot, "steps": done.steps + pruned}
    if kind != "prove":
        outcome = postgres_backup.take(
            backrest, cast("BackupType", kind), keep_full=arguments.keep_full, progress=progress
        )
        told = {**outcome.as_dict(), "warnings": outcome.warnings}
        if told["away"]:
            raise WhatsAgentError(told["away"], **told)
        return told
    database = env_file.read_env(backrest.place.env_path)["DB_NAME"]
    return postgres_proof_round.prove_due(
        backrest, keep_full=arguments.keep_full, heart=heart, progress=progress, dbname=database
    )


def archive_place(arguments: argparse.Namespace) -> ArchivePlace:
    """Return where the archive of all that is not the database lies."""
    return ArchivePlace(arguments.stack_dir, arguments.state_dir, repository=arguments.archive)


def acquire(lock: HostLock, run_id: str, kind: str) -> Lease | None:
    """Take the host's lock, waiting for another run to end; return the lease of a dead one that was taken over, or None."""
    holder = {"user": "root", "controller": os.uname().nodename, "entry_point": "timer"}
    deadline = SYSTEM_CLOCK.boottime() + WAIT_S
    while True:
        try:
            return lock.acquire(run_id, f"backup:{kind}", holder)
        except LockHeldError:
            if SYSTEM_CLOCK.boottime() > deadline:
                raise
            SYSTEM_CLOCK.sleep(RETRY_S)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the timer's work under the host's lock."""
    arguments = parse_arguments(sys.argv[1:] if argv is None else argv)
    place = DatabasePlace(arguments.stack_dir, arguments.state_dir)
    backrest = Backrest(place, DockerHost(timeout=ENGINE_TIMEOUT_S), ComposeProject(place.stack_dir, place.project))
    if arguments.kind == "status":
        return tell(backrest, arguments)
    run_id = new_run_id()
    lock = HostLock(arguments.state_dir)
    mute = read_mute(arguments.state_dir, "backup")
    if mute is not None:
        # Said and recorded, and no failure of the timer: a person wanted it so.
        journal = Journal(arguments.state_dir, run_id)
        journal.write("open", component="backup", runbook="backup_timer", kind=arguments.kind, entry_point="timer")
        journal.write("close", outcome="refused", reason=mute.describe())
        print(mute.describe()["en"], file=sys.stderr)
        return 0
    try:
        dead = acquire(lock, run_id, arguments.kind)
    except LockHeldError as error:
        print(error.message, file=sys.stderr)
        return EXIT_LOCKED
    except WhatsAgentError as error:
        print(error.message, file=sys.stderr)
        tell(backrest, arguments, failed=(arguments.kind, error.message))
        return EXIT_FAILED
    journal = Journal(arguments.state_dir, run_id, known_secrets=known_secrets(place.env_path))
    try:
        journal.write("open", component="backup", runbook="backup_timer", kind=arguments.kind, entry_point="timer")
        if dead is not None:
            journal.write("takeover", of=dead.run, holder=asdict(dead))
            close_abandoned(Journal(arguments.state_dir, dead.run), run_id)
        with heartbeat(run_id, arguments.state_dir) as heart:
            done = work(backrest, arguments, journal, heart)
        journal.write("close", outcome="recovered", **done)
    except Exception as error:  # noqa: BLE001 - the last resort: whatever it was, the run is closed and the alerts are told
        failure = as_failure(error, known_secrets(place.env_path))
        close_failed(journal, failure)
        print(failure.message, file=sys.stderr)
        tell(backrest, arguments, failed=(arguments.kind, failure.message))
        return EXIT_FAILED
    else:
        return tell(backrest, arguments, done=arguments.kind)
    finally:
        lock.release(run_id)


def as_failure(error: Exception, secrets: Sequence[str]) -> WhatsAgentError:
    """Return what is said of an error: its own words, or for one that nobody foresaw its kind and where it came from."""
    if isinstance(error, WhatsAgentError):
        return error
    origin = traceback.extract_tb(error.__traceback__)[-1]
    where = f"{Path(origin.filename).name}:{origin.lineno}"
    words = redact_text(str(error), secrets)
    return WhatsAgentError(f"unforeseen {type(error).__name__} at {where}: {words}", where=where)


def close_failed(journal: Journal, failure: WhatsAgentError) -> None:
    """Close the journal of a run that failed. Where even that fails, as on a full disk, the alerts are to be told still."""
    fields = {**failure.details, "outcome": "acted_not_recovered", "message": failure.message}
    try:
        journal.write("close", **{name: value for name, value in fields.items() if name not in RESERVED})
    except (OSError, WhatsAgentError) as error:
        print(f"the run's journal cannot be closed: {error}", file=sys.stderr)


def tell(
    backrest: Backrest, arguments: argparse.Namespace, *, done: str | None = None, failed: tuple[str, str] | None = None
) -> int:
    """Tell the agent's alerts how the backups stand; return the exit code."""
    try:
        backup_status.write(backrest, archive_place(arguments), done=done, failed=failed)
    except WhatsAgentError as error:
        print(error.message, file=sys.stderr)
        return EXIT_FAILED
    return EXIT_DONE


if __name__ == "__main__":
    sys.exit(main())
