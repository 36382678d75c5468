# SPDX-License-Identifier: GPL-3.0-or-later
"""The WAL receiver beside the database: what it has received, for a restore whose old volume is gone, or is not whole.

It writes each record as it is committed, so nothing is missing between the last archived segment and the loss (with
`stack_wal_receiver: sync` not even the last commit). It is optional; without it all of this finds nothing.
"""

from __future__ import annotations

import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from .errors import WhatsAgentError
from .files import sync_directory
from .postgres_wal import holds_its_name, pages_held

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .docker_host import DockerHost
    from .postgres_host import DatabasePlace

SERVICE = "wal_receiver"
SLOT = "whats_agent_receiver"  # as the image's entry point names it
CURRENT = "current"
PARTIAL = ".partial"  # the segment being written
_SEGMENT = re.compile(r"[0-9A-F]{24}(?:\.partial)?")
_HISTORY = re.compile(r"[0-9A-F]{8}\.history")


@dataclass(frozen=True)
class Received:
    """What a restore takes from the receiver: file names there, by the names they get in `pg_wal`."""

    files: dict[str, str]

    @property
    def segments(self) -> list[str]:
        """Return the segments' names, oldest first."""
        return sorted(name for name in self.files if not name.endswith(".history"))


def mode_of(compose_file: str) -> str:
    """Return how the stack's compose file has a receiver follow the server: `async`, `sync`, or `off` without one."""
    found = re.search(r"^ +command: \[receive, (a?sync)\]$", compose_file, re.MULTILINE)
    return found[1] if found else "off"


def receiver_dir(place: DatabasePlace, docker: DockerHost) -> Path | None:
    """Return where the receiver writes on the host, or None without one."""
    volume = docker.volume(f"{place.project}_{SERVICE}")
    folder = Path(volume.mountpoint) / CURRENT if volume is not None else None
    return folder if folder is not None and folder.is_dir() else None


def received(folder: Path, archived: Iterable[str], since: str = "") -> Received:
    """Choose what the archive lacks, from the segment `since` on; a whole segment goes before its partial one. Reads only."""
    have = set(archived)
    files: dict[str, str] = {}
    for name in sorted(entry.name for entry in folder.iterdir() if entry.is_file()):
        if _HISTORY.fullmatch(name):
            files[name] = name
        elif _SEGMENT.fullmatch(name):
            target = name.removesuffix(PARTIAL)
            wanted = target not in have and target not in files and target[8:] >= since[8:]
            if wanted and holds_its_name(folder / name, target):
                files[target] = name
    return Received(files)


def copy(found: Received, folder: Path, data_dir: Path, owner: tuple[int, int]) -> int:
    """Copy into a restored data directory what is not there, or not as far as here; return how many.

    The server writes a segment before the receiver gets it, so of two that hold as much the server's own stays.
    """
    copied = 0
    for target, name in found.files.items():
        destination = data_dir / "pg_wal" / target
        if destination.exists() and not _holds_more(folder / name, destination, target):
            continue
        temporary = destination.with_name(f".{target}.copying")
        try:
            with (folder / name).open("rb") as reader, temporary.open("wb") as writer:
                os.fchmod(writer.fileno(), 0o600)
                os.fchown(writer.fileno(), *owner)
                shutil.copyfileobj(reader, writer, 1 << 20)
                writer.flush()
                os.fsync(writer.fileno())
            temporary.replace(destination)
        except OSError as error:
            raise WhatsAgentError(
                f"cannot carry the received WAL {name} over: {error.strerror}",
                pt=f"não é possível aproveitar o WAL recebido {name}: {error.strerror}",
            ) from error
        copied += 1
    sync_directory(data_dir / "pg_wal")
    return copied


def _holds_more(received_file: Path, there: Path, name: str) -> bool:
    """Tell whether the receiver's file of a segment goes on where the other one, of a damaged volume, ends."""
    return _SEGMENT.fullmatch(name) is not None and pages_held(received_file, name) > pages_held(there, name)


def put_aside(folder: Path, name: str) -> bool:
    """Move what was received before a restore out of the receiver's way: on the new timeline it begins anew.

    Returns whether there was anything. The files stay until `prune`.
    """
    if not any(folder.iterdir()):
        return False
    aside = folder.parent / f"before_{name}"
    aside.mkdir(mode=0o700, exist_ok=True)
    status = folder.stat()
    os.chown(aside, status.st_uid, status.st_gid)
    for entry in sorted(folder.iterdir()):
        entry.replace(aside / entry.name)
    sync_directory(folder)
    return True


def prune(folder: Path, archived: Iterable[str]) -> int:
    """Remove what the repository holds as well, and what earlier restores put aside; return the files removed.

    Call it after a backup: what was put aside then lies before a backup of the new timeline.
    """
    have = set(archived)
    removed = 0
    for entry in folder.iterdir():
        if entry.is_file() and entry.name in have:
            entry.unlink()
            removed += 1
    for aside in folder.parent.glob("before_*"):
        removed += sum(1 for _ in aside.iterdir())
        shutil.rmtree(aside)
    return removed
