# SPDX-License-Identifier: GPL-3.0-or-later
"""Remedies for what the database writes to: the archive, replication slots, the disk."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from . import postgres_proof, postgres_repository
from .errors import WhatsAgentError
from .pgbackrest import STATUS_MISSING_STANZA_DATA, STATUS_MISSING_STANZA_PATH, STATUS_NO_BACKUP
from .postgres_backup import Outcome, expire
from .postgres_causes import holds_too_much, space_finding
from .postgres_host import GID, UID, database
from .postgres_observe import observe
from .postgres_server import SLOTS, rows
from .postgres_volumes import data_volumes

if TYPE_CHECKING:
    from .postgres_backrest import Backrest
    from .postgres_mend_sessions import Order


def mend_archiving(backrest: Backrest, order: Order) -> list[str]:
    """Make WAL reach the repository again: its owner and modes, what opens it, its stanza; then prove it."""
    done = []
    unopened: tuple[str, ...] = ()
    repository = postgres_repository.repository_of(backrest.service.binds)
    if repository is not None:
        wrong = [p for p in _walk(repository) if not _owned(p)]
        if wrong:
            done.append(f"gave {len(wrong)} files of {repository} back to the server's user")
            if order.write:
                for path in wrong:
                    _own(path)
        unopened = postgres_repository.lacks(repository)
        done += postgres_repository.put_back(backrest.place, repository, write=order.write)
    info = backrest.info()
    # Beside a second repository that is in order, a lost one shows in its own status only.
    lost = any(code in (STATUS_MISSING_STANZA_PATH, STATUS_MISSING_STANZA_DATA) for code in info.keys.values())
    if (lost or (info.problem and info.status != STATUS_NO_BACKUP)) and (order.write or not unopened):
        if info.problem and "passphrase" in info.problem:
            raise WhatsAgentError(info.problem, pt=info.problem_pt)
        done.append("prepared the repository")
        if order.write:
            backrest.stanza_create()
    if order.write:
        backrest.check(timeout_s=120)
        done.append("proved that WAL reaches the repository")
    return done


def _walk(root: Path) -> list[Path]:
    return [root, *(Path(folder) / name for folder, names, files in os.walk(root) for name in (*names, *files))]


def _owned(path: Path) -> bool:
    status = path.lstat()
    wanted = 0o700 if path.is_dir() else 0o600
    return status.st_uid == UID and status.st_mode & wanted == wanted


def _own(path: Path) -> None:
    os.chown(path, UID, GID, follow_symlinks=False)
    if not path.is_symlink():
        path.chmod(path.stat().st_mode | (0o700 if path.is_dir() else 0o600))


def mend_slots(backrest: Backrest, order: Order) -> list[str]:
    """Drop the inactive replication slots that hold back too much WAL; a receiver makes its own anew."""
    with database(backrest.place, "postgres") as admin:
        slots = [slot["slot_name"] for slot in rows(admin.execute(SLOTS)) if holds_too_much(slot, order.limits)]
        for slot in slots if order.write else ():
            admin.execute("select pg_drop_replication_slot(%s)", (slot,))
        if slots and order.write:
            admin.execute("checkpoint")
    return [f"dropped the inactive slot {slot}" for slot in slots]


def mend_space(backrest: Backrest, order: Order) -> list[str]:
    """Free what the database itself holds needlessly: scratch volumes, slots' WAL, expired backups; then start what died of it.

    That it does not suffice is an error which says what else takes the space.
    """
    done = []
    scratch = postgres_proof.scratch_volumes(backrest.docker)
    if scratch:
        done.append(f"removed {len(scratch)} scratch volumes of proofs")
        if order.write:
            postgres_proof.sweep(backrest.docker)
    if not order.write:
        return done
    try:
        outcome = Outcome()
        expire(backrest, order.keep_full, outcome)
        done += outcome.steps + outcome.warnings
    except WhatsAgentError as error:
        done.append(f"no backups expired: {error.message}")
    done += _revive(backrest)
    try:
        done += mend_slots(backrest, order)
        with database(backrest.place, "postgres") as admin:
            admin.execute("checkpoint")
    except WhatsAgentError as error:
        done.append(f"no checkpoint: {error.message}")
    lacking = still_full(backrest, order)
    if lacking:
        else_en, else_pt = _what_else(backrest)
        raise WhatsAgentError(
            f"{lacking}; {else_en}; done: {', '.join(done) or 'nothing was to be freed'}",
            pt=f"falta espaço ({lacking}); {else_pt}; feito: {', '.join(done) or 'não havia nada a liberar'}",
        )
    return done


def _revive(backrest: Backrest) -> list[str]:
    """Start a server that died for want of space now: the engine itself waits longer and longer between its attempts."""
    place = backrest.place
    container = backrest.docker.container(place.project, place.service)
    if container is None:
        backrest.compose.start(place.service)
        return ["made the postgres container"]
    if container.running and container.restart_count == 0:
        return []
    backrest.docker.restart(container.id, grace=60)
    return ["started the postgres container"]


def still_full(backrest: Backrest, order: Order) -> str:
    """Say where space is lacking, or nothing."""
    finding = space_finding(observe(backrest.place, backrest.docker, page_budget_s=0), order.limits)
    return "" if finding is None else "; ".join(f"{what}: {value}" for what, value in finding.evidence)


def _what_else(backrest: Backrest) -> tuple[str, str]:
    """Say what a person may free: old data volumes, and what is not the database's. English and Portuguese."""
    removable = [volume for volume in data_volumes(backrest) if volume.kept_because is None]
    if not removable:
        return (
            "what else lies there is not the database's: playbooks/reclaim_disk.yml",
            "o que mais está lá não é do banco: playbooks/reclaim_disk.yml",
        )
    told = ", ".join(f"{volume.name} ({volume.size // 1024**2} MB)" for volume in removable)
    return (
        f"old data volumes may go by playbooks/remove_volume.yml: {told}; or playbooks/reclaim_disk.yml",
        f"volumes de dados antigos podem sair com playbooks/remove_volume.yml: {told}; ou playbooks/reclaim_disk.yml",
    )
