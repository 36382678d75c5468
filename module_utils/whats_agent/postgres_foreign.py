# SPDX-License-Identifier: GPL-3.0-or-later
"""The archive after the database ran on another volume for a while, and is to go on on its own.

A copy goes on on the same timeline: what it archives has the names that the WAL of the own volume is going to have. Left there, it
would end each later restore in front of the own WAL, and the server would be refused when it archives that, or be told that it had.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from . import env_file, pgbackrest, postgres_repository
from .clock import SYSTEM_CLOCK
from .errors import WhatsAgentError
from .files import ensure_directory, sync_directory
from .postgres_host import DATA_DIR
from .postgres_wal import segments_in

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from .postgres_backrest import Backrest
    from .postgres_mend_sessions import Order

SPOOL_DIR = "/var/spool/pgbackrest"
LOCAL = 1  # the repository that lies on this host
ASIDE = "aside"  # beside `archive` and `backup`, where pgBackRest does not look
STOP_S = 60
_ARCHIVED = re.compile(r"(?P<stanza>\d+-(?P<number>\d+))/[0-9A-F]{16}/(?P<name>[0-9A-F]{24})-(?P<sum>[0-9a-f]{40})\b")


@dataclass(frozen=True)
class Archived:
    """A segment in a repository: its path below `archive/main`, its name, the SHA-1 of its content."""

    path: str
    name: str
    sum: str


def archived_in(listing: Iterable[str]) -> list[Archived]:
    """Pick the segments out of the paths below `archive/main`, those of the database's newest id."""
    found = [(match, path) for path in listing if (match := _ARCHIVED.match(path))]
    newest = max((int(match["number"]) for match, _path in found), default=0)
    return [Archived(path, match["name"], match["sum"]) for match, path in found if int(match["number"]) == newest]


def foreign(own: Mapping[str, str], archived: Iterable[Archived]) -> list[Archived]:
    """Return what is in the archive under the names of a volume's WAL, and is not of it.

    `own` is the SHA-1 of each segment that the volume has. What is archived and no longer there is its own, what is ahead of its
    newest segment on that one's timeline is not.
    """
    newest = max(own, default="")
    return [
        segment
        for segment in archived
        if segment.name[:8] == newest[:8]
        and (segment.name > newest or own.get(segment.name, segment.sum) != segment.sum)
    ]


def sums_of(data_dir: Path) -> dict[str, str]:
    """Return the SHA-1 of each segment of a stopped server's volume."""
    sums = {}
    for name in segments_in(data_dir):
        with (data_dir / "pg_wal" / name).open("rb") as stream:
            sums[name] = hashlib.file_digest(stream, "sha1").hexdigest()
    return sums


def mend_outdated(backrest: Backrest, order: Order) -> list[str]:
    """Put the container on the volume that `.env` names; what was archived from the other one meanwhile is moved aside."""
    place = backrest.place
    volume = backrest.docker.volume(env_file.read_env(place.env_path)["DB_VOLUME"])
    container = backrest.docker.container(place.project, place.service)
    if volume is None or container is None or container.mounts.get(DATA_DIR) == volume.name:
        return []
    if not order.write:
        return [f"put the container on the volume {volume.name}, what was archived from the other one aside"]
    spool = backrest.docker.volume(container.mounts.get(SPOOL_DIR, ""))
    backrest.docker.stop(container.id, grace=STOP_S)
    done = _clear_archive(backrest, Path(volume.mountpoint))
    if spool is not None:
        _forget_archived(Path(spool.mountpoint))
    backrest.compose.start(place.service)
    return [*done, f"put the container on the volume {volume.name}"]


def _clear_archive(backrest: Backrest, data_dir: Path) -> list[str]:
    """Move aside what is foreign in the local repository, take it out of the others, and distrust backups that need it.

    Out of another repository goes only what is kept aside here; what only that one has stays, and is told.
    """
    root = postgres_repository.repository_of(backrest.service.binds)
    if root is None:
        raise WhatsAgentError("the compose file mounts no backup repository into service postgres")
    own = sums_of(data_dir)
    stamp = SYSTEM_CLOCK.stamp()
    done: list[str] = []
    names: set[str] = set()
    for repo, listing in backrest.archives().items():
        found = foreign(own, archived_in(json.loads(listing)))
        names.update(segment.name for segment in found)
        gone = _take_out(backrest, root, repo, found, stamp)
        if gone:
            aside = f" into {root / ASIDE / stamp}" if repo == LOCAL else ""
            done.append(f"moved {len(gone)} WAL segments of the other volume out of repository {repo}{aside}")
        if len(gone) < len(found):
            left = ", ".join(segment.name for segment in found if segment not in gone)
            done.append(f"left in repository {repo}, since nothing else has it, WAL of the other volume: {left}")
    for backup in backrest.info().backups if names else ():
        if backup.wal_start in names:
            backrest.annotate(backup.label, backup.repo, pgbackrest.DISPROVEN, SYSTEM_CLOCK.rfc3339())
            done.append(f"marked the backup {backup.label}, which is of the other volume")
    return done


def _take_out(backrest: Backrest, root: Path, repo: int, found: list[Archived], stamp: str) -> list[Archived]:
    """Move segments aside here, or remove them from another repository where they are kept here; return which."""
    if repo == LOCAL:
        for segment in found:
            _move_aside(root, segment, stamp)
        return found
    kept = [segment for segment in found if any(root.glob(f"{ASIDE}/*/{segment.path}"))]
    for segment in kept:
        backrest.remove(f"archive/{pgbackrest.STANZA}/{segment.path}", repo)
    return kept


def _move_aside(root: Path, segment: Archived, stamp: str) -> None:
    target = root / ASIDE / stamp / segment.path
    ensure_directory(target.parent)
    (root / "archive" / pgbackrest.STANZA / segment.path).rename(target)
    sync_directory(target.parent)


def _forget_archived(spool: Path) -> None:
    """Have pgBackRest forget what it has archived but not yet told the server, and what it fetched ahead."""
    for folder in ("out", "in"):
        place = spool / "archive" / pgbackrest.STANZA / folder
        for entry in place.iterdir() if place.is_dir() else ():
            entry.unlink()
