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


def test_an_empty_partial_is_left_where_it_is(folder: Path) -> None:
    (folder / f"{TWO}.partial").write_bytes(bytes(8192))
    assert receiver.received(folder, []).files == {}


def test_copying_never_replaces_what_is_there_and_never_touches_the_source(folder: Path, tmp_path: Path) -> None:
    segment(folder, TWO)
    segment(folder, f"{THREE}.partial")
    data = tmp_path / "data"
    (data / "pg_wal").mkdir(parents=True)
    (data / "pg_wal" / TWO).write_text("from the old volume")
    before = {entry.name: entry.read_bytes() for entry in folder.iterdir()}
    assert receiver.copy(receiver.received(folder, []), folder, data, OWNER) == 1
    assert (data / "pg_wal" / TWO).read_text() == "from the old volume"
    assert (data / "pg_wal" / THREE).read_bytes() == before[f"{THREE}.partial"]
    assert {entry.name: entry.read_bytes() for entry in folder.iterdir()} == before


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
