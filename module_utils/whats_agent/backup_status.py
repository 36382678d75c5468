# SPDX-License-Identifier: GPL-3.0-or-later
"""How the backups stand, written where the agent's alerts read it: `logs/status/backup.json`.

The timers and `playbooks/backup.yml` write it after each run, a failed one too. What it holds is in docs/interfaces.md.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from . import postgres_proof, stack_archive
from .archive_place import ArchivePlace, require, snapshots
from .clock import SYSTEM_CLOCK, Clock
from .errors import WhatsAgentError
from .files import ensure_directory, read_json, write_json
from .pgbackrest import STATUS_OTHER, Repository, expirable, iso, kept_full, repository_problem, safe_to_expire

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from .pgbackrest import Backup
    from .postgres_backrest import Backrest

MB = 1024 * 1024
# The database's bytes against those of the backup of the same type before it.
GROWN, GROWN_BYTES = 1.5, 32 * MB
SHRUNK, SHRUNK_BYTES = 0.7, MB
# What a differential or incremental backup added to the repository: it varies by nature.
ADDED, ADDED_BYTES = 10.0, 256 * MB
PROOF_GRACE_S = 26 * 3600.0  # proofs are made each night, and take their time


@dataclass(frozen=True)
class Jump:
    """A backup whose size differs strongly from that of the one of its type before it. Bytes."""

    repo: int
    backup: str
    type: str
    what: str
    bytes: int
    before: int


def jumps(backups: Iterable[Backup]) -> list[Jump]:
    """Return the jumps of the newest backup of each type in each repository. Pure.

    A growth that was meant is accepted by taking another backup of that type: it is then compared with the grown one.
    """
    found = []
    series: dict[tuple[int, str], list[Backup]] = {}
    for backup in sorted(backups, key=lambda b: b.stop):
        series.setdefault((backup.repo, backup.type), []).append(backup)
    for (repo, kind), taken in sorted(series.items()):
        if len(taken) < 2:
            continue
        before, newest = taken[-2:]
        if _grown(newest.size, before.size) or _shrunk(newest.size, before.size):
            found.append(Jump(repo, newest.label, kind, "database", newest.size, before.size))
        elif kind != "full" and _added(newest.repository_delta, before.repository_delta):
            found.append(Jump(repo, newest.label, kind, "added", newest.repository_delta, before.repository_delta))
    return found


def _grown(now: int, before: int) -> bool:
    return now > GROWN * before and now - before > GROWN_BYTES


def _shrunk(now: int, before: int) -> bool:
    return now < SHRUNK * before and before - now > SHRUNK_BYTES


def _added(now: int, before: int) -> bool:
    return now > ADDED * before and now - before > ADDED_BYTES


def of_the_proofs(repository: Repository) -> dict[str, dict[str, Any]]:
    """Return, for each repository that holds backups, how they are proven. Pure.

    `proof_due_since` is the end of its newest proven backup, of its first backup where none is proven: a repository's own, since
    proofs of the other one's help neither a restore from it nor its expiry.
    """
    told = {}
    for repo in sorted({b.repo for b in repository.backups}):
        backups = repository.of(repo)
        proven = [b for b in backups if b.proven]
        told[str(repo)] = {
            "backups": len(backups),
            "proven": len(proven),
            "fulls": len([b for b in backups if b.type == "full"]),
            "fulls_proven": len([b for b in proven if b.type == "full"]),
            "proof_due_since": iso((proven[-1] if proven else backups[0]).stop),
        }
    return told


def held_expiry(repository: Repository, keep_full: int, now: float) -> dict[str, dict[str, Any]]:
    """Return the repositories that keep every backup, since none of the newest `keep_full` full ones' is proven. Pure.

    So no proof of theirs has come about in the whole time that retention is to keep, and their disk fills. One that has
    only just taken its backups is left until a night's proofs have been due.
    """
    told = {}
    for repo in sorted({b.repo for b in repository.backups}):
        if not expirable(repository, repo, keep_full) or safe_to_expire(repository, repo, keep_full):
            continue
        fulls = [b for b in repository.of(repo) if b.type == "full"]
        since = fulls[keep_full].stop  # the first one too many
        if now - since > PROOF_GRACE_S:
            told[str(repo)] = {"since": iso(since), "fulls": len(fulls), "keep": keep_full}
    return told


def of_the_repository(repository: Repository, lag: float | None, keep_full: int, now: float) -> dict[str, Any]:
    """Return what is told of the database's backups. Pure. `lag`: for how many seconds WAL has been waiting; None: unknown."""
    proven = [b for b in repository.backups if b.proven]
    newest = repository.backups[-1] if repository.backups else None
    problems = {
        str(number): problem
        for number in sorted(repository.keys)
        if (problem := repository_problem(repository, number)) is not None
    }
    if not repository.keys and repository.problem:
        problems = {"1": repository.problem}
    return {
        "backup": proven[-1].label if proven else None,
        "last_proven_at": iso(proven[-1].stop) if proven else None,
        "last_backup_at": iso(newest.stop) if newest else None,
        "repository_problems": problems,
        "proofs": of_the_proofs(repository),
        "expiry_held": held_expiry(repository, keep_full, now),
        "size_jumps": [asdict(jump) for jump in jumps(repository.backups)],
        "archive_lag_s": lag,
    }


def of_the_archive(place: ArchivePlace) -> dict[str, Any]:
    """Return what is told of the archive of the rest, each by its repository: the newest proven snapshot or the problem."""
    told: dict[str, Any] = {"last_archive_at": None, "archive_problems": {}}
    try:
        stores = place.stores()
    except WhatsAgentError as error:
        stores = [place.first()]
        told["archive_problems"]["second"] = error.message
    for name, store in zip(("first", "second"), stores, strict=False):
        try:
            require(store)
            proven = [s for s in snapshots(store, stack_archive.TAG) if s.proven]
        except WhatsAgentError as error:
            told["archive_problems"][name] = error.message
            continue
        if not proven:
            if told["last_archive_at"]:  # the first has one, so one was to be here
                told["archive_problems"][name] = f"{store.repository} holds no proven snapshot"
            continue
        # The older one of two: what lies on this host alone does not count where a second was wanted.
        moment = iso(proven[-1].moment.timestamp())
        told["last_archive_at"] = min(moment, told["last_archive_at"] or moment)
    return told


def path_of(stack_dir: Path) -> Path:
    """Return where the agent reads it."""
    return stack_dir / "logs" / "status" / "backup.json"


def write(
    backrest: Backrest,
    archive: ArchivePlace,
    *,
    done: str | None = None,
    failed: tuple[str, str] | None = None,
    clock: Clock = SYSTEM_CLOCK,
) -> dict[str, Any]:
    """Look at everything and write it down. `done` names a kind of work that succeeded, `failed` one with its reason."""
    with _alone(backrest.place.state_dir):
        return _write(backrest, archive, done, failed, clock)


@contextlib.contextmanager
def _alone(state_dir: Path) -> Iterator[None]:
    """Keep a second writer waiting: it would take away what the first one is about to tell."""
    descriptor = os.open(state_dir / "backup_status.guard", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _write(
    backrest: Backrest,
    archive: ArchivePlace,
    done: str | None,
    failed: tuple[str, str] | None,
    clock: Clock,
) -> dict[str, Any]:
    path = path_of(backrest.place.stack_dir)
    failures = _failures(path)
    if done:
        failures.pop(done, None)
    if failed:
        failures[failed[0]] = {"at": clock.rfc3339(), "reason": failed[1]}
    try:
        repository, keep_full = backrest.info(), kept_full(backrest.configuration())
    except WhatsAgentError as error:
        keep_full = 1  # of no backup
        repository = Repository(STATUS_OTHER, error.message, "", (), "", "")
    told = {
        "at": clock.rfc3339(),
        **of_the_repository(repository, lag_of(backrest, clock), keep_full, clock.wall()),
        **of_the_archive(archive),
        "failed": failures,
    }
    # The agent may write beside it: nothing of root's follows a link that somebody laid there.
    if path.parent.is_symlink():
        raise WhatsAgentError(f"{path.parent} is a symbolic link: remove it")
    ensure_directory(path.parent, mode=0o755)
    write_json(path, told, mode=0o644)
    return told


def _failures(path: Path) -> dict[str, Any]:
    """Return the failures told so far. A broken file has none: were it an error, no alert would ever be told anything again."""
    with contextlib.suppress(WhatsAgentError):
        before = read_json(path)
        if isinstance(before, dict) and isinstance(before.get("failed"), dict):
            return dict(before["failed"])
    return {}


def lag_of(backrest: Backrest, clock: Clock) -> float | None:
    """Return for how many seconds WAL has been waiting for the repository.

    None when the server or the repository cannot be asked: the one is another alert's, the other told as its own problem.
    """
    try:
        return postgres_proof.unarchived_seconds(backrest, clock)
    except WhatsAgentError:
        return None
