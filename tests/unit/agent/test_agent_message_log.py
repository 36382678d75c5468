# SPDX-License-Identifier: GPL-3.0-or-later
"""The message log: what was confirmed is there, whatever happened to the writers."""

import os
import resource
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from whats_agent.errors import MessageLogError
from whats_agent.message_log import Kind, MessageLog

WRITER = """
import sys, pathlib
from whats_agent.message_log import Kind, MessageLog
log = MessageLog(pathlib.Path(sys.argv[1]))
for number in range(int(sys.argv[3])):
    body = f"{sys.argv[2]}-{number}"
    print(log.append(Kind.WEBHOOK, body.encode()), body, flush=True)
"""


def writer(directory: Path, name: str, count: int) -> "subprocess.Popen[str]":
    """A process that appends ``count`` records and prints id and body of each that was confirmed."""
    command = [sys.executable, "-c", WRITER, str(directory), name, str(count)]
    agent = str(Path(__file__).parents[3] / "agent")
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": agent})


def bodies(directory: Path) -> dict[int, bytes]:
    """Every record by its id, all of them intact."""
    records = MessageLog(directory).read_after(0, limit=100_000)
    assert all(record.intact for record in records)
    return {record.id: record.body for record in records}


def test_a_record_comes_back_as_it_went_in(tmp_path: Path) -> None:
    log = MessageLog(tmp_path)
    body = bytes(range(256)) * 10
    before = time.time_ns() // 1000
    assert log.append(Kind.WEBHOOK, body) == 1
    assert log.append(Kind.SEND_ATTEMPT, b"") == 2
    first, second = log.read_after(0)
    assert (first.id, first.kind, first.body, first.intact) == (1, "webhook", body, True)
    assert before <= first.at <= time.time_ns() // 1000
    assert (second.kind, second.body, second.intact) == ("send_attempt", b"", True)
    assert [record.id for record in log.read_after(1)] == [2]
    assert log.status()["last_id"] == log.status()["records"] == 2
    assert log.status()["first_id"] == 1


def test_threads_share_commits_and_each_gets_its_own_id(tmp_path: Path) -> None:
    log = MessageLog(tmp_path)
    confirmed: dict[int, bytes] = {}
    mutex = threading.Lock()

    def work(name: int) -> None:
        for number in range(50):
            body = f"{name}-{number}".encode()
            record_id = log.append(Kind.WEBHOOK, body)
            with mutex:
                assert record_id not in confirmed
                confirmed[record_id] = body

    threads = [threading.Thread(target=work, args=(name,)) for name in range(32)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert bodies(tmp_path) == confirmed
    assert len(confirmed) == log.appended == 32 * 50
    assert log.batches < log.appended / 3, "commits were not grouped"


def test_each_writer_sees_its_own_records_in_order(tmp_path: Path) -> None:
    """Several processes at once, from a log that does not exist yet."""
    writers = [writer(tmp_path, f"w{number}", 200) for number in range(3)]
    confirmed: dict[int, bytes] = {}
    for process in writers:
        output, _ = process.communicate(timeout=120)
        assert process.returncode == 0
        lines = [line.split() for line in output.splitlines()]
        assert [body for _, body in lines] == [f"{lines[0][1].split('-')[0]}-{number}" for number in range(200)]
        assert [int(record_id) for record_id, _ in lines] == sorted(int(record_id) for record_id, _ in lines)
        confirmed |= {int(record_id): body.encode() for record_id, body in lines}
    assert bodies(tmp_path) == confirmed


def test_kill_9_of_a_writer_loses_nothing_confirmed(tmp_path: Path) -> None:
    killed, survivor = writer(tmp_path, "killed", 100_000), writer(tmp_path, "survivor", 300)
    assert killed.stdout is not None
    confirmed: dict[int, bytes] = {}
    for _ in range(150):
        record_id, body = killed.stdout.readline().split()
        confirmed[int(record_id)] = body.encode()
    killed.send_signal(signal.SIGKILL)
    for line in killed.stdout.read().splitlines():
        if len(line.split()) == 2 and line.split()[1].startswith("killed-"):
            confirmed[int(line.split()[0])] = line.split()[1].encode()
    killed.wait()
    output, _ = survivor.communicate(timeout=120)
    confirmed |= {int(line.split()[0]): line.split()[1].encode() for line in output.splitlines()}
    found = bodies(tmp_path)
    assert {record_id: found.get(record_id) for record_id in confirmed} == confirmed
    assert len(found) - len(confirmed) <= 1, "at most the one record that was being confirmed may be there unannounced"
    assert MessageLog(tmp_path).append(Kind.WEBHOOK, b"after") == max(found) + 1


def test_full_disk_refuses_and_recovers_by_itself(tmp_path: Path) -> None:
    """RLIMIT_FSIZE stands in for the full disk: the same failed write, without a file system of our own."""
    log = MessageLog(tmp_path)
    log.append(Kind.WEBHOOK, b"before")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    old = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    wal = (tmp_path / "messages.sqlite3-wal").stat().st_size
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (wal + 4096, hard))
        with pytest.raises(MessageLogError, match="cannot be written"):
            log.append(Kind.WEBHOOK, b"x" * 100_000)
        assert log.last_failure is not None
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, old)
    assert log.append(Kind.WEBHOOK, b"after") == 2
    assert log.last_failure is None
    assert bodies(tmp_path) == {1: b"before", 2: b"after"}


def test_everyone_in_a_failed_batch_is_told(tmp_path: Path) -> None:
    log = MessageLog(tmp_path / "missing")
    failures: list[str] = []

    def work() -> None:
        try:
            log.append(Kind.WEBHOOK, b"x")
        except MessageLogError as error:
            failures.append(str(error))

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    assert len(failures) == 8
    (tmp_path / "missing").mkdir()
    assert log.append(Kind.WEBHOOK, b"x") == 1


def damage(directory: Path, record_id: int) -> None:
    """Change a stored body behind the checksum's back."""
    with sqlite3.connect(directory / "messages.sqlite3") as connection:
        connection.execute("update records set body = ? where id = ?", (b"torn", record_id))
    connection.close()


def test_torn_end_is_cut_and_its_id_not_given_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    log = MessageLog(tmp_path)
    for body in (b"one", b"two", b"three"):
        log.append(Kind.WEBHOOK, body)
    damage(tmp_path, 3)
    assert log.check_tail() == [3]
    assert "event=torn_record_cut" in caplog.text
    assert log.check_tail() == []
    assert log.append(Kind.WEBHOOK, b"four") == 4
    assert bodies(tmp_path) == {1: b"one", 2: b"two", 4: b"four"}


def test_damage_inside_is_marked_and_kept(tmp_path: Path) -> None:
    log = MessageLog(tmp_path)
    for body in (b"one", b"two", b"three"):
        log.append(Kind.WEBHOOK, body)
    damage(tmp_path, 2)
    assert log.check_tail() == []
    assert [record.intact for record in log.read_after(0)] == [True, False, True]


@pytest.mark.parametrize("kept", [10, 5_000, 12_000])
def test_half_written_commit_is_cut_and_reported(tmp_path: Path, kept: int, caplog: pytest.LogCaptureFixture) -> None:
    """What power loss leaves: the last frames of the WAL are there in part."""
    source = tmp_path / "source"
    source.mkdir()
    log = MessageLog(source)
    log.append(Kind.WEBHOOK, b"kept")
    whole = (source / "messages.sqlite3-wal").stat().st_size
    log.append(Kind.WEBHOOK, b"lost" * 5_000)
    after = tmp_path / "after"
    after.mkdir()
    (after / "messages.sqlite3").write_bytes((source / "messages.sqlite3").read_bytes())
    (after / "messages.sqlite3-wal").write_bytes((source / "messages.sqlite3-wal").read_bytes()[: whole + kept])
    assert MessageLog(source).check_tail() == []
    assert "event=torn_commit_cut" not in caplog.text
    assert MessageLog(after).check_tail() == []
    assert ("event=torn_commit_cut" in caplog.text) == (kept > 24), "less than a frame's header tells nothing"
    assert bodies(after) == {1: b"kept"}
    assert MessageLog(after).append(Kind.WEBHOOK, b"next") == 2


def test_a_flipped_bit_in_the_last_commit_is_reported(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    log = MessageLog(tmp_path / "source")
    log.directory.mkdir()
    log.append(Kind.WEBHOOK, b"kept")
    log.append(Kind.WEBHOOK, b"lost" * 10)
    after = tmp_path / "after"
    after.mkdir()
    (after / "messages.sqlite3").write_bytes((log.directory / "messages.sqlite3").read_bytes())
    wal = bytearray((log.directory / "messages.sqlite3-wal").read_bytes())
    wal[-100] ^= 1
    (after / "messages.sqlite3-wal").write_bytes(wal)
    MessageLog(after).check_tail()
    assert "event=torn_commit_cut" in caplog.text
    assert bodies(after) == {1: b"kept"}


def test_a_log_that_was_checkpointed_and_reused_is_whole(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    log = MessageLog(tmp_path)
    for _ in range(50):
        log.append(Kind.WEBHOOK, b"x" * 3_000)
    with sqlite3.connect(tmp_path / "messages.sqlite3") as connection:
        connection.execute("pragma wal_checkpoint(restart)")
    log.append(Kind.WEBHOOK, b"short")
    assert log.check_tail() == []
    assert "event=torn_commit_cut" not in caplog.text


def test_reading_stops_at_the_byte_limit_but_gives_at_least_one(tmp_path: Path) -> None:
    log = MessageLog(tmp_path)
    for _ in range(5):
        log.append(Kind.WEBHOOK, b"x" * 1000)
    assert len(log.read_after(0, max_bytes=10)) == 1
    assert len(log.read_after(0, max_bytes=2500)) == 3
    assert len(log.read_after(0, limit=2)) == 2


def test_identity_stays_and_differs_between_logs(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    first = MessageLog(tmp_path / "a").identity()
    assert first == MessageLog(tmp_path / "a").identity() != MessageLog(tmp_path / "b").identity()
