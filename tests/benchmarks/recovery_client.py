# SPDX-License-Identifier: GPL-3.0-or-later
"""Meta's side: a client that keeps sending while the database is broken and mended, and what became of its messages.

What was acknowledged is compared with rows read by a plain psql and with the Graph double's record, neither of which is the
product's way of looking.
"""

from __future__ import annotations

import json
import threading
import time
import uuid
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

from tests.benchmarks.recovery_faults import load_module
from tests.benchmarks.recovery_server import BenchmarkError, Server

PAUSE_S = 0.25
SETTLE_LIMIT_S = 120.0
POLL_S = 1.0
READ_SENDS = "import urllib.request as r; print(r.urlopen('http://127.0.0.1:9001/_double/sends').read().decode())"


# It knows what Meta sends and how it signs, and how such an account is settled.
_traffic = load_module("webhook_traffic")


@dataclass(frozen=True)
class Account:
    """What became of acknowledged messages; each field holds the ids (wamid) of such messages."""

    acknowledged: int
    lost: frozenset[str]
    answered_twice: frozenset[str]
    unanswered: frozenset[str]

    @property
    def settled(self) -> bool:
        return not (self.lost or self.answered_twice or self.unanswered)


@dataclass
class Client:
    """Sends one message after another from ever new people, and logs each that was answered 200."""

    server: Server
    ledger_file: Path
    acknowledged: list[dict[str, str]] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def __post_init__(self) -> None:
        env = self.server.env()
        self._secret, self._phone = env["META_APP_SECRET"], env["PHONE_NUMBER_ID"]
        self._webhook = f"https://{self.server.address()}/webhook"

    def __enter__(self) -> Client:
        self._stop.clear()
        self._thread = threading.Thread(target=self._run, name="client", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        assert self._thread is not None
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        with self.ledger_file.open("a", encoding="utf-8") as ledger:
            while not self._stop.is_set():
                self._send(ledger)
                self._stop.wait(PAUSE_S)

    def _send(self, ledger: TextIO) -> None:
        wamid = f"wamid.{uuid.uuid4().hex.upper()}"
        # A person of its own for each message: what is sent to that number is the answer to this message.
        sender = _traffic.somebody()
        body = _traffic.text_webhook(self._phone, sender, wamid, "Qual o horario de atendimento?")
        try:
            status = _traffic.post(self._webhook, body, self._secret)
        except OSError as error:
            status = str(error)
        if status != 200:
            self.refused.append(f"{time.strftime('%H:%M:%S')} {status}")
            return
        entry = {"wamid": wamid, "from": sender}
        self.acknowledged.append(entry)
        ledger.write(json.dumps(entry) + "\n")
        ledger.flush()

    # The account -----------------------------------------------------------------------------------------------------

    def account(self, since: int = 0) -> Account:
        """Compare the messages acknowledged from the `since`-th on with what is stored and what was sent to Graph."""
        entries = self.acknowledged[since:]
        stored = Counter(self.server.sql("select wamid from messages where phone_number_id <> 'benchmark'").split())
        sends = json.loads(self.server.run("python3", "-c", READ_SENDS))
        told = _traffic.account(entries, stored, [send["to"] for send in sends if send["type"] == "text"])
        return Account(len(entries), *(frozenset(told[name]) for name in ("lost", "answered_twice", "unanswered")))

    def settle(self, since: int = 0) -> Account:
        """Wait until each is stored and answered, or the time is up; what is missing then is what the account says."""
        deadline = time.monotonic() + SETTLE_LIMIT_S
        while True:
            account = self.account(since)
            if account.settled or account.answered_twice or time.monotonic() > deadline:
                return account
            time.sleep(POLL_S)

    def need_traffic(self, at_least: int, since: int) -> None:
        """Wait until that many messages were acknowledged since; raise when the agent acknowledges none."""
        deadline = time.monotonic() + SETTLE_LIMIT_S
        while len(self.acknowledged) - since < at_least:
            if time.monotonic() > deadline:
                raise BenchmarkError(f"the agent acknowledges nothing; it answered {self.refused[-3:]}")
            time.sleep(PAUSE_S)
