# SPDX-License-Identifier: GPL-3.0-or-later
"""The SQLite file under the message log: opening, the batch insert, reading back.

WAL with ``synchronous=FULL``: a commit returns after the WAL was fsynced. Each record carries its own checksum on top of
SQLite's, so that damage to the file at rest is noticed when it is read. ``AUTOINCREMENT`` because an id that was pruned must
never be given again: the projection's position is an id.
"""

import sqlite3
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path

from whats_agent.errors import MessageLogError
from whats_agent.message_log.records import Record, checksum, record_from_row

FILE_NAME = "messages.sqlite3"
BUSY_MILLISECONDS = 5_000
# The WAL is folded back into the file every so many pages: rarely enough that hardly any request waits for it.
CHECKPOINT_PAGES = 4_000

_SCHEMA = (
    """create table if not exists records (
        id integer primary key autoincrement, at integer not null, kind text not null, crc integer not null, body blob not null)""",
    "create table if not exists log_identity (only_row integer primary key check (only_row = 1), identity text not null)",
)


def connect(directory: Path) -> sqlite3.Connection:
    """Open the log in ``directory``, making it when there is none. Raises MessageLogError."""
    try:
        connection = sqlite3.connect(
            directory / FILE_NAME, timeout=BUSY_MILLISECONDS / 1000, isolation_level=None, check_same_thread=False
        )
    except sqlite3.Error as error:
        raise MessageLogError(f"cannot open the message log in {directory}: {error}") from error
    try:
        connection.execute("pragma journal_mode=wal")
        connection.execute("pragma synchronous=full")
        connection.execute(f"pragma wal_autocheckpoint={CHECKPOINT_PAGES}")
        if connection.execute("select count(*) from sqlite_master where name = 'log_identity'").fetchone()[0] == 0:
            for statement in _SCHEMA:
                connection.execute(statement)
        connection.execute("insert or ignore into log_identity values (1, ?)", (str(uuid.uuid4()),))
    except sqlite3.Error as error:
        connection.close()
        raise MessageLogError(f"cannot prepare the message log in {directory}: {error}") from error
    return connection


def insert(connection: sqlite3.Connection, rows: Sequence[tuple[int, str, bytes]]) -> int:
    """Write ``rows`` of (at, kind, body) in one statement, one commit, one fsync; returns the id of the last row.

    One statement, so that ids inside a batch are consecutive and a failure leaves nothing behind.
    """
    values: list[int | str | bytes] = []
    for at, kind, body in rows:
        values += (at, kind, checksum(at, kind, body), body)
    marks = ",".join(["(?,?,?,?)"] * len(rows))
    cursor = connection.execute(f"insert into records (at, kind, crc, body) values {marks}", values)  # noqa: S608 - only marks
    if cursor.lastrowid is None:
        raise MessageLogError("SQLite gave no id to the batch it wrote")
    return cursor.lastrowid


def read_after(connection: sqlite3.Connection, position: int, limit: int, max_bytes: int) -> Iterator[Record]:
    """Records after ``position`` in order, at most ``limit`` of them and about ``max_bytes`` of bodies (at least one)."""
    total = 0
    for row in connection.execute(
        "select id, at, kind, body, crc from records where id > ? order by id limit ?", (position, limit)
    ):
        record = record_from_row(row)
        total += len(record.body)
        yield record
        if total >= max_bytes:
            return


def last_id(connection: sqlite3.Connection) -> int:
    """The highest id ever given, pruned records included; 0 for a log never written to."""
    row = connection.execute("select seq from sqlite_sequence where name = 'records'").fetchone()
    return int(row[0]) if row else 0


def first_id(connection: sqlite3.Connection) -> int:
    """The lowest id that is still held; the next one to be given when none is."""
    row = connection.execute("select min(id) from records").fetchone()
    return int(row[0]) if row[0] is not None else last_id(connection) + 1


def identity(connection: sqlite3.Connection) -> str:
    """The UUID that this log was made with; another log counts from 1 again and must not be taken for this one."""
    return str(connection.execute("select identity from log_identity").fetchone()[0])


def totals(connection: sqlite3.Connection) -> tuple[int, int]:
    """Number of records, and bytes of the file and its WAL pages in use."""
    records = connection.execute("select count(*) from records").fetchone()[0]
    pages = connection.execute("pragma page_count").fetchone()[0]
    return int(records), int(pages) * int(connection.execute("pragma page_size").fetchone()[0])


def restore(connection: sqlite3.Connection, record: Record) -> None:
    """Put a record back under its own id, as it was written."""
    connection.execute(
        "insert into records (id, at, kind, crc, body) values (?, ?, ?, ?, ?)",
        (record.id, record.at, record.kind, checksum(record.at, record.kind, record.body), record.body),
    )


def take_over(connection: sqlite3.Connection, log_identity: str, next_after: int) -> None:
    """Continue another log: its identity, and ids from ``next_after`` on."""
    connection.execute("update log_identity set identity = ?", (log_identity,))
    connection.execute("delete from sqlite_sequence where name = 'records'")
    connection.execute("insert into sqlite_sequence (name, seq) values ('records', ?)", (next_after,))


def delete_until(connection: sqlite3.Connection, last: int, before: int, limit: int) -> int:
    """Remove at most ``limit`` of the oldest records with an id up to ``last`` written before ``before`` (microseconds)."""
    return connection.execute(
        "delete from records where id in (select id from records where id <= ? and at < ? order by id limit ?)",
        (last, before, limit),
    ).rowcount


def cut_torn_tail(connection: sqlite3.Connection) -> list[Record]:
    """Remove records at the very end that do not match their checksum, and return them.

    SQLite already drops a half-written commit from its WAL; this catches a tail that the disk lied about. Only the unbroken
    run at the end goes: damage further inside is left for the reader to report, since later records were acknowledged after it.
    """
    torn: list[Record] = []
    for row in connection.execute("select id, at, kind, body, crc from records order by id desc limit 1000"):
        record = record_from_row(row)
        if record.intact:
            break
        torn.append(record)
    for record in torn:
        connection.execute("delete from records where id = ?", (record.id,))
    return torn
