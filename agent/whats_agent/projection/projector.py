# SPDX-License-Identifier: GPL-3.0-or-later
"""The loop that keeps PostgreSQL up to the message log. One projector at a time, by an advisory lock."""

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable

import psycopg

from whats_agent import logs
from whats_agent.database.connection import Connection
from whats_agent.errors import MessageLogError
from whats_agent.message_log import MessageLog, Record
from whats_agent.metrics import Recorder
from whats_agent.outbox import settle
from whats_agent.projection.apply import LogItem, apply, items_of, kind_of, unreadable
from whats_agent.projection.policy import Policy
from whats_agent.retry import Backoff
from whats_agent.whatsapp.items import UnreadableItem

ADVISORY_LOCK = 7_264_102
HOUSEKEEPING_SECONDS = 1.0

_log = logging.getLogger("whats_agent.projection")


class Projector:
    """Reads the log and writes PostgreSQL until told to stop; survives either of them being away."""

    def __init__(
        self,
        message_log: MessageLog,
        connect: Callable[[], Connection],
        policy: Policy,
        *,
        batch: int,
        poll_seconds: float,
        progressed: Callable[[], None],
        recorder: Recorder,
    ) -> None:
        self._message_log = message_log
        self._connect = connect
        self._policy = policy
        self._batch = batch
        self._poll_seconds = poll_seconds
        self._progressed = progressed
        self._recorder = recorder
        self.position = 0
        self._reached = 0
        self._counted: Counter[str] = Counter()
        self.state = "starting"

    def run(self, stop: threading.Event) -> None:
        """Project until ``stop`` is set."""
        # Asking the database beside us once a second costs nothing, and a recovery is verified by what comes through here.
        backoff = Backoff(_log, "projection", least=0.2, most=1.0)
        while not stop.is_set():
            try:
                with self._connect() as connection:
                    if self._take_turn(connection, stop):
                        self._project(connection, stop, backoff)
            except (psycopg.Error, MessageLogError) as error:
                self.state = "waiting"
                stop.wait(backoff.failed(error))
        self.state = "stopped"

    def _take_turn(self, connection: Connection, stop: threading.Event) -> bool:
        while not stop.is_set():
            row = connection.execute("select pg_try_advisory_lock(%s)", (ADVISORY_LOCK,)).fetchone()
            if row is not None and row[0]:
                return True
            self.state = "standby"
            stop.wait(1.0)
        return False

    def _project(self, connection: Connection, stop: threading.Event, backoff: Backoff) -> None:
        identity = self._message_log.identity()
        self._adopt(connection, identity)
        next_housekeeping = 0.0
        # After an outage of ours Meta delivers again, in its own time: what was being sent waits for its status once more.
        echoes_due_at = time.monotonic() + self._policy.echo_wait
        while not stop.is_set():
            end = self._message_log.last_id()
            if end > self.position:
                if self._step(connection, identity, end):
                    self._progressed()
                self.state = "running"
                backoff.succeeded()
                continue
            if time.monotonic() >= next_housekeeping:
                # Also notices a position that somebody set back.
                self._adopt(connection, identity)
                echoes_due = time.monotonic() >= echoes_due_at
                if self.position >= end and settle.release_expired(connection, echoes_due=echoes_due):
                    self._progressed()
                next_housekeeping = time.monotonic() + HOUSEKEEPING_SECONDS
                self.state = "running"
                backoff.succeeded()
            stop.wait(self._poll_seconds)

    def _adopt(self, connection: Connection, identity: str) -> None:
        """Start from the database's own position; from the beginning when that position is of another log.

        A log made anew counts from 1 again, so a stored position would hide its first records. Reading everything once more is
        safe, since every item is idempotent.
        """
        row = connection.execute("select position, log_identity from projection").fetchone()
        if row is None:
            connection.execute("insert into projection default values on conflict do nothing")
            row = (0, "")
        position, known = int(row[0]), str(row[1])
        if known != identity or position > self._message_log.last_id():
            if known:
                _log.critical(
                    logs.fields(
                        event="message_log_changed",
                        position=position,
                        log_end=self._message_log.last_id(),
                        action="reading it from its start",
                    )
                )
            connection.execute("update projection set position = 0, log_identity = %s, updated_at = now()", (identity,))
            position = 0
        self.position = position

    def _step(self, connection: Connection, identity: str, end: int) -> int:
        """One batch in one transaction; returns how many records it had."""
        started = time.perf_counter()
        try:
            with connection.transaction():
                count = self._write_batch(connection, identity, end, careful=False)
        except (psycopg.DataError, psycopg.IntegrityError, psycopg.errors.ProgramLimitExceeded):
            # Something in this batch does not fit: again, with a savepoint around each item, so that only that one is set aside.
            with connection.transaction():
                count = self._write_batch(connection, identity, end, careful=True)
        self.position = self._reached
        for kind, amount in self._counted.items():
            self._recorder.count(f"items_total|{kind}", amount)
        took = f"{(time.perf_counter() - started) * 1000:.0f}ms"
        _log.debug(logs.fields(event="projected", records=count, position=self.position, took=took))
        return count

    def _write_batch(self, connection: Connection, identity: str, end: int, *, careful: bool) -> int:
        """Apply the records after the stored position and move it; returns how many there were.

        ``end`` is the log's end as it was before reading. When nothing is left below it (pruned, cut, or skipped by an import),
        the position goes there: whatever comes later gets a higher id.
        """
        row = connection.execute("select position from projection for update").fetchone()
        position = int(row[0]) if row else 0
        records = self._message_log.read_after(position, self._batch)
        self._counted.clear()
        for record in records:
            for item in items_of(record):
                self._counted[kind_of(item)] += 1
                if isinstance(item, UnreadableItem):
                    _log.error(
                        logs.fields(event="unreadable_item", record=record.id, item=item.item, reason=item.reason)
                    )
                if careful:
                    self._write_guarded(connection, record, item, identity)
                else:
                    apply(connection, record, item, identity, self._policy)
        reached = records[-1].id if records else max(end, position)
        connection.execute("update projection set position = %s, updated_at = now()", (reached,))
        self._reached = reached
        return len(records)

    def _write_guarded(self, connection: Connection, record: Record, item: LogItem, identity: str) -> None:
        try:
            with connection.transaction():
                apply(connection, record, item, identity, self._policy)
        except (psycopg.DataError, psycopg.IntegrityError, psycopg.errors.ProgramLimitExceeded) as error:
            name = getattr(item, "item", type(item).__name__)
            _log.error(logs.fields(event="unstorable_item", record=record.id, item=name, reason=type(error).__name__))
            reason = f"PostgreSQL refused it: {type(error).__name__}"
            unreadable(connection, record, UnreadableItem(str(name), reason, "see the message log"), identity)
