# SPDX-License-Identifier: GPL-3.0-or-later
"""Which backups the nightly round proves, and the round itself.

A proof is a whole restore, so not each hourly backup gets one. What gets one is what a recovery would stand on: each night the
newest backup of each repository, and each full backup once.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from . import postgres_backup, postgres_proof
from .errors import WhatsAgentError
from .pgbackrest import candidates

if TYPE_CHECKING:
    from collections.abc import Callable

    from .journal import Progress
    from .lock import Heart, Idle
    from .pgbackrest import Backup, Repository
    from .postgres_backrest import Backrest
    from .postgres_timeline import TimelinePath


def due_now(backrest: Backrest, keep_full: int) -> list[Backup]:
    """Return what a round proves now. Where the server cannot be asked by which way it came, no backup is left out for that."""
    path = None
    with contextlib.suppress(WhatsAgentError):
        path = backrest.timeline_path()
    return due(backrest.info(), keep_full, path)


def due(repository: Repository, keep_full: int, path: TimelinePath | None) -> list[Backup]:
    """Return what a round proves, in its order: each repository's newest backup, then one full backup of each. Pure.

    At most two a repository, so that a round stays as short as two restores of each; full backups that it leaves out are the next
    rounds', newest first. One that expiry would soon remove (not among the newest `keep_full`) is not worth it, and one that no
    replay leads on from to where the server is (`path`) would fail and is nothing that a recovery would stand on.
    """
    leading = [b for b in candidates(repository) if path is None or path.leads_from(b)]
    usable = sorted(leading, key=lambda b: (b.repo, -b.stop))
    newest, fulls = [], []
    for repo in sorted({b.repo for b in usable}):
        of_it = [b for b in usable if b.repo == repo]
        latest = of_it[0]
        if not latest.proven:
            newest.append(latest)
        kept = [b.label for b in repository.of(repo) if b.type == "full"][-keep_full:]
        fulls += [b for b in of_it if b.label in kept and not b.proven and b is not latest][:1]
    return newest + fulls


def prove_due(
    backrest: Backrest,
    *,
    keep_full: int,
    heart: Heart | Idle,
    progress: Callable[[str], Progress],
    dbname: str,
) -> dict[str, Any]:
    """Prove what is due and let expire what waited for it; return what was done.

    One that fails keeps no other from its proof: the round goes on, and then fails by name.
    """
    proofs: list[dict[str, Any]] = []
    failed: list[str] = []
    details: dict[str, Any] = {}
    for backup in due_now(backrest, keep_full):
        named = f"{backup.label} of repository {backup.repo}"
        try:
            proof = postgres_proof.prove(backrest, backup, heart=heart, progress=progress, dbname=dbname)
        except WhatsAgentError as error:
            heart.check()  # without the lease nothing more is to be touched
            failed.append(f"{named}: {error.message}")
            details = details or error.details
            continue
        proofs.append({"repo": backup.repo, **proof.as_dict()})
        if not proof.ok:
            broken = next(check for check in proof.checks if not check["ok"])
            failed.append(f"{named}: {broken['name']}: {broken['detail']}")
    outcome = postgres_backup.Outcome()
    postgres_backup.expire(backrest, keep_full, outcome)
    done = {"proofs": proofs, "steps": outcome.steps, "warnings": outcome.warnings}
    if failed:
        raise WhatsAgentError(f"not proven: {'; '.join(failed)}", **{**details, **done})
    return done
