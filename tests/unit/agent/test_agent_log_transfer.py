# SPDX-License-Identifier: GPL-3.0-or-later
"""Export, import and pruning of the message log."""

import io
from pathlib import Path

import pytest

from whats_agent import clock
from whats_agent.errors import MessageLogError
from whats_agent.message_log import Kind, MessageLog
from whats_agent.message_log.transfer import ID_GAP, export, prune, restore

BODIES = [b"one", b"", bytes(range(256)), "três".encode()]
DAY = 86_400_000_000


def log_with(directory: Path, *bodies: bytes) -> MessageLog:
    """A log holding ``bodies``."""
    directory.mkdir()
    log = MessageLog(directory)
    for body in bodies:
        log.append(Kind.WEBHOOK, body)
    return log


def exported(log: MessageLog, after: int = 0) -> bytes:
    """An export as bytes."""
    out = io.BytesIO()
    export(log, after, out)
    return out.getvalue()


def test_an_empty_log_becomes_the_exported_one(tmp_path: Path) -> None:
    source = log_with(tmp_path / "source", *BODIES)
    target = log_with(tmp_path / "target")
    done = restore(target, io.BytesIO(exported(source)))
    assert done.records == 4
    assert target.read_after(0) == source.read_after(0)
    assert target.identity() == source.identity()
    assert target.append(Kind.WEBHOOK, b"new") == 4 + ID_GAP + 1, "ids lost with the old log must not be given again"


def test_a_log_already_in_use_keeps_its_records_and_its_identity(tmp_path: Path) -> None:
    source = log_with(tmp_path / "source", *BODIES)
    target = log_with(tmp_path / "target", b"new")
    identity = target.identity()
    restore(target, io.BytesIO(exported(source)))
    assert [record.body for record in target.read_after(0)] == [b"new", *BODIES]
    assert target.identity() == identity


def test_an_export_can_start_after_a_record(tmp_path: Path) -> None:
    source = log_with(tmp_path / "source", *BODIES)
    target = log_with(tmp_path / "target")
    restore(target, io.BytesIO(exported(source, after=2)))
    assert [record.id for record in target.read_after(0)] == [3, 4]


@pytest.mark.parametrize("damage", ["cut", "flipped", "another file", "empty", "no footer", "wrong count"])
def test_a_damaged_export_changes_nothing(tmp_path: Path, damage: str) -> None:
    data = exported(log_with(tmp_path / "source", *BODIES))
    lines = data.splitlines(keepends=True)
    damaged = {
        "cut": data[: len(data) // 2],
        "flipped": data.replace(b'"kind":"webhook"', b'"kind":"webhool"', 1),
        "another file": b"PRAGMA foreign_keys=OFF;\n",
        "empty": b"",
        "no footer": b"".join(lines[:-1]),
        "wrong count": b"".join(lines[:2] + lines[3:]),
    }[damage]
    target = log_with(tmp_path / "target")
    with pytest.raises(MessageLogError):
        restore(target, io.BytesIO(damaged))
    assert target.status()["records"] == 0
    assert target.append(Kind.WEBHOOK, b"x") == 1


def test_pruning_keeps_what_is_young_or_not_yet_backed_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = log_with(tmp_path / "log")
    now = clock.now_microseconds()
    for age in (20, 12, 9, 7, 0):
        monkeypatch.setattr(clock, "now_microseconds", lambda age=age: now - age * DAY)
        log.append(Kind.WEBHOOK, str(age).encode())
    monkeypatch.undo()
    assert prune(log, 2, 8) == 2
    assert prune(log, 5, 8) == 1
    assert [record.body for record in log.read_after(0)] == [b"7", b"0"]
    assert log.append(Kind.WEBHOOK, b"new") == 6
    with pytest.raises(MessageLogError, match="at least 8 days"):
        prune(log, 5, 7.9)
