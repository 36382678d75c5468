# SPDX-License-Identifier: GPL-3.0-or-later
"""The WAL that a lost server had not archived yet, carried from its volume, which is only read.

A segment file in `pg_wal` may be a recycled one whose name lies ahead of its content, so a file counts only when the
address in its first page header is the one that its name says.
"""

from __future__ import annotations

import filecmp
import os
import re
import shutil
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from .errors import WhatsAgentError
from .files import sync_directory
from .pgbackrest import WAL_SEGMENT_BYTES, lsn_text, lsn_value, segment_start

if TYPE_CHECKING:
    from collections.abc import Collection

_SEGMENT_FILE = re.compile(r"[0-9A-F]{24}")
_HISTORY_FILE = re.compile(r"[0-9A-F]{8}\.history")
_PAGE_HEADER = struct.Struct("<HHIQ")  # magic, info, timeline, page address
# How pg_waldump ends: it names the last record that it could read whole, and then what is wrong behind it. Where exactly that
# record ends it does not always say (the next one may have been written in part), so what counts is that it was replayed.
_LAST_RECORD = re.compile(r"error in WAL record at (?P<start>[0-9A-F]+/[0-9A-F]+): ")
# It got through a whole segment and needs the next one, which is not there.
_NEXT_IS_GONE = re.compile(r"could not find file \"(?P<segment>[0-9A-F]{24})\"")
_PAGE_BYTES = 8192


@dataclass(frozen=True)
class Tail:
    """The files of a volume's `pg_wal` that the archive lacks: segment and history file names, and the segments' bytes."""

    segments: tuple[str, ...]
    histories: tuple[str, ...]

    @property
    def size(self) -> int:
        """Return the bytes to copy."""
        return len(self.segments) * WAL_SEGMENT_BYTES


def parse_wal_end(output: str) -> str | None:
    """Return the LSN that replay must have reached when the last whole record was replayed; None when that is unknown."""
    match = _LAST_RECORD.search(output)
    return lsn_text(lsn_value(match["start"]) + 1) if match else None


def walked_to(exit_code: int, output: str, segments: Collection[str]) -> str | None:
    """Return the LSN that replay must reach, from how a walk through the WAL ended; `segments` are what was there to walk.

    A walk that ends at a missing segment came through the one before it, if that is there: a walk that began nowhere misses one as
    well. Of one that failed otherwise, what the segments themselves prove counts: one that another of its timeline follows was
    written to its end. None where there was nothing to walk.
    """
    end = parse_wal_end(output)
    if end is not None or exit_code == 0:
        return end
    gone = _NEXT_IS_GONE.search(output)
    if gone is not None:
        before = max(0, segment_start(gone["segment"]) - WAL_SEGMENT_BYTES)
        if any(segment_start(name) == before for name in segments):
            return lsn_text(before + 1)
    newest = max((name[:8] for name in segments), default="")
    own = sorted(name for name in segments if name[:8] == newest)
    return lsn_text(segment_start(own[-2]) + 1) if len(own) > 1 else None


def higher(one: str | None, other: str | None) -> str | None:
    """Return the later of two LSNs, of which either may be unknown."""
    return max((lsn for lsn in (one, other) if lsn is not None), key=lsn_value, default=None)


def pages_held(path: Path, name: str) -> int:
    """Return how many pages, from the first on, a file holds of the segment `name`; behind them it is recycled, zeroed, cut off."""
    address, pages = segment_start(name), 0
    with path.open("rb") as stream:
        while True:
            page = stream.read(_PAGE_BYTES)
            if len(page) < _PAGE_BYTES:
                return pages
            magic, _info, _timeline, found = _PAGE_HEADER.unpack_from(page)
            if magic == 0 or found != address + pages * _PAGE_BYTES:
                return pages
            pages += 1


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


def unarchived(data_dir: Path, archived: Collection[str] | None = None, since: str = "") -> Tail:
    """Find what `archive_status` does not call done. Reads only.

    With `archived`, what the repository holds, also what was archived and is not there any more, from the segment `since` on: a
    segment lost in the archive may still lie on the volume.
    """
    wal = data_dir / "pg_wal"
    status = wal / "archive_status"
    if not wal.is_dir():
        return Tail((), ())
    done = {entry.name.removesuffix(".done") for entry in status.glob("*.done")} if status.is_dir() else set()

    def lacking(name: str) -> bool:
        return archived is not None and name not in archived and name[8:] >= since[8:]

    files = [entry.name for entry in wal.iterdir() if entry.is_file()]
    names = sorted(name for name in files if name not in done or (_SEGMENT_FILE.fullmatch(name) and lacking(name)))
    return Tail(
        segments=tuple(n for n in names if _SEGMENT_FILE.fullmatch(n) and holds_its_name(wal / n)),
        histories=tuple(n for n in names if _HISTORY_FILE.fullmatch(n)),
    )


def copy_tail(tail: Tail, source: Path, target: Path, owner: tuple[int, int]) -> int:
    """Copy the tail into a restored data directory; return the files copied. A rerun copies only what is missing or other."""
    wal = target / "pg_wal"
    copied = 0
    for name in (*tail.histories, *tail.segments):
        destination = wal / name
        origin = source / "pg_wal" / name
        if destination.exists() and filecmp.cmp(origin, destination, shallow=False):
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
                f"cannot carry the WAL file {name} over: {error.strerror}",
                pt=f"não é possível aproveitar o arquivo de WAL {name}: {error.strerror}",
                path=str(origin),
            ) from error
        copied += 1
    sync_directory(wal)
    return copied


def first_of_tail(segments: tuple[str, ...]) -> tuple[str, int] | None:
    """Return (LSN, timeline) of the oldest segment on the newest timeline, or None where there is none."""
    if not segments:
        return None
    timeline = max(name[:8] for name in segments)
    first = min(name for name in segments if name.startswith(timeline))
    return lsn_text(segment_start(first)), int(timeline, 16)


# Walks a volume's WAL from its last checkpoint; from the given LSN and timeline where its control file is missing or damaged
# (that pg_controldata only warns about, and what it says then would send the search anywhere).
_WALK = """
control=$(pg_controldata --pgdata="$1" 2>&1) || control=
case "$control" in *WARNING:* | *warning:*) control= ;; esac
if [ -n "$control" ]; then
  start=$(printf '%s\\n' "$control" | sed -n "s/^Latest checkpoint's REDO location: *//p")
  timeline=$(printf '%s\\n' "$control" | sed -n "s/^Latest checkpoint's TimeLineID: *//p")
else
  start=$2
  timeline=$3
fi
if [ -n "$start" ]; then
  pg_waldump --quiet --path="$1/pg_wal" --start="$start" --timeline="$timeline"
fi
"""


def walk_argv(data_dir: str, tail: tuple[str, ...]) -> list[str]:
    """Return the command that walks a volume's WAL to its end, from its last checkpoint, else from its tail's beginning."""
    start = first_of_tail(tail)
    return ["sh", "-c", _WALK, "sh", data_dir, start[0] if start else "", str(start[1]) if start else ""]


def waldump_argv(wal_dir: str, start: str, timeline: int) -> list[str]:
    """Return the command that walks the WAL from an LSN and fails where it ends."""
    return ["pg_waldump", "--quiet", f"--path={wal_dir}", f"--start={start}", f"--timeline={timeline}"]


def newest_before(hole: str, segments: Collection[str]) -> str | None:
    """Return the last segment before a hole, on the hole's timeline: replay must come that far, and can come no further."""
    return max((name for name in segments if name[:8] == hole[:8] and name < hole), default=None)


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
