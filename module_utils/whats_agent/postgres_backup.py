# SPDX-License-Identifier: GPL-3.0-or-later
"""Take backups, make sure that they can be taken, and say how the repository stands."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from . import pgbackrest, postgres_receiver
from .clock import SYSTEM_CLOCK, Clock
from .errors import WhatsAgentError
from .pgbackrest import expirable, iso, repository_problem, safe_to_expire

if TYPE_CHECKING:
    from collections.abc import Callable

    from .journal import Progress
    from .lock import Heart, Idle
    from .pgbackrest import Backup, BackupType, Repository
    from .postgres_backrest import Backrest

DEFAULT_KEEP_FULL = 4
# How long a backup that nobody follows may stand still. pgBackRest itself gives a worker up after 1830 s (protocol-timeout).
STANDSTILL_S = 2400.0
FOLLOW_INTERVAL_S = 1.0


@dataclass
class Outcome:
    """What was done, and how the repository stands after it. `away`: repositories that nothing could be put into, and why."""

    changed: bool = False
    backup: Backup | None = None
    taken: list[Backup] = field(default_factory=list)
    steps: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    away: dict[int, str] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Return JSON-able data."""
        return {
            "backup": describe(self.backup) if self.backup else None,
            "steps": self.steps,
            "away": pgbackrest.told_away(self.away),
        }


def describe(backup: Backup) -> dict[str, Any]:
    """Return a backup as people and tests read it."""
    return {
        **asdict(backup),
        "references": list(backup.references),
        "stopped_at": iso(backup.stop),
        "proven": backup.proven,
    }


def standing(repository: Repository, clock: Clock = SYSTEM_CLOCK) -> dict[str, Any]:
    """Return how a repository stands: what is there, how old, how much of it proven, ready for a disaster or not."""
    proven = [b for b in repository.backups if b.proven]
    newest = repository.backups[-1] if repository.backups else None
    return {
        "problem": repository.problem,
        "problem_pt": repository.problem_pt,
        "takes_backups": pgbackrest.takes_backups(repository),
        "away": pgbackrest.told_away(pgbackrest.away(repository)),
        "proven": [b.label for b in proven],
        "backups": len(repository.backups),
        "newest": describe(newest) if newest else None,
        "newest_age_s": round(newest.age(clock.wall()), 1) if newest else None,
        "newest_proven": proven[-1].label if proven else None,
        "wal": {"min": repository.wal_min, "max": repository.wal_max},
        "repositories": sorted(repository.keys),
        "ready_for_disaster_recovery": any(b.repo > 1 for b in proven),
    }


def take(
    backrest: Backrest,
    kind: BackupType,
    *,
    keep_full: int,
    progress: Callable[[str], Progress],
) -> Outcome:
    """Take a backup into each repository that can be reached, and let old ones expire, as far as a proven one stays."""
    repository = backrest.info()
    _require_usable(repository)
    outcome = Outcome(away=pgbackrest.away(repository))
    for repo in [repo for repo in backrest.repositories() if repo not in outcome.away]:
        backup = backrest.backup(kind, repo, percent_of(progress(f"{kind} backup into repository {repo}")))
        # The first repository's is the one to speak of: it lies on this host.
        outcome.backup = outcome.backup or backup
        outcome.taken.append(backup)
        outcome.changed = True
        outcome.steps.append(f"{backup.type} backup {backup.label} into repository {repo}")
    expire(backrest, keep_full, outcome)
    folder = postgres_receiver.receiver_dir(backrest.place, backrest.docker)
    if folder is not None and (removed := postgres_receiver.prune(folder, backrest.archived())):
        outcome.steps.append(f"removed {removed} received WAL files that the repository holds")
    return outcome


def _require_usable(repository: Repository) -> None:
    """Fail where no repository takes a backup, with what is wrong with each of them."""
    if pgbackrest.takes_backups(repository):
        return
    numbers = [number for number, code in sorted(repository.keys.items()) if code == pgbackrest.STATUS_OTHER]
    reasons = [f"repository {number}: {repository_problem(repository, number)}" for number in numbers]
    raise WhatsAgentError("; ".join(reasons) or repository.problem or "", status=repository.status)


def follow_backup(backrest: Backrest, reporter: Progress, *, heart: Heart | Idle, clock: Clock = SYSTEM_CLOCK) -> bool:
    """Wait for the end of a backup that goes on in the database's container though its run was killed.

    Returns whether there was one. One that stands still is an error; it is not stopped, since it may yet end well.
    """
    position, since, waited = -1, clock.boottime(), False
    while (running := backrest.running_backup()) is not None:
        waited = True
        heart.check()
        if running.done != position:
            position, since = running.done, clock.boottime()
        elif clock.boottime() - since > STANDSTILL_S:
            raise WhatsAgentError(
                f"a backup that an earlier run left at work has stood still for {STANDSTILL_S:.0f} s at {position} of "
                f"{running.total} bytes: end it (in the postgres container: pgbackrest --stanza=main --force stop, then "
                "pgbackrest --stanza=main start) and run this again",
                done=position,
                total=running.total,
            )
        reporter.update(running.done, running.total)
        clock.sleep(FOLLOW_INTERVAL_S)
    return waited


def percent_of(reporter: Progress) -> Callable[[float], None]:
    """Return what reports percentages, in per mille: they have decimals, and a journal's counters are whole numbers."""
    return lambda percent: reporter.update(int(percent * 10), 1000)


def expire(backrest: Backrest, keep_full: int, outcome: Outcome) -> None:
    """Let old backups expire, unless that would remove a repository's last proven one. One that is away keeps its own."""
    repository = backrest.info()
    away = pgbackrest.away(repository)
    for repo in backrest.repositories():
        if repo in away or not expirable(repository, repo, keep_full):
            continue
        if safe_to_expire(repository, repo, keep_full):
            backrest.expire(repo, keep_full)
            outcome.steps.append(f"expired old backups of repository {repo}")
        else:
            outcome.warnings.append(
                f"repository {repo} keeps its old backups: none of the newest {keep_full} full ones is proven "
                "(backup.yml -e prove=true proves one)"
            )


def make_ready(backrest: Backrest, *, keep_full: int, progress: Callable[[str], Progress]) -> Outcome:
    """Make sure that the repository is prepared, that WAL reaches it, and that a first full backup lies in it."""
    outcome = Outcome()
    repository = backrest.info()
    if repository.status in (pgbackrest.STATUS_MISSING_STANZA_PATH, pgbackrest.STATUS_MISSING_STANZA_DATA):
        backrest.stanza_create()
        outcome.changed = True
        outcome.steps.append("prepared the repository")
        repository = backrest.info()
    _require_usable(repository)
    outcome.away = pgbackrest.away(repository)
    # A repository that was added later is empty beside full ones. One that is away is filled by the timers once it is back, one
    # that was never prepared by the next deployment.
    filled = {backup.repo for backup in pgbackrest.candidates(repository)}
    missing = [repo for repo in backrest.repositories() if repo not in filled and repo not in outcome.away]
    if missing and filled and not outcome.away:
        backrest.stanza_create()
    if missing:
        backrest.prove_archiving()
        taken = take(backrest, "full", keep_full=keep_full, progress=progress)
        outcome.changed = True
        outcome.backup, outcome.taken = taken.backup, taken.taken
        outcome.steps += taken.steps
    backrest.keep_infos()  # those of a repository from before this was done
    return outcome
