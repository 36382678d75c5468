# SPDX-License-Identifier: GPL-3.0-or-later
"""Webhooks as Meta sends them, a sender that delivers until it gets 200, and the account of what must come of it."""

from __future__ import annotations

import hashlib
import hmac
import itertools
import json
import random
import secrets
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import httpx

from tests.integration.agent.stack import PHONE_NUMBER_ID, Stack
from tests.integration.agent.waiting import TooLateError, eventually

REDELIVERY_LIMIT_S = 90.0
PERSON_LIMIT = 40
"""Messages of one person in a row: Meta lets 45 answers go to one at once, the next only after 6 s each."""

COUNTS: list[tuple[str, dict[str, int]]] = []
"""What each test's traffic came to, for the table at the end of the run."""


def new_wamid() -> str:
    return f"wamid.TEST{secrets.token_hex(16).upper()}"


def new_phone() -> str:
    return f"5511{random.randrange(10**8, 10**9)}"


def text_message(sender: str, text: str, wamid: str | None = None, timestamp: int | None = None) -> dict[str, Any]:
    return {
        "from": sender,
        "id": wamid or new_wamid(),
        "timestamp": str(timestamp if timestamp is not None else int(time.time())),
        "type": "text",
        "text": {"body": text},
    }


def webhook(messages: Sequence[dict[str, Any]], phone_number_id: str = PHONE_NUMBER_ID) -> dict[str, Any]:
    """A body with these messages in one change."""
    senders = dict.fromkeys(str(message["from"]) for message in messages if "from" in message)
    value = {
        "messaging_product": "whatsapp",
        "metadata": {"display_phone_number": "15550783881", "phone_number_id": phone_number_id},
        "contacts": [{"profile": {"name": "Maria Teste"}, "wa_id": sender} for sender in senders],
        "messages": list(messages),
    }
    return {
        "object": "whatsapp_business_account",
        "entry": [{"id": "102290129340398", "changes": [{"value": value, "field": "messages"}]}],
    }


def encode(body: Any) -> bytes:
    return json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()


def signed_headers(secret: str, body: bytes) -> dict[str, str]:
    digest = hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
    return {"Content-Type": "application/json", "X-Hub-Signature-256": f"sha256={digest}"}


def post(stack: Stack, body: Any, app: str = "app") -> httpx.Response:
    """Deliver once, signed."""
    raw = body if isinstance(body, bytes) else encode(body)
    return stack.http(app).post("/webhook", content=raw, headers=signed_headers(stack.app_secret, raw))


@dataclass(frozen=True)
class Sent:
    """One acknowledged message."""

    sender: str
    text: str
    wamid: str


class Traffic:
    """Sends messages of random people and remembers each that was acknowledged.

    Answers other than 200 are counted by status; no answer at all (the app was killed) counts as ``"none"``. Either way
    the message is delivered again, as Meta does.
    """

    def __init__(self, stack: Stack, name: str = "") -> None:
        self._stack = stack
        self._name = name
        self._lock = threading.Lock()
        self._numbers = itertools.count(1)
        self.acknowledged: list[Sent] = []
        self.answers: Counter[str] = Counter()
        self._stop = threading.Event()

    def send(self, sender: str, text: str | None = None) -> Sent:
        """Deliver one message until it is acknowledged."""
        text = text or f"mensagem {next(self._numbers)} {secrets.token_hex(4)}"
        message = text_message(sender, text)
        raw = encode(webhook([message]))
        deadline = time.monotonic() + REDELIVERY_LIMIT_S
        while not self._deliver(raw):
            if time.monotonic() > deadline:
                raise TooLateError(f"no 200 within {REDELIVERY_LIMIT_S:g} s: {dict(self.answers)}")
            time.sleep(0.2)
        sent = Sent(sender, text, message["id"])
        with self._lock:
            self.acknowledged.append(sent)
        return sent

    def _deliver(self, raw: bytes) -> bool:
        try:
            status = str(post(self._stack, raw).status_code)
        except httpx.HTTPError:
            status = "none"
        with self._lock:
            self.answers[status] += 1
        return status == "200"

    def conversations(self, people: int, each: int) -> None:
        """``people`` write at the same time, each waiting for the 200 before the next message."""
        senders = [new_phone() for _ in range(people)]
        with ThreadPoolExecutor(people) as pool:
            for done in [pool.submit(self._write, sender, each) for sender in senders]:
                done.result()

    def _write(self, sender: str, count: int) -> None:
        for _ in range(count):
            self.send(sender)

    def until_stopped(self, people: int, pause: float) -> Callable[[], None]:
        """Let ``people`` write in the background; call the result to stop them (raises what went wrong)."""
        pool = ThreadPoolExecutor(people)
        running = [pool.submit(self._keep_writing, new_phone(), pause) for _ in range(people)]

        def stop() -> None:
            self._stop.set()
            pool.shutdown(wait=True)
            for done in running:
                done.result()

        return stop

    def _keep_writing(self, sender: str, pause: float) -> None:
        for number in itertools.count(1):
            if self._stop.is_set():
                return
            self.send(sender)
            self._stop.wait(pause * random.uniform(0.5, 1.5))
            if number % PERSON_LIMIT == 0:
                sender = new_phone()

    # What must come of it.

    def answers_by_sender(self) -> dict[str, list[dict[str, Any]]]:
        senders = {sent.sender for sent in self.acknowledged}
        found: dict[str, list[dict[str, Any]]] = defaultdict(list)
        for send in self._stack.sends():
            if send["to"] in senders:
                found[send["to"]].append(send)
        return found

    def answered(self) -> int:
        return sum(len(sends) for sends in self.answers_by_sender().values())

    def verify(self, limit: float = 60.0, *, texts: bool = True) -> dict[str, int]:
        """Wait until every message is answered; then: stored once, answered once, in order. Returns the counts.

        Which send answers which message is read from the outbox, whose id each send carries. ``texts`` also wants the
        user's words in the answer; false when OpenAI was down and the fallback went out.
        """
        eventually(lambda: self.answered() >= len(self.acknowledged), "all answers", limit, pause=0.5)
        wamids = {"wamids": [sent.wamid for sent in self.acknowledged]}
        stored = self._stack.sql(
            "select wamid, count(*) as n from messages where wamid = any(%(wamids)s) group by wamid", wamids
        )
        answered_by = {
            str(row["id"]): str(row["wamid"])
            for row in self._stack.sql(
                "select o.id, m.wamid from outbox o join messages m on m.id = o.message_id where m.wamid = any(%(wamids)s)",
                wamids,
            )
        }
        by_sender: dict[str, list[Sent]] = defaultdict(list)
        for sent in self.acknowledged:
            by_sender[sent.sender].append(sent)
        twice = out_of_order = wrong_text = 0
        answers = self.answers_by_sender()
        for sender, messages in by_sender.items():
            sends = answers[sender]
            order = [answered_by.get(send["biz_opaque_callback_data"], "unknown") for send in sends]
            twice += len(order) - len(set(order)) + order.count("unknown")
            out_of_order += list(dict.fromkeys(order)) != [sent.wamid for sent in messages]
            words = {sent.wamid: sent.text for sent in messages}
            wrong_text += sum(
                words.get(wamid, "") not in send["text"] for wamid, send in zip(order, sends, strict=True)
            )
        counts = {
            "acknowledged": len(self.acknowledged),
            "stored": len(stored),
            "answered": self.answered(),
            "lost": len(self.acknowledged) - len(stored),
            "stored_twice": sum(row["n"] > 1 for row in stored),
            "answered_twice": twice,
            "out_of_order": out_of_order,
            "not_200": sum(count for status, count in self.answers.items() if status not in ("200", "none")),
            "no_answer": self.answers["none"],
        }
        if self._name:
            COUNTS.append((self._name, counts))
        assert [counts[key] for key in ("lost", "stored_twice", "answered_twice", "out_of_order")] == [0] * 4, counts
        assert counts["answered"] == counts["acknowledged"], counts
        assert not texts or wrong_text == 0, f"{wrong_text} answers do not repeat what was asked"
        return counts
