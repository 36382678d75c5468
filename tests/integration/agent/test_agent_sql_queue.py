# SPDX-License-Identifier: GPL-3.0-or-later
"""Taking rows, leases, sends of unknown fate: statement by statement against a real PostgreSQL."""

from __future__ import annotations

import threading
import uuid

import pytest

from tests.integration.agent.statements import (
    ECHO_WAIT,
    LEASE,
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
from whats_agent.database.connection import Connection
from whats_agent.message_log import Kind
from whats_agent.outbox import queue, settle
from whats_agent.outbox.queue import Reply
from whats_agent.outbox.records import Outcome, SendAttempt, SendResult
from whats_agent.sender.leases import Leases

# Taking rows.


def test_one_in_flight_per_conversation_and_in_order(database: Database, session: Connection) -> None:
    ana, bia = new_phone(), new_phone()
    first, second = text_message(ana, "um"), text_message(ana, "dois")
    receive(database, session, first, second, text_message(bia, "três"))
    of_ana = claim(session)
    assert of_ana.inbound_wamid == first["id"]
    assert claim(session).wa_id == bia
    assert queue.claim(session, LEASE) is None, "the second message of a conversation went beside the first"
    queue.close(session, of_ana.id, of_ana.lease, "failed", "test")
    assert claim(session).inbound_wamid == second["id"]


@pytest.mark.parametrize("state", ["leased", "sending", "unknown"])
def test_an_open_row_holds_its_conversation_back(database: Database, session: Connection, state: str) -> None:
    phone = new_phone()
    receive(database, session, text_message(phone, "um"), text_message(phone, "dois"))
    claimed = claim(session)
    session.execute("update outbox set state = %s where id = %s", (state, claimed.id))
    assert queue.claim(session, LEASE) is None


def test_many_sessions_take_each_row_once(database: Database, session: Connection) -> None:
    receive(database, session, *(text_message(new_phone(), "oi") for _ in range(40)))
    taken: list[uuid.UUID] = []
    mutex = threading.Lock()

    def take(own: Connection) -> None:
        while (claimed := queue.claim(own, LEASE)) is not None:
            with mutex:
                taken.append(claimed.id)

    threads = [threading.Thread(target=take, args=(database.connect(),)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(taken) == 40
    assert len(set(taken)) == 40


def test_a_locked_row_is_passed_over_and_not_waited_for(database: Database, session: Connection) -> None:
    receive(database, session, text_message(new_phone(), "um"), text_message(new_phone(), "dois"))
    other = database.connect()
    with other.transaction():
        held = other.execute("select id from outbox order by seq limit 1 for update").fetchone()
        assert held is not None
        session.execute("set statement_timeout = '2s'")
        assert claim(session).id != held[0]


# Leases.


def test_a_living_worker_keeps_its_lease_and_a_dead_one_loses_it(database: Database, session: Connection) -> None:
    receive(database, session, text_message(new_phone(), "um"), text_message(new_phone(), "dois"))
    alive, dead = claim(session), claim(session)
    leases = Leases()
    leases.add(alive.lease)
    let_pass(session, LEASE - 1)
    leases.renew(session, LEASE)
    let_pass(session, 2)
    assert settle.release_expired(session, echoes_due=True) == 1
    assert (row(session, alive)["state"], row(session, dead)["state"]) == ("leased", "queued")


def test_whoever_lost_the_lease_can_do_nothing_more(database: Database, session: Connection) -> None:
    receive(database, session, text_message(new_phone(), "um"))
    old = claim(session)
    let_pass(session, LEASE + 1)
    settle.release_expired(session, echoes_due=False)
    new = claim(session)
    assert new.id == old.id
    assert not queue.keep_reply(session, old, Reply("alt", "openai"))
    assert not queue.start_sending(session, old, ECHO_WAIT)
    queue.close(session, old.id, old.lease, "failed", "not yours")
    queue.give_back(session, old.id, old.lease, 0)
    assert row(session, new)["state"] == "leased"
    assert queue.keep_reply(session, new, Reply("neu", "openai"))
    assert queue.start_sending(session, new, ECHO_WAIT)
    assert not queue.start_sending(session, new, ECHO_WAIT), "the same attempt began twice"


def test_an_orderly_stop_returns_only_what_is_not_being_sent(database: Database, session: Connection) -> None:
    receive(database, session, text_message(new_phone(), "um"), text_message(new_phone(), "dois"))
    going, prepared = sending(session), claim(session)
    leases = Leases()
    leases.add(going.lease)
    leases.add(prepared.lease)
    leases.give_up(session)
    assert (row(session, going)["state"], row(session, prepared)["state"]) == ("sending", "queued")


# A send of unknown fate.


def test_an_unknown_fate_waits_for_its_echo_to_the_end(database: Database, session: Connection) -> None:
    phone = new_phone()
    receive(database, session, text_message(phone, "um"), text_message(phone, "dois"))
    claimed = sending(session)
    settle_now(session, result(claimed, Outcome.UNKNOWN, error="broke off"))
    let_pass(session, ECHO_WAIT - 1)
    assert settle.release_expired(session, echoes_due=True) == 0
    assert queue.claim(session, LEASE) is None, "repeated, or overtaken, before its echo was due"
    let_pass(session, 2)
    assert settle.release_expired(session, echoes_due=False) == 0, "given up while the log was not read to its end"
    assert settle.release_expired(session, echoes_due=True) == 1
    again = claim(session)
    assert (again.id, again.reply_text, again.attempts) == (claimed.id, "resposta", 1)


@pytest.mark.parametrize("kind", ["sent", "delivered", "read"])
def test_the_echo_closes_it(database: Database, session: Connection, kind: str) -> None:
    receive(database, session, text_message(new_phone(), "um"))
    claimed = sending(session)
    settle_now(session, result(claimed, Outcome.UNKNOWN))
    tell(session, claimed, kind)
    seen = row(session, claimed)
    assert (seen["state"], seen["wamid"], seen["delivery"]) == ("sent", "wamid.OUT", kind)
    let_pass(session, ECHO_WAIT + 1)
    assert settle.release_expired(session, echoes_due=True) == 0
    settle_now(session, result(claimed, Outcome.RETRY, delay=0.0))
    assert row(session, claimed)["state"] == "sent", "a late result reopened what Meta had confirmed"


def test_an_attempt_that_only_the_log_knows_is_of_unknown_fate(database: Database, session: Connection) -> None:
    """As after a restore: the row is new again, the log says that it was sent once."""
    receive(database, session, text_message(new_phone(), "um"))
    claimed = claim(session)
    session.execute("update outbox set state = 'queued', lease_owner = null where id = %s", (claimed.id,))
    attempt = SendAttempt(claimed.id, 1, "resposta de antes", "openai")
    project(database, session, database.record(Kind.SEND_ATTEMPT, attempt.to_bytes()))
    seen = row(session, claimed)
    assert (seen["state"], seen["attempts"], seen["reply_text"]) == ("unknown", 1, "resposta de antes")
    assert queue.claim(session, LEASE) is None
    done = SendResult(claimed.id, 1, Outcome.SENT, "wamid.OUT")
    project(database, session, database.record(Kind.SEND_RESULT, done.to_bytes()))
    project(database, session, database.record(Kind.SEND_ATTEMPT, attempt.to_bytes()))
    assert row(session, claimed)["state"] == "sent", "the log read once more undid what it had said"


def test_a_result_of_an_earlier_attempt_changes_nothing(database: Database, session: Connection) -> None:
    receive(database, session, text_message(new_phone(), "um"))
    first = sending(session)
    settle_now(session, result(first, Outcome.RETRY, delay=0.0))
    second = sending(session)
    assert second.attempts == 1
    for outcome in (Outcome.RETRY, Outcome.UNKNOWN, Outcome.FAILED):
        settle_now(session, result(first, outcome))
        assert row(session, second)["state"] == "sending", outcome
