# SPDX-License-Identifier: GPL-3.0-or-later
"""Any one part down: Meta still gets its 200, and afterwards each message is answered once."""

from __future__ import annotations

from typing import Any

import pytest

from tests.integration.agent.stack import Stack
from tests.integration.agent.traffic import Traffic, new_phone
from tests.integration.agent.waiting import eventually, never


def openai_answers_again(stack: Stack) -> bool:
    """Whether a new message is answered by OpenAI; the circuit breaker lets calls through again only after its time."""
    trial = Traffic(stack)
    sent = trial.send(new_phone())
    trial.verify(texts=False)
    return sent.text in answers_to(stack, sent.sender)[0]["text"]


def answers_to(stack: Stack, phone: str) -> list[dict[str, Any]]:
    return [send for send in stack.sends() if send["to"] == phone]


@pytest.mark.parametrize("part", ["postgres", "redis", "graph_double"])
def test_a_part_killed_and_back(stack: Stack, traffic: Traffic, part: str) -> None:
    traffic.conversations(people=2, each=2)
    with stack.stopped(stack.session.services[part]):
        traffic.conversations(people=3, each=4)
        assert set(traffic.answers) == {"200"}
    traffic.conversations(people=2, each=2)
    counts = traffic.verify()
    assert counts["not_200"] == counts["no_answer"] == 0


def test_postgres_that_hangs_does_not_hold_the_webhook_up(stack: Stack, traffic: Traffic) -> None:
    stack.postgres.pause()
    traffic.conversations(people=3, each=3)
    assert set(traffic.answers) == {"200"}
    stack.postgres.unpause()
    traffic.verify()


def test_openai_down_sends_the_fallback_once(stack: Stack, traffic: Traffic) -> None:
    with stack.stopped(stack.openai):
        traffic.conversations(people=3, each=2)
        counts = traffic.verify(texts=False)
    assert counts["not_200"] == counts["no_answer"] == 0
    (fallback,) = {send["text"] for sends in traffic.answers_by_sender().values() for send in sends}
    assert not any(sent.text in fallback for sent in traffic.acknowledged)
    eventually(lambda: openai_answers_again(stack), "OpenAI to be asked again")


@pytest.mark.parametrize("fault", ["rate_limit", "server_error", "bad_key", "timeout"])
def test_openai_errors_end_in_one_answer(stack: Stack, traffic: Traffic, fault: str) -> None:
    stack.fail("openai_double", fault)
    sent = traffic.send(new_phone())
    traffic.verify(texts=False)
    stack.fail("openai_double", "off")
    eventually(lambda: openai_answers_again(stack), "OpenAI to be asked again")
    assert len(answers_to(stack, sent.sender)) == 1


@pytest.mark.parametrize(("fault", "count"), [("rate_limit", 2), ("pair_rate_limit", 1), ("server_error", 2)])
def test_graph_errors_that_pass_are_retried(stack: Stack, traffic: Traffic, fault: str, count: int) -> None:
    stack.fail("graph_double", fault, count)
    traffic.conversations(people=1, each=2)
    traffic.verify()


@pytest.mark.parametrize("fault", ["token_expired", "permission", "account_blocked"])
def test_the_sender_stops_and_goes_on_by_itself(stack: Stack, traffic: Traffic, fault: str) -> None:
    stack.fail("graph_double", fault)
    traffic.conversations(people=3, each=2)
    never(traffic.answered, "an answer while the sender must be stopped", seconds=3)
    stack.fail("graph_double", "off")
    traffic.verify()


@pytest.mark.parametrize("fault", ["not_allowed", "window_closed"])
def test_a_refused_message_fails_alone(stack: Stack, traffic: Traffic, fault: str) -> None:
    stack.fail("graph_double", fault, count=1)
    refused = Traffic(stack).send(new_phone())
    query = """select state from outbox o join messages m on m.id = o.message_id where m.wamid = %(wamid)s"""
    eventually(
        lambda: [row["state"] for row in stack.sql(query, {"wamid": refused.wamid})] == ["failed"], "the row to fail"
    )
    traffic.conversations(people=2, each=2)
    traffic.verify()
    assert answers_to(stack, refused.sender) == []


def test_a_send_of_unknown_fate_waits_for_its_echo_and_is_not_repeated(stack: Stack, traffic: Traffic) -> None:
    stack.graph_statuses(enabled=False)
    stack.fail("graph_double", "drop_after_accept", count=1)
    sent = traffic.send(new_phone())
    eventually(lambda: answers_to(stack, sent.sender), "the send that gets no answer")
    never(lambda: len(answers_to(stack, sent.sender)) > 1, "a repetition before the echo", seconds=4)
    query = """select state from outbox o join messages m on m.id = o.message_id where m.wamid = %(wamid)s"""
    assert [row["state"] for row in stack.sql(query, {"wamid": sent.wamid})] != ["sent"]
    stack.graph_statuses(enabled=True)
    eventually(
        lambda: [row["state"] for row in stack.sql(query, {"wamid": sent.wamid})] == ["sent"],
        "the echo to close the row",
    )
    follow_up = traffic.send(sent.sender)
    assert follow_up.sender == sent.sender
    traffic.verify()


def test_a_send_that_never_arrived_is_repeated_after_the_echo_time(stack: Stack, traffic: Traffic) -> None:
    stack.fail("graph_double", "timeout", count=1)
    traffic.send(new_phone())
    traffic.verify(limit=90)
