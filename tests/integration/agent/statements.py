# SPDX-License-Identifier: GPL-3.0-or-later
"""A schema of the agent's own on the session's PostgreSQL, and the few steps of a message's life that tests of statements take.

Time passes here by moving the moments in the rows, never by waiting.
"""

from __future__ import annotations

import itertools
import time
from datetime import UTC, datetime
from typing import Any

import psycopg

from tests.integration.agent.stack import PHONE_NUMBER_ID, Stack
from tests.integration.agent.traffic import encode, webhook
from whats_agent.conversation.rules import Rules
from whats_agent.database.connection import Connection
from whats_agent.message_log import Kind, Record
from whats_agent.outbox import queue, settle
from whats_agent.outbox.queue import Claim, Reply
from whats_agent.outbox.records import Outcome, SendResult
from whats_agent.projection.apply import apply, items_of
from whats_agent.projection.policy import Policy
from whats_agent.whatsapp.items import StatusUpdate

DATABASE = "statements"
DAY = 24 * 3600.0
ECHO_WAIT = 120.0
LEASE = 30.0
POLICY = Policy(Rules(PHONE_NUMBER_ID, ("atendente",), ("voltar",), 3600.0), DAY, ECHO_WAIT, media_fetch=True)
TABLES = ("messages", "outbox", "statuses", "conversations", "controls", "send_rates", "media", "unreadable_items")


class Database:
    """One schema of the agent's own, on the session's server."""

    def __init__(self, stack: Stack) -> None:
        stack.superuser_sql(f"create database {DATABASE} owner whats_agent")
        stack.migrate({"DB_NAME": DATABASE})
        self._stack = stack
        self._open: list[Connection] = []
        self._records = itertools.count(1)

    def connect(self) -> Connection:
        connection = psycopg.connect(
            host=self._stack.postgres.address(),
            dbname=DATABASE,
            user="whats_agent",
            password=self._stack.secrets()["DB_PASSWORD"],
            autocommit=True,
        )
        self._open.append(connection)
        return connection

    def clean(self) -> None:
        for connection in self._open:
            connection.close()
        self._open.clear()
        self.connect().execute(f"truncate {', '.join(TABLES)} restart identity cascade")

    def record(self, kind: Kind, body: bytes, at: float | None = None) -> Record:
        moment = int((at if at is not None else time.time()) * 1e6)
        return Record(next(self._records), moment, kind, body, intact=True)


def project(database: Database, session: Connection, *records: Record) -> None:
    for record in records:
        for item in items_of(record):
            apply(session, record, item, "log", POLICY)


def receive(database: Database, session: Connection, *messages: dict[str, Any], at: float | None = None) -> Record:
    record = database.record(Kind.WEBHOOK, encode(webhook(messages)), at)
    project(database, session, record)
    return record


def claim(session: Connection) -> Claim:
    claimed = queue.claim(session, LEASE)
    assert claimed is not None
    return claimed


def sending(session: Connection) -> Claim:
    """A row on its way to Meta."""
    claimed = claim(session)
    assert queue.keep_reply(session, claimed, Reply("resposta", "openai"))
    assert queue.start_sending(session, claimed, ECHO_WAIT)
    return claimed


def row(session: Connection, claimed: Claim) -> dict[str, Any]:
    with session.cursor(row_factory=psycopg.rows.dict_row) as cursor:
        found = cursor.execute("select * from outbox where id = %s", (claimed.id,)).fetchone()
    assert found is not None
    return found


def let_pass(session: Connection, seconds: float) -> None:
    """Make every moment in the outbox that much older."""
    session.execute(
        """
        update outbox set lease_until = lease_until - make_interval(secs => %(s)s),
            expires_at = expires_at - make_interval(secs => %(s)s),
            next_attempt_at = next_attempt_at - make_interval(secs => %(s)s)
        """,
        {"s": seconds},
    )


def result(claimed: Claim, outcome: Outcome, **more: Any) -> SendResult:
    return SendResult(claimed.id, claimed.attempts + 1, outcome, **more)


def settle_now(session: Connection, done: SendResult) -> None:
    settle.apply_result(session, done, datetime.now(UTC), ECHO_WAIT)


def status(claimed: Claim, kind: str, wamid: str = "wamid.OUT", codes: tuple[int, ...] = ()) -> StatusUpdate:
    return StatusUpdate(
        "0", PHONE_NUMBER_ID, wamid, kind, datetime.now(UTC), str(claimed.id), codes, {"id": wamid, "status": kind}
    )


def tell(session: Connection, claimed: Claim, kind: str, wamid: str = "wamid.OUT", codes: tuple[int, ...] = ()) -> None:
    settle.apply_status(session, status(claimed, kind, wamid, codes), claimed.id, datetime.now(UTC))
