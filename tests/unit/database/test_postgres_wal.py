# SPDX-License-Identifier: GPL-3.0-or-later
"""Which WAL files of a lost volume are carried over, and where that WAL ends."""

from __future__ import annotations

import os
import struct
import subprocess
from pathlib import Path

import pytest
from ansible.module_utils.whats_agent import postgres_wal as wal
from ansible.module_utils.whats_agent.pgbackrest import segment_start

ONE, TWO, THREE = (f"00000001000000000000000{n}" for n in (1, 2, 3))
OWNER = (os.getuid(), os.getgid())


def segment(folder: Path, name: str, *, address: int | None = None, magic: int = 0xD116, timeline: int = 1) -> None:
    """Write a segment file with the page header that PostgreSQL would write."""
    where = segment_start(name) if address is None else address
    folder.joinpath(name).write_bytes(struct.pack("<HHIQ", magic, 2, timeline, where) + bytes(8192 - 16))


@pytest.fixture
def volume(tmp_path: Path) -> Path:
    """Return a data directory with an empty pg_wal."""
    (tmp_path / "old" / "pg_wal" / "archive_status").mkdir(parents=True)
    return tmp_path / "old"


def test_unarchived_segments_are_those_without_done(volume: Path) -> None:
    folder = volume / "pg_wal"
    for name in (ONE, TWO):
        segment(folder, name)
    (folder / "archive_status" / f"{ONE}.done").touch()
    (folder / "archive_status" / f"{TWO}.ready").touch()
    (folder / "00000002.history").write_text("1\t0/2000000\tno recovery target specified\n")
    assert wal.unarchived(volume) == wal.Tail((TWO,), ("00000002.history",))


def test_what_the_archive_has_lost_is_taken_from_the_volume(volume: Path) -> None:
    for name in (ONE, TWO, THREE):
        segment(volume / "pg_wal", name)
        (volume / "pg_wal" / "archive_status" / f"{name}.done").touch()
    assert wal.unarchived(volume).segments == ()
    assert wal.unarchived(volume, {ONE, THREE}, ONE).segments == (TWO,)
    assert wal.unarchived(volume, {THREE}, TWO).segments == (TWO,)  # what lies before the backup is not needed


def test_a_segment_that_was_written_on_meanwhile_is_copied_again(volume: Path, tmp_path: Path) -> None:
    segment(volume / "pg_wal", ONE)
    target = tmp_path / "new"
    (target / "pg_wal").mkdir(parents=True)
    assert wal.copy_tail(wal.unarchived(volume), volume, target, OWNER) == 1
    with (volume / "pg_wal" / ONE).open("r+b") as stream:
        stream.seek(100)
        stream.write(b"more")
    assert wal.copy_tail(wal.unarchived(volume), volume, target, OWNER) == 1


@pytest.mark.parametrize(
    "header",
    [
        {"address": segment_start(ONE)},  # recycled: renamed ahead, content from before
        {"magic": 0},  # preallocated, all zero
        {"timeline": 2},  # of a timeline after the one in its name
    ],
)
def test_recycled_and_foreign_segments_stay_behind(volume: Path, header: dict[str, int]) -> None:
    segment(volume / "pg_wal", THREE, **header)
    assert wal.unarchived(volume).segments == ()


def test_an_empty_file_is_no_segment(volume: Path) -> None:
    (volume / "pg_wal" / ONE).touch()
    assert wal.unarchived(volume).segments == ()


def test_a_volume_without_wal_has_no_tail(tmp_path: Path) -> None:
    assert wal.unarchived(tmp_path) == wal.Tail((), ())


def test_copying_again_copies_only_what_is_missing_and_never_touches_the_source(volume: Path, tmp_path: Path) -> None:
    for name in (ONE, TWO):
        segment(volume / "pg_wal", name)
    before = {p: (p.stat().st_mtime_ns, p.read_bytes()) for p in (volume / "pg_wal").iterdir() if p.is_file()}
    target = tmp_path / "new"
    (target / "pg_wal").mkdir(parents=True)
    tail = wal.unarchived(volume)
    assert wal.copy_tail(tail, volume, target, OWNER) == 2
    (target / "pg_wal" / TWO).unlink()
    assert wal.copy_tail(tail, volume, target, OWNER) == 1
    assert (target / "pg_wal" / TWO).read_bytes() == (volume / "pg_wal" / TWO).read_bytes()
    assert {p: (p.stat().st_mtime_ns, p.read_bytes()) for p in (volume / "pg_wal").iterdir() if p.is_file()} == before
    assert not list((target / "pg_wal").glob(".*"))


def test_without_a_control_file_the_walk_begins_with_the_newest_timelines_oldest_segment() -> None:
    segments = (ONE, TWO, "000000020000000000000003", "000000020000000000000004")
    assert wal.first_of_tail(segments) == ("0/3000000", 2)
    assert wal.first_of_tail(()) is None
    assert wal.walk_argv("/data", segments)[3:] == ["sh", "/data", "0/3000000", "2"]
    assert wal.walk_argv("/data", ())[3:] == ["sh", "/data", "", ""]


CONTROL = """\
Database cluster state:               in production
Latest checkpoint's REDO location:    0/7000060
Latest checkpoint's TimeLineID:       1
"""


@pytest.mark.parametrize(
    ("controldata", "walked"),
    [
        (f"cat <<'EOF'\n{CONTROL}EOF", "--start=0/7000060 --timeline=1"),
        (f"echo 'pg_controldata: WARNING: CRC' >&2; cat <<'EOF'\n{CONTROL}EOF", "--start=0/3000000 --timeline=2"),
        ("echo 'could not open file' >&2; exit 1", "--start=0/3000000 --timeline=2"),
    ],
)
def test_a_damaged_control_file_is_not_believed(tmp_path: Path, controldata: str, walked: str) -> None:
    for name, text in (("pg_controldata", controldata), ("pg_waldump", 'echo "$@"')):
        tool = tmp_path / name
        tool.write_text(f"#!/bin/sh\n{text}\n")
        tool.chmod(0o755)
    argv = wal.walk_argv("/data", ("000000020000000000000003",))
    path = f"{tmp_path}:{os.environ['PATH']}"
    done = subprocess.run(argv, capture_output=True, text=True, check=False, env={"PATH": path})
    assert done.stdout.strip() == f"--quiet --path=/data/pg_wal {walked}"


@pytest.mark.parametrize(
    ("said", "end"),
    [
        # The last record ends where the next would begin.
        (
            "error in WAL record at 0/900BA38: invalid record length at 0/900BA60: expected at least 24, got 0",
            "0/900BA39",
        ),
        # It was a switch to the next segment, which is a recycled one.
        (
            (
                "error in WAL record at 0/90198C0: unexpected pageaddr 0/5000000 in WAL segment 00000001000000000000000A, "
                "LSN 0/A000000, offset 0"
            ),
            "0/90198C1",
        ),
        # Behind it another was begun and crosses into a page that never came: the page is no end of any record.
        (
            (
                "error in WAL record at 0/C10DD40: invalid magic number 0000 in WAL segment 00000001000000000000000C, "
                "LSN 0/C10E000, offset 1105920"
            ),
            "0/C10DD41",
        ),
        ('could not find file "00000001000000000000000C": No such file or directory', None),
        ("could not find a valid record after 0/7000028", None),
    ],
)
def test_replay_must_have_passed_the_last_whole_record(said: str, end: str | None) -> None:
    assert wal.parse_wal_end(f"pg_waldump: error: {said}\n") == end


@pytest.mark.parametrize(
    ("exit_code", "said", "end"),
    [
        pytest.param(0, "", None, id="nothing to walk"),
        pytest.param(
            1, "error in WAL record at 0/900BA38: invalid record length at 0/900BA60", "0/900BA39", id="the end"
        ),
        pytest.param(
            1, 'could not find file "000000020000000000000005": No such file', "0/4000001", id="into the last one"
        ),
        pytest.param(
            1, 'could not find file "DBBEFA40DBBEFA4000000099": No such file', "0/3000001", id="begun where no WAL is"
        ),
        pytest.param(1, "could not find a valid record after 0/7000028", "0/3000001", id="what the segments prove"),
        pytest.param(137, "", "0/3000001", id="killed"),
    ],
)
def test_a_walk_that_failed_still_says_how_far_replay_must_come(exit_code: int, said: str, end: str | None) -> None:
    there = [f"0000000{timeline}000000000000000{n}" for timeline, n in ((1, 2), (1, 3), (2, 3), (2, 4))]
    assert wal.walked_to(exit_code, f"pg_waldump: error: {said}\n", there) == end


def test_a_failed_walk_over_one_segment_says_nothing() -> None:
    assert wal.walked_to(1, "pg_waldump: error: could not read", [TWO]) is None


@pytest.mark.parametrize(
    ("one", "other", "later"),
    [
        ("0/A", "0/9", "0/A"),
        ("0/FFFFFFFF", "1/0", "1/0"),
        (None, "0/9", "0/9"),
        ("0/9", None, "0/9"),
        (None, None, None),
    ],
)
def test_the_later_of_two_ends_counts(one: str | None, other: str | None, later: str | None) -> None:
    assert wal.higher(one, other) == later


@pytest.mark.parametrize(
    ("replayed", "expected", "newest", "verdict"),
    [
        (100, 100, None, True),
        (99, 100, None, False),
        (segment_start(TWO) + 1, None, TWO, True),
        (segment_start(TWO), None, TWO, False),
        (0, None, None, True),
    ],
)
def test_replay_must_reach_the_known_end_or_the_newest_segment(
    replayed: int, expected: int | None, newest: str | None, verdict: bool
) -> None:
    assert wal.reached(replayed, expected, newest) is verdict


def test_replay_must_come_as_far_as_the_last_segment_before_a_hole() -> None:
    names = [
        "000000010000000000000003",
        "000000010000000000000004",
        "000000010000000000000006",
        "000000020000000000000004",
    ]
    assert wal.newest_before("000000010000000000000005", names) == "000000010000000000000004"
    assert wal.newest_before("000000010000000000000003", names) is None


# Of PostgreSQL 17.12, of a control file of noise; PostgreSQL 16 and before say WARNING.
@pytest.mark.parametrize(
    "warning",
    [
        "pg_controldata: warning: calculated CRC checksum does not match value stored in control file",
        "WARNING: Calculated CRC checksum does not match value stored in file.",
    ],
)
def test_what_a_damaged_control_file_says_is_no_place_to_begin_a_walk(tmp_path: Path, warning: str) -> None:
    told = f"{warning}\nLatest checkpoint's REDO location:    DAD69EB5/E2758DEF\nLatest checkpoint's TimeLineID:       99\n"
    for name, body in (("pg_controldata", f"cat <<'END'\n{told}END\n"), ("pg_waldump", 'echo "$@"\n')):
        program = tmp_path / name
        program.write_text(f"#!/bin/sh\n{body}")
        program.chmod(0o755)
    argv = wal.walk_argv("/data", (f"00000001{'0' * 14}05",))
    path = f"{tmp_path}:{os.environ['PATH']}"
    done = subprocess.run(argv, env={"PATH": path}, capture_output=True, text=True, check=True)
    assert done.stdout.split()[-2:] == ["--start=0/5000000", "--timeline=1"]
