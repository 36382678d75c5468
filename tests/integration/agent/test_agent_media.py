# SPDX-License-Identifier: GPL-3.0-or-later
"""Media through the whole agent: fetched where it is switched on, never in the way of the answer."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator
from typing import Any

import pytest

from tests.integration.agent.stack import MESSAGE_LOG, Stack
from tests.integration.agent.traffic import Traffic, new_phone, post, text_message, webhook
from tests.integration.agent.waiting import eventually, never

PICTURE = b"\xff\xd8\xff" + bytes(range(256)) * 400


@pytest.fixture
def fetching(stack: Stack) -> Iterator[Stack]:
    """The stack with a worker that fetches from the double."""
    stack.session.discard(stack.worker)
    stack.worker = stack.agent_service(
        "worker",
        "worker",
        {"MEDIA_FETCH": "true", "MEDIA_ORIGINS": "http://graph_double:9001", "MEDIA_MAX_BYTES": "200000"},
    )
    stack.worker.start()
    yield stack
    stack.session.discard(stack.worker)
    stack.worker = stack.agent_service("worker", "worker")
    stack.worker.start()


def offer(stack: Stack, media_id: str, content: bytes = PICTURE, **more: Any) -> None:
    order = {"id": media_id, "mime_type": "image/jpeg", "content": base64.b64encode(content).decode(), **more}
    stack.http("graph_double").post("/_double/media", json=order).raise_for_status()


def image(media_id: str, caption: str = "o que é isto?") -> dict[str, Any]:
    message = text_message(new_phone(), "")
    del message["text"]
    return {**message, "type": "image", "image": {"id": media_id, "mime_type": "image/jpeg", "caption": caption}}


def state(stack: Stack, wamid: str) -> dict[str, Any] | None:
    rows = stack.sql(
        "select media.state, sha256, bytes, error from media join messages m on m.id = message_id where wamid = %(wamid)s",
        {"wamid": wamid},
    )
    return rows[0] if rows else None


def become(stack: Stack, wamid: str, wanted: str) -> dict[str, Any]:
    """Wait until the file of this message is in that state; its row."""
    eventually(lambda: (state(stack, wamid) or {}).get("state") == wanted, f"the file to be {wanted}")
    return state(stack, wamid) or {}


def answers_to(stack: Stack, phone: str) -> list[str]:
    return [send["text"] for send in stack.sends() if send["to"] == phone]


def test_a_picture_is_kept_and_its_caption_answered(fetching: Stack) -> None:
    offer(fetching, "2001")
    message = image("2001")
    assert post(fetching, webhook([message])).status_code == 200
    (answer,) = eventually(lambda: answers_to(fetching, message["from"]), "the answer")
    assert "o que é isto?" in answer
    seen = become(fetching, message["id"], "stored")
    digest = hashlib.sha256(PICTURE).hexdigest()
    assert (seen["sha256"], seen["bytes"]) == (digest, len(PICTURE))
    told = fetching.worker.run(["sha256sum", f"{MESSAGE_LOG}/media/{digest}"])
    assert told.split()[0] == digest


@pytest.mark.parametrize(
    ("media_id", "more", "reason"),
    [
        ("2002", {"told": {"url": "http://postgres:5432/"}}, "MEDIA_ORIGINS"),
        ("2003", {"content": b"x" * 200_001}, "MEDIA_MAX_BYTES"),
        ("2004", {"mime_type": "application/x-sh"}, "MEDIA_TYPES"),
    ],
)
def test_what_is_not_fetched_is_answered_all_the_same(
    fetching: Stack, media_id: str, more: dict[str, Any], reason: str
) -> None:
    offer(fetching, media_id, **more)
    message = image(media_id)
    assert post(fetching, webhook([message])).status_code == 200
    eventually(lambda: answers_to(fetching, message["from"]), "the answer")
    seen = become(fetching, message["id"], "failed")
    assert reason in seen["error"]


def test_nothing_is_fetched_unless_it_is_switched_on(stack: Stack, traffic: Traffic) -> None:
    offer(stack, "2005")
    message = image("2005")
    assert post(stack, webhook([message])).status_code == 200
    eventually(lambda: answers_to(stack, message["from"]), "the answer")
    fetched = lambda: "2005" in stack.http("graph_double").get("/_double/media").json()["fetched"]  # noqa: E731
    never(fetched, "a fetch though it is switched off", seconds=3)
    assert state(stack, message["id"]) is None
    traffic.send(new_phone())
    traffic.verify()
