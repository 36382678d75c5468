# SPDX-License-Identifier: GPL-3.0-or-later
"""The message log out of its volume and back: for the backup, and for a server that begins anew.

The format is JSON lines: a header, one line per record in order, a footer with the count. The footer tells a whole export from one
that was cut short.
"""

import base64
import binascii
import json
import sqlite3
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

from whats_agent import clock
from whats_agent.errors import MessageLogError
from whats_agent.message_log import store
from whats_agent.message_log.log import MessageLog, turn
from whats_agent.message_log.records import Record, checksum

FORMAT = "whats-agent message log 1"
KEEP_AT_LEAST_DAYS = 8
PRUNE_CHUNK = 1_000
# An imported log continues this far above its last id. What was written after the export and lost had ids in between: a
# database that knows them must not take new records for those.
ID_GAP = 1_000_000


@dataclass(frozen=True, slots=True)
class Export:
    """What an export turned out to hold."""

    identity: str
    last_id: int
    records: int


def export(message_log: MessageLog, after: int, out: BinaryIO) -> Export:
    """Write every record after ``after`` to ``out``, up to the end as it is now. Raises MessageLogError, OSError."""
    identity, end = message_log.identity(), message_log.last_id()
    _line(out, {"format": FORMAT, "identity": identity, "after": after, "last_id": end})
    position, count = after, 0
    while position < end:
        records = [record for record in message_log.read_after(position) if record.id <= end]
        if not records:
            break
        for record in records:
            if not record.intact:
                raise MessageLogError(f"record {record.id} does not match its checksum; the export would hide that")
            body = base64.b85encode(record.body).decode()
            _line(out, {"id": record.id, "at": record.at, "kind": record.kind, "crc": _crc(record), "body": body})
        position, count = records[-1].id, count + len(records)
    _line(out, {"records": count})
    out.flush()
    return Export(identity, end, count)


def restore(message_log: MessageLog, source: Iterable[bytes]) -> Export:
    """Read an export into this log, all of it or nothing. Raises MessageLogError.

    An empty log becomes the exported one. A log that already took new records keeps them and gets the exported ones after them:
    the projection sorts out what it has seen.
    """
    lines = iter(source)
    header = _header(lines)
    connection = store.connect(message_log.directory)
    try:
        with turn(message_log.directory):
            try:
                connection.execute("begin immediate")
                empty = store.last_id(connection) == 0
                count = 0
                for record in _records(lines):
                    if empty:
                        store.restore(connection, record)
                    else:
                        store.insert(connection, [(record.at, record.kind, record.body)])
                    count += 1
                if empty:
                    store.take_over(connection, header.identity, header.last_id + ID_GAP)
                connection.execute("commit")
            except (sqlite3.Error, MessageLogError) as error:
                if connection.in_transaction:
                    connection.execute("rollback")
                if isinstance(error, MessageLogError):
                    raise
                raise MessageLogError(f"the export cannot be written into the log: {error}") from error
    finally:
        connection.close()
    return Export(header.identity, message_log.last_id(), count)


def prune(message_log: MessageLog, last: int, days: float) -> int:
    """Remove records up to id ``last`` that are older than ``days`` (at least 8, Meta's redelivery and a day); returns how many."""
    if days < KEEP_AT_LEAST_DAYS:
        raise MessageLogError(f"the message log keeps at least {KEEP_AT_LEAST_DAYS} days, {days:g} were asked for")
    before = clock.now_microseconds() - int(days * 86_400_000_000)
    removed = 0
    connection = store.connect(message_log.directory)
    try:
        while True:
            # A little at a time, so that webhooks hardly wait for their turn.
            with turn(message_log.directory):
                chunk = store.delete_until(connection, last, before, PRUNE_CHUNK)
            removed += chunk
            if chunk < PRUNE_CHUNK:
                return removed
    except sqlite3.Error as error:
        raise MessageLogError(f"the message log cannot be pruned: {error}") from error
    finally:
        connection.close()


def _header(lines: Iterator[bytes]) -> Export:
    header = _object(next(lines, b""))
    try:
        if header["format"] != FORMAT:
            raise MessageLogError("this is not an export of a message log")
        return Export(str(header["identity"]), int(header["last_id"]), 0)
    except (KeyError, TypeError, ValueError) as error:
        raise MessageLogError("this is not an export of a message log") from error


def _records(lines: Iterator[bytes]) -> Iterator[Record]:
    for count, line in enumerate(lines):
        data = _object(line)
        if "records" in data:
            if data["records"] != count:
                raise MessageLogError(f"the export says it holds {data['records']} records and holds {count}")
            return
        try:
            body = base64.b85decode(data["body"])
            record = Record(int(data["id"]), int(data["at"]), str(data["kind"]), body, intact=True)
        except (KeyError, TypeError, ValueError, binascii.Error) as error:
            raise MessageLogError(f"the export's record {count + 1} cannot be read") from error
        if _crc(record) != data.get("crc"):
            raise MessageLogError(f"the export's record {record.id} does not match its checksum")
        yield record
    raise MessageLogError("the export is cut short")


def _crc(record: Record) -> int:
    return checksum(record.at, record.kind, record.body)


def _object(line: bytes) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except ValueError as error:
        raise MessageLogError("the export holds a line that cannot be read") from error
    if not isinstance(value, dict):
        raise MessageLogError("the export holds a line that cannot be read")
    return value


def _line(out: BinaryIO, value: dict[str, Any]) -> None:
    out.write(json.dumps(value, separators=(",", ":")).encode() + b"\n")
