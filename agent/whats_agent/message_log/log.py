# SPDX-License-Identifier: GPL-3.0-or-later
"""The message log as the rest of the agent uses it: append and wait for the disk, or read on from a position.

Group commit by leader hand-off. Every request that appends waits for the same fsync as the others that came meanwhile: the
first waiter leads, takes everything queued, writes it as one statement, wakes each of the others on its own lock, and hands the
lead to the next one waiting. Processes take turns on ``flock``, which wakes the next one at once where SQLite's own busy handler
would sleep and try again.
"""

import fcntl
import logging
import os
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from whats_agent import clock
from whats_agent.errors import MessageLogError
from whats_agent.message_log import store, wal
from whats_agent.message_log.records import Kind, Record

LOCK_NAME = "messages.lock"
MAX_BATCH_RECORDS = 500
MAX_BATCH_BYTES = 8 * 1024 * 1024
# Under load, waiting this long fills a batch; alone, a request never waits.
GATHER_SECONDS = 0.001
WAIT_SECONDS = 10.0

_LOCK_FLAGS = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
_log = logging.getLogger("whats_agent.message_log")


@contextmanager
def turn(directory: Path) -> Iterator[None]:
    """Hold the writers' lock for something rare (making the file, cutting its end). Raises MessageLogError."""
    try:
        descriptor = os.open(directory / LOCK_NAME, _LOCK_FLAGS, 0o660)
    except OSError as error:
        raise MessageLogError(f"cannot open the message log's lock in {directory}: {error}") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


class _Waiter:
    """One append on its way: what to write, and the lock its thread sleeps on."""

    __slots__ = ("at", "body", "error", "kind", "leads", "record_id", "wake")

    def __init__(self, kind: str, body: bytes) -> None:
        self.kind = kind
        self.body = body
        self.at = clock.now_microseconds()
        self.record_id = 0
        self.error: str | None = None
        self.leads = False
        self.wake = threading.Lock()
        self.wake.acquire()


class MessageLog:
    """Append to and read from the log in one directory. One instance per process, shared by its threads.

    ``committed`` is told the number of records of each commit.
    """

    def __init__(self, directory: Path, committed: Callable[[int], None] | None = None) -> None:
        self.directory = directory
        self._committed = committed
        self._mutex = threading.Lock()
        self._queue: deque[_Waiter] = deque()
        self._has_leader = False
        self._last_batch = 0
        self._writer: sqlite3.Connection | None = None
        self._lock_descriptor = -1
        self._readers = threading.local()
        self.batches = 0
        self.appended = 0
        self.last_failure: str | None = None

    def append(self, kind: Kind, body: bytes) -> int:
        """Write one record; returns its id once it is on the disk. Raises MessageLogError, and then nothing is promised."""
        waiter = _Waiter(kind.value, body)
        with self._mutex:
            self._queue.append(waiter)
            leads = not self._has_leader
            self._has_leader = True
        if not leads:
            if not waiter.wake.acquire(timeout=WAIT_SECONDS) and not self._withdraw(waiter):
                raise MessageLogError(f"the disk did not confirm a record within {WAIT_SECONDS:g} s")
            leads = waiter.leads
        if leads:
            self._lead()
        if waiter.error is not None:
            raise MessageLogError(waiter.error)
        return waiter.record_id

    def _withdraw(self, waiter: _Waiter) -> bool:
        """Give up waiting. True when the waiter was woken or promoted at the last moment and must go on after all."""
        with self._mutex:
            if waiter.leads or waiter.record_id or waiter.error is not None:
                return True
            if waiter in self._queue:
                self._queue.remove(waiter)
            return False

    def _lead(self) -> None:
        """Write everything queued (the leader's own record is part of it), wake the others, pass the lead on."""
        if self._last_batch > 1:
            time.sleep(GATHER_SECONDS)
        batch = self._drain()
        try:
            last = self._write(batch)
            for number, waiter in enumerate(batch):
                waiter.record_id = last - (len(batch) - 1) + number
        except (MessageLogError, sqlite3.Error, OSError) as error:
            reason = f"the message log cannot be written: {error}"
            self.last_failure = reason
            self._close_writer()
            for waiter in batch:
                waiter.error = reason
        finally:
            self._last_batch = len(batch)
            with self._mutex:
                if self._queue:
                    successor = self._queue[0]
                    successor.leads = True
                    successor.wake.release()
                else:
                    self._has_leader = False
        for waiter in batch:
            if waiter.wake.locked():
                waiter.wake.release()

    def _drain(self) -> list[_Waiter]:
        batch: list[_Waiter] = []
        size = 0
        with self._mutex:
            while self._queue and len(batch) < MAX_BATCH_RECORDS and (not batch or size < MAX_BATCH_BYTES):
                waiter = self._queue.popleft()
                batch.append(waiter)
                size += len(waiter.body)
        return batch

    def _write(self, batch: list[_Waiter]) -> int:
        if self._lock_descriptor < 0:
            self._lock_descriptor = os.open(self.directory / LOCK_NAME, _LOCK_FLAGS, 0o660)
        fcntl.flock(self._lock_descriptor, fcntl.LOCK_EX)
        try:
            if self._writer is None:
                self._writer = store.connect(self.directory)
            last = store.insert(self._writer, [(waiter.at, waiter.kind, waiter.body) for waiter in batch])
        finally:
            fcntl.flock(self._lock_descriptor, fcntl.LOCK_UN)
        self.batches += 1
        self.appended += len(batch)
        if self._committed is not None:
            self._committed(len(batch))
        self.last_failure = None
        return last

    def _close_writer(self) -> None:
        """After a failed write start from a fresh connection: the old one may hold on to a broken WAL."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _reader(self) -> sqlite3.Connection:
        reader: sqlite3.Connection | None = getattr(self._readers, "connection", None)
        if reader is None:
            with turn(self.directory):
                reader = self._readers.connection = store.connect(self.directory)
        return reader

    def read_after(self, position: int, limit: int = 1_000, max_bytes: int = 16 * 1024 * 1024) -> list[Record]:
        """The records after ``position``, oldest first. Raises MessageLogError."""
        try:
            return list(store.read_after(self._reader(), position, limit, max_bytes))
        except sqlite3.Error as error:
            self._forget_reader()
            raise MessageLogError(f"the message log cannot be read after record {position}: {error}") from error

    def last_id(self) -> int:
        """The id of the newest record ever written."""
        try:
            return store.last_id(self._reader())
        except sqlite3.Error as error:
            self._forget_reader()
            raise MessageLogError(f"the message log cannot be read: {error}") from error

    def identity(self) -> str:
        """The UUID this log was made with."""
        try:
            return store.identity(self._reader())
        except sqlite3.Error as error:
            self._forget_reader()
            raise MessageLogError(f"the message log cannot be read: {error}") from error

    def status(self) -> dict[str, int]:
        """``{"first_id", "last_id", "records", "bytes"}`` as ``whats-agent log-status`` prints it."""
        try:
            # Before the last id: a record that arrives meanwhile then makes none of the others seem gone.
            first = store.first_id(self._reader())
            records, size = store.totals(self._reader())
        except sqlite3.Error as error:
            self._forget_reader()
            raise MessageLogError(f"the message log cannot be read: {error}") from error
        return {"first_id": first, "last_id": self.last_id(), "records": records, "bytes": size}

    def check_tail(self) -> list[int]:
        """Report a commit that was cut off, cut records at the end that fail their checksum and return their ids.

        Called once when a process starts. Raises MessageLogError.
        """
        try:
            with turn(self.directory):
                unfinished = wal.unfinished_bytes(self.directory / f"{store.FILE_NAME}-wal")
        except OSError as error:
            raise MessageLogError(f"the end of the message log cannot be checked: {error}") from error
        if unfinished:
            _log.critical("event=torn_commit_cut bytes=%s acknowledged=none", unfinished)
        reader = self._reader()
        try:
            with turn(self.directory):
                torn = store.cut_torn_tail(reader)
        except sqlite3.Error as error:
            self._forget_reader()
            raise MessageLogError(f"the end of the message log cannot be checked: {error}") from error
        for record in torn:
            _log.critical("event=torn_record_cut record=%s kind=%s bytes=%s", record.id, record.kind, len(record.body))
        return [record.id for record in torn]

    def _forget_reader(self) -> None:
        reader: sqlite3.Connection | None = getattr(self._readers, "connection", None)
        if reader is not None:
            reader.close()
            self._readers.connection = None

    def close(self) -> None:
        """Close this thread's reader and the writer; the log can be used again afterwards."""
        self._forget_reader()
        self._close_writer()
        if self._lock_descriptor >= 0:
            os.close(self._lock_descriptor)
            self._lock_descriptor = -1
