# SPDX-License-Identifier: GPL-3.0-or-later
"""Two worker processes on one log and one database: each message answered once, in order, and counted once."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from tests.integration.agent.containers import Service
from tests.integration.agent.stack import Stack
from tests.integration.agent.traffic import Traffic, new_phone
from tests.integration.agent.waiting import eventually
from whats_agent.openai_client.shared_breaker import KEY

# Few threads each, so that one worker alone could not do it all.
FEW = {"SENDER_THREADS": "3", "BREAKER_FAILURES": "2", "BREAKER_OPEN_SECONDS": "120"}


@pytest.fixture
def workers(stack: Stack) -> Iterator[tuple[Service, Service]]:
    """The session's worker and another one, both with few threads."""
    stack.session.discard(stack.worker)
    stack.worker = stack.agent_service("worker", "worker", FEW)
    second = stack.agent_service("worker_two", "worker", FEW)
    try:
        for worker in (stack.worker, second):
            worker.start()
        eventually(lambda: part(stack, "workers") == 2, "both workers to be seen", 60)
        yield stack.worker, second
    finally:
        stack.session.discard(second)
        stack.session.discard(stack.worker)
        # What they shared outlives them.
        stack.redis.run(["sh", "-c", f"REDISCLI_AUTH=$REDIS_PASSWORD redis-cli del {KEY}"])
        stack.worker = stack.agent_service("worker", "worker")
        stack.worker.start()


def part(stack: Stack, name: str) -> object:
    """What the app says about the workers."""
    return stack.http("app").get("/health").json()["parts"]["worker"].get(name)


def counted(stack: Stack, name: str) -> float:
    """One number of ``/metrics``."""
    page = stack.http("app").get("/metrics").raise_for_status().text
    found = re.search(rf"^{re.escape(name)} (\S+)$", page, re.MULTILINE)
    assert found, f"{name} is not on the page"
    return float(found[1])


SENT = 'whats_agent_answers_total{source="openai"}'
MESSAGES = 'whats_agent_items_total{kind="message"}'
SECONDS = "whats_agent_answer_seconds_count"


def test_two_workers_share_the_work(stack: Stack, traffic: Traffic, workers: tuple[Service, Service]) -> None:
    before = {name: counted(stack, name) for name in (SENT, MESSAGES, SECONDS)}
    traffic.conversations(people=12, each=6)
    counts = traffic.verify()
    assert counts["acknowledged"] == 72
    # The last results are counted a moment after Graph took the answers.
    eventually(lambda: counted(stack, SENT) - before[SENT] >= 72, "all answers to be counted")
    assert {name: counted(stack, name) - before[name] for name in before} == {SENT: 72, MESSAGES: 72, SECONDS: 72}
    sent_by = [
        worker.run(["grep", "-c", "event=send outcome=sent", "/var/log/whats_agent/app.log"]) for worker in workers
    ]
    assert all(int(number) > 0 for number in sent_by), f"one did everything: {sent_by}"


def test_one_of_two_dies_and_the_other_goes_on(
    stack: Stack, traffic: Traffic, workers: tuple[Service, Service]
) -> None:
    """Whichever projects or sends at that moment: killed in turn under load, the account must come out even."""
    stop = traffic.until_stopped(people=6, pause=0.6)
    try:
        for worker in (*workers, *workers):
            answered = traffic.answered()
            worker.kill()
            eventually(lambda before=answered: traffic.answered() > before + 6, "the other one to answer", 60)  # type: ignore[misc]
            worker.start()
    finally:
        stop()
    counts = traffic.verify(limit=180)
    assert counts["not_200"] == 0


def test_the_breaker_of_one_holds_the_other_back(
    stack: Stack, traffic: Traffic, workers: tuple[Service, Service]
) -> None:
    stack.fail("openai_double", "server_error")
    for _ in range(4):
        traffic.send(new_phone())
    traffic.verify(texts=False)
    stack.fail("openai_double", "off")

    others = Traffic(stack)
    for _ in range(8):
        others.send(new_phone())
    others.verify(texts=False)
    calls = stack.http("openai_double").get("/_double/calls").raise_for_status().json()
    asked = {sent.text for sent in others.acknowledged} & {call["text"] for call in calls}
    assert asked == set(), "a worker asked OpenAI while the breaker was open"
    assert {send["text"] for sends in others.answers_by_sender().values() for send in sends} == {
        send["text"] for sends in traffic.answers_by_sender().values() for send in sends
    }
