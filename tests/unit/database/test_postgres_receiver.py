# SPDX-License-Identifier: GPL-3.0-or-later
"""What a restore takes from the WAL receiver, and what becomes of the rest."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import pytest
from ansible.module_utils.whats_agent import postgres_receiver as receiver
from ansible.module_utils.whats_agent.pgbackrest import segment_start

ONE, TWO, THREE = (f"00000001000000000000000{n}" for n in (1, 2, 3))
OWNER = (os.getuid(), os.getgid())


def segment(folder: Path, name: str, address: int | None = None) -> None:
    """Write a received file with the page header of its name."""
    where = segment_start(name.removesuffix(".partial")) if address is None else address
    folder.joinpath(name).write_bytes(struct.pack("<HHIQ", 0xD116, 2, 1, where) + bytes(8176))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return where the receiver writes."""
    made = tmp_path / "receiver" / "current"
    made.mkdir(parents=True)
    return made


def test_only_what_the_archive_lacks_is_taken_and_the_partial_one_under_its_name(folder: Path) -> None:
    segment(folder, ONE)
    segment(folder, TWO)
    segment(folder, f"{THREE}.partial")
    (folder / "00000002.history").touch()
    found = receiver.received(folder, [ONE])
    assert found.files == {"00000002.history": "00000002.history", TWO: TWO, THREE: f"{THREE}.partial"}
    assert found.segments == [TWO, THREE]


def test_a_whole_segment_goes_before_its_partial_one(folder: Path) -> None:
    segment(folder, TWO)
    segment(folder, f"{TWO}.partial")
    assert receiver.received(folder, []).files == {TWO: TWO}


def test_what_lies_before_the_backup_is_left_where_it_is(folder: Path) -> None:
    for name in (ONE, TWO, THREE):
        segment(folder, name)
    assert receiver.received(folder, [], TWO).segments == [TWO, THREE]


def test_an_empty_partial_is_left_where_it_is(folder: Path) -> None:
    (folder / f"{TWO}.partial").write_bytes(bytes(8192))
    assert receiver.received(folder, []).files == {}


def pages(name: str, count: int, *, then: bytes = b"") -> bytes:
    """Return a segment's first pages, and what follows them."""
    header = struct.Struct("<HHIQ")
    start = segment_start(name)
    written = [header.pack(0xD116, 2, 1, start + 8192 * n) + bytes(8176) for n in range(count)]
    return b"".join(written) + then


def restored(tmp_path: Path) -> Path:
    """Return a restored data directory."""
    data = tmp_path / "data"
    (data / "pg_wal").mkdir(parents=True)
    return data


RECYCLED = pages("000000010000000000000009", 1)


@pytest.mark.parametrize(
    ("own", "taken"),
    [
        pytest.param(pages(TWO, 3), False, id="as far"),
        pytest.param(pages(TWO, 4), False, id="further"),
        pytest.param(pages(TWO, 2), True, id="cut off"),
        pytest.param(pages(TWO, 2, then=bytes(8192)), True, id="zeroed"),
        pytest.param(pages(TWO, 2, then=RECYCLED), True, id="recycled"),
        pytest.param(b"", True, id="emptied"),
    ],
)
def test_a_segment_of_the_old_volume_gives_way_only_to_one_that_goes_further(
    folder: Path, tmp_path: Path, own: bytes, taken: bool
) -> None:
    (folder / f"{TWO}.partial").write_bytes(pages(TWO, 3, then=bytes(8192)))
    segment(folder, THREE)
    data = restored(tmp_path)
    (data / "pg_wal" / TWO).write_bytes(own)
    before = {entry.name: entry.read_bytes() for entry in folder.iterdir()}
    assert receiver.copy(receiver.received(folder, []), folder, data, OWNER) == 1 + taken
    assert (data / "pg_wal" / TWO).read_bytes() == (before[f"{TWO}.partial"] if taken else own)
    assert (data / "pg_wal" / THREE).read_bytes() == before[THREE]
    assert {entry.name: entry.read_bytes() for entry in folder.iterdir()} == before  # the source is never touched
    assert receiver.copy(receiver.received(folder, []), folder, data, OWNER) == 0


def test_a_history_that_is_there_stays(folder: Path, tmp_path: Path) -> None:
    (folder / "00000002.history").write_text("received")
    data = restored(tmp_path)
    (data / "pg_wal" / "00000002.history").write_text("of the old volume")
    assert receiver.copy(receiver.received(folder, []), folder, data, OWNER) == 0


def test_after_a_restore_the_old_timeline_is_put_aside_once(folder: Path) -> None:
    segment(folder, TWO)
    assert receiver.put_aside(folder, "r1")
    assert not list(folder.iterdir())
    assert (folder.parent / "before_r1" / TWO).exists()
    assert not receiver.put_aside(folder, "r1")


def test_after_a_backup_what_is_archived_or_put_aside_goes(folder: Path) -> None:
    segment(folder, ONE)
    segment(folder, TWO)
    receiver.put_aside(folder, "r1")
    segment(folder, TWO)
    segment(folder, f"{THREE}.partial")
    assert receiver.prune(folder, [ONE, TWO]) == 3
    assert [entry.name for entry in folder.iterdir()] == [f"{THREE}.partial"]
    assert not list(folder.parent.glob("before_*"))
