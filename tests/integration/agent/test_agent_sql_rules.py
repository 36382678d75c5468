# SPDX-License-Identifier: GPL-3.0-or-later
"""Statuses, Meta's window, rates, media, the log read again: statement by statement against a real PostgreSQL."""

from __future__ import annotations

import itertools
import threading
import time
import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.integration.agent.stack import PHONE_NUMBER_ID
from tests.integration.agent.statements import (
    DAY,
    LEASE,
    TABLES,
    Database,
    claim,
    let_pass,
    project,
    receive,
    result,
    row,
    sending,
    settle_now,
    tell,
)
from tests.integration.agent.traffic import new_phone, text_message
from whats_agent.conversation.controls import Control
from whats_agent.database.connection import Connection
from whats_agent.media import queue as media_queue
from whats_agent.media.download import Fetched
from whats_agent.message_log import Kind
from whats_agent.outbox import queue, rates, settle
from whats_agent.outbox.queue import Reply
from whats_agent.outbox.rates import Rate
from whats_agent.outbox.records import Outcome, SendAttempt

# Statuses.


@pytest.mark.parametrize("order", list(itertools.permutations(["sent", "delivered", "read", "failed"])))
def test_statuses_only_advance(database: Database, session: Connection, order: tuple[str, ...]) -> None:
    """A failure counts only while nothing better than "sent" is known, and success always counts."""
    receive(database, session, text_message(new_phone(), "um"))
    claimed = sending(session)
    settle_now(session, result(claimed, Outcome.SENT, wamid="wamid.OUT"))
    ranks = {"failed": 0, "sent": 1, "delivered": 2, "read": 3}
    best = 0
    for kind in order:
        tell(session, claimed, kind, codes=(131026,) if kind == "failed" else ())
        seen = row(session, claimed)
        best = max(best, ranks[kind])
        if best > ranks["sent"]:
            assert (seen["state"], ranks[seen["delivery"]]) == ("sent", best), (order, kind)
    assert row(session, claimed)["delivery"] == "read"


def test_a_status_with_another_wamid_is_not_ours(database: Database, session: Connection) -> None:
    receive(database, session, text_message(new_phone(), "um"))
    claimed = sending(session)
    settle_now(session, result(claimed, Outcome.SENT, wamid="wamid.OUT"))
    tell(session, claimed, "read", wamid="wamid.OTHER")
    tell(session, claimed, "failed", wamid="wamid.OTHER")
    seen = row(session, claimed)
    assert (seen["state"], seen["wamid"], seen["delivery"]) == ("sent", "wamid.OUT", None)


def test_a_failure_that_may_pass_is_sent_again_a_few_times(database: Database, session: Connection) -> None:
    receive(database, session, text_message(new_phone(), "um"))
    for number in range(1, settle.MAX_FAILED_DELIVERIES + 1):
        claimed = sending(session)
        settle_now(session, result(claimed, Outcome.SENT, wamid=f"wamid.{number}"))
        tell(session, claimed, "failed", wamid=f"wamid.{number}", codes=(131000,))
        expected = "queued" if number < settle.MAX_FAILED_DELIVERIES else "failed"
        assert row(session, claimed)["state"] == expected, number
        let_pass(session, 400)


# Meta's window.


@pytest.mark.parametrize(("age", "answered"), [(DAY - 60, True), (DAY + 1, False), (-3600, True)])
def test_the_window_ends_after_a_day(database: Database, session: Connection, age: float, answered: bool) -> None:
    receive(database, session, text_message(new_phone(), "um", timestamp=int(time.time() - age)))
    assert (queue.claim(session, LEASE) is not None) is answered
    states = session.execute("select state from outbox").fetchall()
    assert states == [("leased" if answered else "expired",)]


def test_a_clock_ahead_of_ours_does_not_widen_the_window(database: Database, session: Connection) -> None:
    now = time.time()
    receive(database, session, text_message(new_phone(), "um", timestamp=int(now + 7200)), at=now)
    (expires,) = session.execute("select expires_at from outbox").fetchone() or ()
    assert expires <= datetime.fromtimestamp(now, UTC) + timedelta(seconds=DAY)


def test_expired_rows_do_not_hold_the_next_one_back(database: Database, session: Connection) -> None:
    phone = new_phone()
    late, fresh = text_message(phone, "ontem", timestamp=int(time.time() - DAY - 60)), text_message(phone, "agora")
    receive(database, session, late, fresh)
    assert claim(session).inbound_wamid == fresh["id"]


# The same log, read again.


def test_reading_the_whole_log_again_changes_nothing(database: Database, session: Connection) -> None:
    phone = new_phone()
    messages = [text_message(phone, "um"), text_message(phone, "dois"), {**text_message(phone, ""), "type": "image"}]
    messages[2]["image"] = {"id": "4711", "mime_type": "image/jpeg"}
    log = [receive(database, session, *messages)]
    claimed = sending(session)
    attempt, done = SendAttempt(claimed.id, 1, "resposta", "openai"), result(claimed, Outcome.SENT, wamid="wamid.OUT")
    log += [
        database.record(Kind.SEND_ATTEMPT, attempt.to_bytes()),
        database.record(Kind.SEND_RESULT, done.to_bytes()),
        database.record(Kind.WEBHOOK, b"not json"),
        database.record(Kind.CONTROL, Control("answers", "off").to_bytes()),
        database.record(Kind.CONTROL, Control("answers", "on").to_bytes()),
    ]
    project(database, session, *log)

    def everything() -> list[list[tuple[Any, ...]]]:
        skipped = {"outbox": "- 'updated_at'", "conversations": "", "media": ""}
        return [
            session.execute(f"select to_jsonb(t) {skipped.get(table, '')} from {table} t order by 1").fetchall()  # noqa: S608 - our names
            for table in TABLES
        ]

    once = everything()
    project(database, session, *log)
    assert everything() == once


def test_the_kill_switch_takes_back_what_has_not_begun_to_be_sent(database: Database, session: Connection) -> None:
    receive(database, session, *(text_message(new_phone(), "oi") for _ in range(3)))
    going, prepared = sending(session), claim(session)
    project(database, session, database.record(Kind.CONTROL, Control("answers", "off").to_bytes()))
    states: dict[uuid.UUID, str] = dict(session.execute("select id, state from outbox").fetchall())
    assert states.pop(going.id) == "sending"
    assert set(states.values()) == {"cancelled"}
    assert not queue.keep_reply(session, prepared, Reply("tarde", "openai"))
    receive(database, session, text_message(new_phone(), "silêncio"))
    assert session.execute("select action from messages order by id desc limit 1").fetchone() == ("muted",)


# Rates.


def test_a_user_gets_a_burst_and_then_one_by_one(database: Database, session: Connection) -> None:
    receive(database, session, text_message(new_phone(), "um"))
    (conversation,) = session.execute("select id from conversations").fetchone() or ()
    rate = Rate(6.0, 3)
    waits = [rates.take_for_conversation(session, conversation, rate) for _ in range(5)]
    assert waits[:3] == [0.0] * 3
    assert all(5.0 < wait <= 6.0 for wait in waits[3:]), "a refused send was counted"
    session.execute("update conversations set next_send_at = next_send_at - interval '6 seconds'")
    assert rates.take_for_conversation(session, conversation, rate) == 0.0


def test_all_sessions_together_keep_the_number_s_rate(database: Database) -> None:
    rate, waits, mutex = Rate(10.0, 5), [], threading.Lock()

    def take(own: Connection) -> None:
        for _ in range(5):
            wait = rates.take_for_number(own, PHONE_NUMBER_ID, rate)
            with mutex:
                waits.append(wait)

    threads = [threading.Thread(target=take, args=(database.connect(),)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    waits.sort()
    assert waits[:5] == [0.0] * 5
    assert all(8.0 < later - earlier < 12.0 for earlier, later in itertools.pairwise(waits[5:])), waits


# Media.


def with_media(session: Connection, database: Database, count: int) -> None:
    for number in range(count):
        message = {**text_message(new_phone(), ""), "type": "image", "image": {"id": str(number)}}
        receive(database, session, message)


def test_media_is_wanted_once_and_leased(database: Database, session: Connection) -> None:
    with_media(session, database, 1)
    wanted = media_queue.claim(session)
    assert wanted is not None
    assert (wanted.media_id, wanted.phone_number_id, wanted.attempts) == ("0", PHONE_NUMBER_ID, 1)
    assert media_queue.claim(session) is None
    session.execute("update media set next_attempt_at = now()")
    again = media_queue.claim(session)
    assert again is not None
    assert again.attempts == 2


def test_media_is_given_up_after_some_tries(database: Database, session: Connection) -> None:
    with_media(session, database, 1)
    for _ in range(media_queue.MAX_ATTEMPTS):
        wanted = media_queue.claim(session)
        assert wanted is not None
        media_queue.failed(session, wanted, "away", retry=True)
        session.execute("update media set next_attempt_at = now()")
    assert session.execute("select state, attempts from media").fetchall() == [("failed", media_queue.MAX_ATTEMPTS)]


def test_the_oldest_media_goes_when_the_quota_is_reached(database: Database, session: Connection) -> None:
    with_media(session, database, 4)
    # The first and the last message carry the same file: it is as young as its last use.
    for number, name in enumerate("abca"):
        wanted = media_queue.claim(session)
        assert wanted is not None
        media_queue.stored(session, wanted, Fetched(None, "image/jpeg", name * 64, 100))  # type: ignore[arg-type]
        session.execute(
            "update media set stored_at = now() + make_interval(secs => %s) where message_id = %s",
            (number, wanted.message_id),
        )
    assert media_queue.over_quota(session, 300) == []
    assert media_queue.over_quota(session, 200) == ["b" * 64]
    states = session.execute("select sha256, state from media order by message_id").fetchall()
    assert [state for _, state in states] == ["stored", "dropped", "stored", "stored"]
