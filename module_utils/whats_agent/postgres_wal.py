# SPDX-License-Identifier: GPL-3.0-or-later
"""The WAL that a lost server had not archived yet, carried from its volume, which is only read.

A segment file in `pg_wal` may be a recycled one whose name lies ahead of its content, so a file counts only when the
address in its first page header is the one that its name says.
"""

from __future__ import annotations

import os
import re
import shutil
import struct
from dataclasses import dataclass
from pathlib import Path

from .errors import WhatsAgentError
from .files import sync_directory
from .pgbackrest import WAL_SEGMENT_BYTES, lsn_text, segment_start

_SEGMENT_FILE = re.compile(r"[0-9A-F]{24}")
_HISTORY_FILE = re.compile(r"[0-9A-F]{8}\.history")
_PAGE_HEADER = struct.Struct("<HHIQ")  # magic, info, timeline, page address
# How pg_waldump says that the WAL goes no further: inside a segment, at a page that belongs elsewhere, at a missing file.
_ENDS_OF_WAL = (
    re.compile(r"error in WAL record at [0-9A-F/]+: .* LSN (?P<end>[0-9A-F]+/[0-9A-F]+), offset"),
    re.compile(r"error in WAL record at [0-9A-F/]+: .* at (?P<end>[0-9A-F]+/[0-9A-F]+)"),
)
_MISSING_FILE = re.compile(r"could not (?:find|open) file \"(?P<name>[0-9A-F]{24})\"")
_CONTROL = {
    "redo": re.compile(r"^Latest checkpoint's REDO location:\s+(\S+)$", re.MULTILINE),
    "timeline": re.compile(r"^Latest checkpoint's TimeLineID:\s+(\d+)$", re.MULTILINE),
    "system": re.compile(r"^Database system identifier:\s+(\d+)$", re.MULTILINE),
    "state": re.compile(r"^Database cluster state:\s+(.+)$", re.MULTILINE),
}


@dataclass(frozen=True)
class ControlFile:
    """What `pg_controldata` says of a cluster that is not running."""

    redo: str
    timeline: int
    system: int
    state: str


@dataclass(frozen=True)
class Tail:
    """The unarchived files of a volume's `pg_wal`: segment and history file names, and the segments' bytes."""

    segments: tuple[str, ...]
    histories: tuple[str, ...]

    @property
    def size(self) -> int:
        """Return the bytes to copy."""
        return len(self.segments) * WAL_SEGMENT_BYTES


def parse_control(output: str) -> ControlFile:
    """Read `pg_controldata`'s output (in the C locale)."""
    found = {name: pattern.search(output) for name, pattern in _CONTROL.items()}
    if not all(found.values()):
        raise WhatsAgentError("pg_controldata's output has another shape", stdout=output[:400])
    values = {name: match[1] for name, match in found.items() if match}
    return ControlFile(values["redo"], int(values["timeline"]), int(values["system"]), values["state"].strip())


def parse_wal_end(output: str) -> str | None:
    """Return where `pg_waldump` found no further record, or None when it did not say."""
    for pattern in _ENDS_OF_WAL:
        match = pattern.search(output)
        if match is not None:
            return match["end"]
    match = _MISSING_FILE.search(output)
    return lsn_text(segment_start(match["name"])) if match else None


def holds_its_name(path: Path, name: str = "") -> bool:
    """Tell whether a segment file's first page belongs where its name (or the given one) says."""
    name = name or path.name
    with path.open("rb") as stream:
        header = stream.read(_PAGE_HEADER.size)
    if len(header) < _PAGE_HEADER.size:
        return False
    magic, _info, timeline, address = _PAGE_HEADER.unpack(header)
    # A segment that a promotion began keeps, in its first page, the timeline it continues: no higher than its name's.
    fits: bool = address == segment_start(name)
    return fits and magic != 0 and 0 < timeline <= int(name[:8], 16)


def segments_in(data_dir: Path) -> list[str]:
    """Return the segments of a data directory whose content is what their names say, archived or not. Reads only."""
    files = [entry for entry in (data_dir / "pg_wal").iterdir() if _SEGMENT_FILE.fullmatch(entry.name)]
    return sorted(entry.name for entry in files if entry.is_file() and holds_its_name(entry))


def unarchived(data_dir: Path) -> Tail:
    """Find what `archive_status` does not call done. Reads only."""
    wal = data_dir / "pg_wal"
    status = wal / "archive_status"
    if not wal.is_dir():
        return Tail((), ())
    done = {entry.name.removesuffix(".done") for entry in status.glob("*.done")} if status.is_dir() else set()
    names = sorted(entry.name for entry in wal.iterdir() if entry.is_file() and entry.name not in done)
    return Tail(
        segments=tuple(n for n in names if _SEGMENT_FILE.fullmatch(n) and holds_its_name(wal / n)),
        histories=tuple(n for n in names if _HISTORY_FILE.fullmatch(n)),
    )


def copy_tail(tail: Tail, source: Path, target: Path, owner: tuple[int, int]) -> int:
    """Copy the tail into a restored data directory; return the files copied. A rerun copies only what is missing."""
    wal = target / "pg_wal"
    copied = 0
    for name in (*tail.histories, *tail.segments):
        destination = wal / name
        origin = source / "pg_wal" / name
        if destination.exists() and destination.stat().st_size == origin.stat().st_size:
            continue
        temporary = wal / f".{name}.copying"
        try:
            with origin.open("rb") as reader, temporary.open("wb") as writer:
                os.fchmod(writer.fileno(), 0o600)
                os.fchown(writer.fileno(), *owner)
                shutil.copyfileobj(reader, writer, 1 << 20)
                writer.flush()
                os.fsync(writer.fileno())
            temporary.replace(destination)
        except OSError as error:
            raise WhatsAgentError(
                f"cannot carry the WAL file {name} over: {error.strerror}", path=str(origin)
            ) from error
        copied += 1
    sync_directory(wal)
    return copied


def walk_from(exit_code: int, stdout: str, stderr: str, tail: Tail) -> tuple[str, int] | None:
    """Return (LSN, timeline) to walk the WAL from: the last checkpoint, else the tail's beginning, else None.

    The arguments are `pg_controldata`'s answer; a damaged control file it only warns about, and what it says then would
    send the search anywhere.
    """
    if exit_code == 0 and "WARNING" not in stdout + stderr:
        found = parse_control(stdout)
        return found.redo, found.timeline
    if not tail.segments:
        return None
    timeline = max(name[:8] for name in tail.segments)
    first = min(name for name in tail.segments if name.startswith(timeline))
    return lsn_text(segment_start(first)), int(timeline, 16)


def waldump_argv(wal_dir: str, start: str, timeline: int) -> list[str]:
    """Return the command that walks the WAL from an LSN and fails where it ends."""
    return ["pg_waldump", "--quiet", f"--path={wal_dir}", f"--start={start}", f"--timeline={timeline}"]


def reached(replayed: int, expected: int | None, newest_archived: str | None) -> bool:
    """Tell whether replay came as far as it must.

    To the very end of the old volume's WAL where that is known; else into the newest archived segment, whose last
    record may end anywhere in it.
    """
    if expected is not None:
        return replayed >= expected
    if newest_archived is not None:
        return replayed > segment_start(newest_archived)
    return True
