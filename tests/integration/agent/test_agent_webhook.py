# SPDX-License-Identifier: GPL-3.0-or-later
"""What the webhook takes, what it refuses, and that each message is answered once and in order."""

from __future__ import annotations

import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from tests.integration.agent.stack import Stack
from tests.integration.agent.traffic import (
    Traffic,
    encode,
    new_phone,
    new_wamid,
    post,
    signed_headers,
    text_message,
    webhook,
)
from tests.integration.agent.waiting import eventually, never


def stored(stack: Stack, wamid: str) -> int:
    (row,) = stack.sql("select count(*) as n from messages where wamid = %(wamid)s", {"wamid": wamid})
    count: int = row["n"]
    return count


def answers_to(stack: Stack, phone: str) -> list[dict[str, Any]]:
    return [send for send in stack.sends() if send["to"] == phone]


def handshake(stack: Stack, **changed: str) -> httpx.Response:
    query = {"hub.mode": "subscribe", "hub.verify_token": stack.verify_token, "hub.challenge": "1158201444", **changed}
    return stack.http("app").get("/webhook", params=query)


def test_handshake_returns_the_bare_challenge(stack: Stack) -> None:
    answer = handshake(stack)
    assert (answer.status_code, answer.text) == (200, "1158201444")
    assert answer.headers["content-type"].startswith("text/plain")


@pytest.mark.parametrize(
    "changed", [{"hub.verify_token": "wrong"}, {"hub.verify_token": ""}, {"hub.mode": "unsubscribe"}]
)
def test_handshake_refuses(stack: Stack, changed: dict[str, str]) -> None:
    answer = handshake(stack, **changed)
    assert answer.status_code in (400, 401, 403)
    assert "1158201444" not in answer.text


@pytest.mark.parametrize("kind", ["none", "wrong", "other bytes", "sha1", "not ascii"])
def test_unsigned_or_wrongly_signed_is_refused_and_not_stored(stack: Stack, kind: str) -> None:
    message = text_message(new_phone(), "de um estranho")
    raw = encode(webhook([message]))
    header = {
        "none": None,
        "wrong": signed_headers("not the app's secret", raw)["X-Hub-Signature-256"],
        "other bytes": signed_headers(stack.app_secret, raw + b" ")["X-Hub-Signature-256"],
        "sha1": "sha1=0000000000000000000000000000000000000000",
        "not ascii": "sha256=ção",
    }[kind]
    headers = [] if header is None else [(b"X-Hub-Signature-256", header.encode())]
    answer = stack.http("app").post("/webhook", content=raw, headers=headers)
    assert answer.status_code in (401, 403)
    # A message accepted later is projected in order: once it is there, the refused one would be too.
    later = text_message(new_phone(), "depois")
    assert post(stack, webhook([later])).status_code == 200
    eventually(lambda: stored(stack, later["id"]), "the later message to be stored")
    assert stored(stack, message["id"]) == 0


def test_a_message_is_answered_once_with_what_openai_said(stack: Stack, traffic: Traffic) -> None:
    sent = traffic.send(new_phone(), "Qual o horário de funcionamento?")
    traffic.verify()
    (answer,) = answers_to(stack, sent.sender)
    assert "Qual o horário de funcionamento?" in answer["text"]
    assert answer["biz_opaque_callback_data"]
    assert answer["payload"]["messaging_product"] == "whatsapp"


def test_the_same_delivery_many_times_at_once_is_one_message(stack: Stack, traffic: Traffic) -> None:
    message = text_message(new_phone(), "repetida")
    raw = encode(webhook([message]))
    with ThreadPoolExecutor(8) as pool:
        statuses = list(pool.map(lambda _: post(stack, raw).status_code, range(16)))
    assert statuses == [200] * 16
    eventually(lambda: answers_to(stack, message["from"]), "the answer")
    assert post(stack, raw).status_code == 200
    traffic.send(new_phone())
    traffic.verify()
    assert stored(stack, message["id"]) == 1
    assert len(answers_to(stack, message["from"])) == 1


def test_order_is_kept_in_each_conversation(traffic: Traffic) -> None:
    traffic.conversations(people=6, each=6)
    counts = traffic.verify()
    assert counts["acknowledged"] == 36


def test_several_messages_in_one_delivery_are_each_answered_in_order(stack: Stack) -> None:
    phone = new_phone()
    messages = [text_message(phone, f"parte {number}") for number in range(5)]
    assert post(stack, webhook(messages)).status_code == 200
    eventually(lambda: len(answers_to(stack, phone)) >= 5, "five answers")
    answers = answers_to(stack, phone)
    assert [f"parte {number}" in answer["text"] for number, answer in enumerate(answers)] == [True] * 5


def test_a_broken_item_does_not_spoil_its_batch(stack: Stack, traffic: Traffic) -> None:
    good = [text_message(new_phone(), "antes"), text_message(new_phone(), "depois")]
    broken: list[Any] = [
        None,
        7,
        {"type": "text"},
        {"from": [], "id": {}, "type": "text", "text": "x", "timestamp": "ontem"},
    ]
    body = webhook(good)
    body["entry"][0]["changes"][0]["value"]["messages"] = [good[0], *broken, good[1]]
    body["entry"] = [None, {"changes": "none"}, *body["entry"]]
    assert post(stack, body).status_code == 200
    for message in good:
        eventually(lambda m=message: answers_to(stack, m["from"]), "the good messages to be answered")  # type: ignore[misc]
    traffic.send(new_phone())
    traffic.verify()


@pytest.mark.parametrize(
    "raw", [b"", b"not json", b"[]", b"\xff\xfe\x00", b'{"object":"page","entry":[]}', b"[" * 50_000]
)
def test_signed_nonsense_is_taken_and_stops_nothing(stack: Stack, traffic: Traffic, raw: bytes) -> None:
    assert post(stack, raw).status_code == 200
    traffic.send(new_phone())
    traffic.verify()


def test_reactions_and_foreign_numbers_are_stored_but_not_answered(stack: Stack, traffic: Traffic) -> None:
    reaction: dict[str, Any] = {
        "from": new_phone(),
        "id": new_wamid(),
        "timestamp": "1749416383",
        "type": "reaction",
        "reaction": {"message_id": new_wamid(), "emoji": "👍"},
    }
    foreign = text_message(new_phone(), "para outro número")
    assert post(stack, webhook([reaction])).status_code == 200
    assert post(stack, webhook([foreign], phone_number_id="999999999999999")).status_code == 200
    traffic.send(new_phone())
    traffic.verify()
    eventually(lambda: stored(stack, reaction["id"]), "the reaction to be stored")
    assert answers_to(stack, reaction["from"]) == []
    assert answers_to(stack, foreign["from"]) == []


def test_a_probe_reaches_the_database_and_is_answered_to_nobody(stack: Stack) -> None:
    probe_id = str(uuid.uuid4())
    before = len(stack.sends())
    body = {
        "object": "whatsapp_business_account",
        "entry": [{"id": "probe", "changes": [{"field": "whats_agent_probe", "value": {"probe_id": probe_id}}]}],
    }
    assert post(stack, body).status_code == 200
    query = "select field from account_events where value ->> 'probe_id' = %(probe)s"
    rows = eventually(lambda: stack.sql(query, {"probe": probe_id}), "the probe in account_events")
    assert rows == [{"field": "whats_agent_probe"}]
    never(lambda: len(stack.sends()) > before, "a send after a probe", seconds=1)


def test_statuses_reach_the_database_and_only_advance(stack: Stack, traffic: Traffic) -> None:
    sent = traffic.send(new_phone())
    traffic.verify()
    (answer,) = answers_to(stack, sent.sender)
    query = "select delivery from outbox where wamid = %(wamid)s"
    read = [{"delivery": "read"}]
    eventually(lambda: stack.sql(query, {"wamid": answer["wamid"]}) == read, "the read status")
    body = webhook([])
    body["entry"][0]["changes"][0]["value"]["statuses"] = [
        {
            "id": answer["wamid"],
            "status": status,
            "timestamp": text_message("", "")["timestamp"],
            "recipient_id": sent.sender,
        }
        for status in ("delivered", "sent", "failed")
    ]
    assert post(stack, body).status_code == 200
    traffic.send(new_phone())
    traffic.verify()
    assert stack.sql(query, {"wamid": answer["wamid"]}) == read


def test_a_message_past_metas_window_is_stored_and_not_answered(stack: Stack, traffic: Traffic) -> None:
    late = text_message(new_phone(), "de ontem", timestamp=int(time.time()) - 25 * 3600)
    assert post(stack, webhook([late])).status_code == 200
    query = "select state from outbox o join messages m on m.id = o.message_id where m.wamid = %(wamid)s"
    eventually(lambda: stack.sql(query, {"wamid": late["id"]}) == [{"state": "expired"}], "the answer to expire")
    traffic.send(new_phone())
    traffic.verify()
    assert answers_to(stack, late["from"]) == []


def test_a_username_user_without_a_number_is_answered_by_recipient(stack: Stack) -> None:
    user_id = f"BR.{uuid.uuid4().int % 10**17}"
    message = text_message("", "sem número")
    del message["from"]
    message["from_user_id"] = user_id
    body = webhook([message])
    body["entry"][0]["changes"][0]["value"]["contacts"] = [
        {"profile": {"name": "Zé", "username": "ze"}, "user_id": user_id}
    ]
    assert post(stack, body).status_code == 200
    (answer,) = eventually(lambda: answers_to(stack, user_id), "the answer")
    assert answer["payload"]["recipient"] == user_id
    assert "to" not in answer["payload"]


def test_a_large_body_within_the_limit_is_taken_and_a_larger_one_refused(stack: Stack, traffic: Traffic) -> None:
    messages = [text_message(new_phone(), "x" * 3_000) for _ in range(300)]
    for message in messages:
        message["type"] = "unsupported"
    raw = encode(webhook(messages))
    assert 900_000 < len(raw) < 3_000_000
    assert post(stack, raw).status_code == 200
    assert post(stack, b" " * (4 * 1024 * 1024 + 1)).status_code == 413
    traffic.send(new_phone())
    traffic.verify()
