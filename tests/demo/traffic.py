# SPDX-License-Identifier: GPL-3.0-or-later
"""Signed WhatsApp messages into the local stack, and what became of each, seen from outside the agent."""

from __future__ import annotations

import hashlib
import hmac
import json
import time
import uuid
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import psycopg

STACK = Path("/opt/whats_agent")
SOCKET = STACK / "run" / "postgres"
WEBHOOK = "http://127.0.0.1:8000/webhook"
GRAPH_DOUBLE = "http://127.0.0.1:9001"
POLL_S = 0.2


@dataclass(frozen=True)
class Sent:
    """One message the agent acknowledged: Meta's id for it, and its text."""

    wamid: str
    text: str


@dataclass(frozen=True)
class Count:
    """How many acknowledged messages are not in the database, have two answers, or none."""

    acknowledged: int
    lost: int
    answered_twice: int
    unanswered: int


def read_env(path: Path) -> dict[str, str]:
    """Read `NAME=value` lines; the stack's `.env` quotes nothing."""
    pairs = (line.split("=", 1) for line in path.read_text("utf-8").splitlines() if "=" in line and line[:1] != "#")
    return {name.strip(): value.strip() for name, value in pairs}


def text_webhook(phone_number_id: str, sender: str, wamid: str, text: str) -> bytes:
    """Build the body Meta sends for one text message."""
    message = {"from": sender, "id": wamid, "timestamp": str(int(time.time())), "type": "text", "text": {"body": text}}
    value = {
        "messaging_product": "whatsapp",
        "metadata": {"display_phone_number": "5511999990000", "phone_number_id": phone_number_id},
        "contacts": [{"profile": {"name": "Cliente"}, "wa_id": sender}],
        "messages": [message],
    }
    body = {
        "object": "whatsapp_business_account",
        "entry": [{"id": "1", "changes": [{"field": "messages", "value": value}]}],
    }
    return json.dumps(body).encode()


@dataclass
class Traffic:
    """A client that remembers every message the agent acknowledged."""

    phone_number_id: str
    app_secret: bytes = field(repr=False)
    acknowledged: list[Sent] = field(default_factory=list)

    @classmethod
    def of_local_stack(cls) -> Traffic:
        """Read the local stack's settings."""
        env = read_env(STACK / ".env")
        return cls(env["PHONE_NUMBER_ID"], env["META_APP_SECRET"].encode())

    def send(self, how_many: int) -> list[Sent]:
        """Send that many messages from different people; raise RuntimeError unless each is answered 200."""
        sent = []
        for _ in range(how_many):
            number = len(self.acknowledged) + 1
            key = uuid.uuid4().hex.upper()
            # The text is unique over all runs: the Graph double forgets no answer.
            message = Sent(f"wamid.{key}", f"Mensagem {number} ({key[:8]}): qual é o horário de atendimento?")
            body = text_webhook(self.phone_number_id, f"55119{number:08d}", message.wamid, message.text)
            signature = hmac.new(self.app_secret, body, hashlib.sha256).hexdigest()
            headers = {"Content-Type": "application/json", "X-Hub-Signature-256": f"sha256={signature}"}
            response = httpx.post(WEBHOOK, content=body, headers=headers, timeout=10)
            if response.status_code != httpx.codes.OK:
                raise RuntimeError(f"the webhook answered {response.status_code} to {message.wamid}, not 200")
            self.acknowledged.append(message)
            sent.append(message)
        return sent

    def answers(self) -> dict[str, list[str]]:
        """Texts the Graph double accepted, by the wamid of the message each one answers."""
        by_text = {message.text: message.wamid for message in self.acknowledged}
        found: dict[str, list[str]] = defaultdict(list)
        for send in httpx.get(f"{GRAPH_DOUBLE}/_double/sends", timeout=10).raise_for_status().json():
            for text, wamid in by_text.items():
                if send["type"] == "text" and text in send["text"]:
                    found[wamid].append(send["text"])
        return found

    def stored(self) -> set[str]:
        """Wamids in PostgreSQL, over a connection of our own."""
        with psycopg.connect(host=str(SOCKET), dbname="whats_agent", user="postgres", connect_timeout=5) as connection:
            return {row[0] for row in connection.execute("select wamid from messages")}

    def count(self) -> Count:
        """Compare what was acknowledged with what is stored and what was answered."""
        stored, answers = self.stored(), self.answers()
        wamids = [message.wamid for message in self.acknowledged]
        return Count(
            acknowledged=len(wamids),
            lost=sum(wamid not in stored for wamid in wamids),
            answered_twice=sum(len(answers.get(wamid, [])) > 1 for wamid in wamids),
            unanswered=sum(not answers.get(wamid) for wamid in wamids),
        )

    def wait_until_answered(self, deadline_s: float) -> None:
        """Wait until every acknowledged message has an answer; raise TimeoutError naming how many have none."""
        end = time.monotonic() + deadline_s
        while True:
            answers = self.answers()
            missing = sum(not answers.get(message.wamid) for message in self.acknowledged)
            if not missing:
                return
            if time.monotonic() > end:
                raise TimeoutError(
                    f"{missing} of {len(self.acknowledged)} messages have no answer after {deadline_s:.0f} s"
                )
            time.sleep(POLL_S)
