# SPDX-License-Identifier: GPL-3.0-or-later
"""A closed-loop HTTP load generator: N kept-alive connections, each sends its next request when the last was answered.

Requests are built and signed beforehand, so that the generator costs little: it shares the machine with the server.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import selectors
import socket
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import cycle

PHONE_NUMBER_ID = "106540352242922"
CONNECT_TIMEOUT_S = 5.0
ANSWER_TIMEOUT_S = 15.0


def body(number: int, run: str, timestamp: int) -> bytes:
    """A text message as Meta sends it, with ``user_id``: pywa calls no handler without one."""
    sender = f"55119{80_000_000 + number % 5_000:08d}"
    value = {
        "messaging_product": "whatsapp",
        "metadata": {"display_phone_number": "15550783881", "phone_number_id": PHONE_NUMBER_ID},
        "contacts": [{"profile": {"name": "Sheena Nelson"}, "wa_id": sender, "user_id": f"BR.{sender}"}],
        "messages": [
            {
                "from": sender,
                "from_user_id": f"BR.{sender}",
                "id": f"wamid.{run}{number:012d}",
                "timestamp": str(timestamp),
                "text": {"body": "Tem em outra cor? Gostaria de saber o prazo de entrega e as formas de pagamento."},
                "type": "text",
            }
        ],
    }
    entry = {"id": "102290129340398", "changes": [{"value": value, "field": "messages"}]}
    return json.dumps({"object": "whatsapp_business_account", "entry": [entry]}, ensure_ascii=False).encode()


def request(secret: str, content: bytes) -> bytes:
    """The whole signed HTTP request."""
    digest = hmac.new(secret.encode(), content, hashlib.sha256).hexdigest()
    head = (
        "POST /webhook HTTP/1.1\r\nHost: 127.0.0.1\r\nUser-Agent: facebookexternalua\r\n"
        "Content-Type: application/json\r\n"
        f"Content-Length: {len(content)}\r\nX-Hub-Signature-256: sha256={digest}\r\nAccept: */*\r\n\r\n"
    )
    return head.encode() + content


def requests(secret: str, count: int, run: str) -> list[bytes]:
    """``count`` different signed requests; ``run`` makes their wamids unlike another run's."""
    now = int(time.time())
    return [request(secret, body(number, run, now)) for number in range(count)]


@dataclass
class Result:
    """What one run of the load saw; latencies in seconds."""

    seconds: float
    statuses: Counter[str] = field(default_factory=Counter)
    latencies: list[float] = field(default_factory=list)

    @property
    def answered(self) -> int:
        return self.statuses.total() - self.statuses["none"]

    @property
    def per_second(self) -> float:
        return self.answered / self.seconds

    @property
    def not_200(self) -> int:
        return self.statuses.total() - self.statuses["200"]

    def percentile_ms(self, percent: float) -> float:
        """The smallest latency that ``percent`` of the requests did not exceed."""
        ordered = sorted(self.latencies)
        if not ordered:
            return float("nan")
        return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))] * 1000


class _Connection:
    """One kept-alive connection and what it waits for."""

    __slots__ = ("buffer", "sent_at", "socket")

    def __init__(self, address: tuple[str, int]) -> None:
        self.socket = socket.create_connection(address, timeout=CONNECT_TIMEOUT_S)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.buffer = b""
        self.sent_at = 0.0

    def send(self, raw: bytes) -> None:
        # Blocking is right: a request of one kilobyte always fits the socket's buffer.
        self.sent_at = time.perf_counter()
        self.socket.sendall(raw)

    def read(self) -> tuple[str, bool] | None:
        """``(status, keep alive)`` once the answer is whole, ``("none", False)`` when the server hung up."""
        received = self.socket.recv(65536)
        if not received:
            return "none", False
        self.buffer += received
        end = self.buffer.find(b"\r\n\r\n")
        if end < 0:
            return None
        head = self.buffer[:end].lower()
        start = head.find(b"content-length:")
        length = int(head[start + 15 :].split(b"\r\n", 1)[0]) if start >= 0 else 0
        if len(self.buffer) < end + 4 + length:
            return None
        status = self.buffer[9:12].decode()
        keep = b"connection: close" not in head
        self.buffer = b""
        return status, keep


class Load:
    """Runs the load from one list of requests, never the same one twice until all were used."""

    def __init__(self, address: tuple[str, int], prepared: list[bytes]) -> None:
        self._address = address
        self._requests: Iterator[bytes] = cycle(prepared)

    def run(self, connections: int, seconds: float) -> Result:
        """Keep ``connections`` busy for ``seconds``, then wait for the last answers."""
        selector = selectors.DefaultSelector()
        result = Result(0.0)
        for _ in range(connections):
            self._begin(selector, _Connection(self._address))
        started = time.perf_counter()
        stop_at = started + seconds
        while selector.get_map():
            ready = selector.select(timeout=ANSWER_TIMEOUT_S)
            if not ready:
                # Nobody was answered for so long: what is still open counts as unanswered.
                for key in list(selector.get_map().values()):
                    result.statuses["none"] += 1
                    self._end(selector, key.data)
                break
            for key, _ in ready:
                self._handle(selector, key.data, result, stop_at)
        result.seconds = time.perf_counter() - started
        selector.close()
        return result

    def _begin(self, selector: selectors.BaseSelector, connection: _Connection) -> None:
        selector.register(connection.socket, selectors.EVENT_READ, connection)
        connection.send(next(self._requests))

    @staticmethod
    def _end(selector: selectors.BaseSelector, connection: _Connection) -> None:
        selector.unregister(connection.socket)
        connection.socket.close()

    def _handle(
        self, selector: selectors.BaseSelector, connection: _Connection, result: Result, stop_at: float
    ) -> None:
        try:
            answer = connection.read()
        except OSError:
            answer = ("none", False)
        if answer is None:
            return
        status, keep = answer
        now = time.perf_counter()
        result.statuses[status] += 1
        result.latencies.append(now - connection.sent_at)
        if now >= stop_at:
            self._end(selector, connection)
        elif keep:
            connection.send(next(self._requests))
        else:
            self._end(selector, connection)
            self._begin(selector, _Connection(self._address))
