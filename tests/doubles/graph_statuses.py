# SPDX-License-Identifier: GPL-3.0-or-later
"""Signed status webhooks, delivered in the background until the agent answers 200, as Meta does."""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
import ssl
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple

import httpx

from .graph_errors import ORDERED
from .settings import GraphSettings

LOG = logging.getLogger(__name__)

KINDS = ("sent", "delivered", "read", "failed")
DEFAULT_KINDS = ("sent", "delivered", "read")
FIRST_PAUSE_S = 0.25
LONGEST_PAUSE_S = 4.0


class Due(NamedTuple):
    """One status still to be delivered."""

    send: dict[str, Any]
    kind: str


def status_body(due: Due, now: int) -> dict[str, Any]:
    """The webhook body Meta would post for this status at Unix time ``now``."""
    payload = due.send["payload"]
    status: dict[str, Any] = {"id": due.send["wamid"], "status": due.kind, "timestamp": str(now)}
    if payload.get("to"):
        status["recipient_id"] = str(payload["to"]).lstrip("+")
    else:
        status["recipient_user_id"] = payload["recipient"]
    if due.kind in ("sent", "delivered"):
        status["pricing"] = {
            "billable": False,
            "pricing_model": "PMP",
            "type": "free_customer_service",
            "category": "service",
        }
    if due.kind == "failed":
        error = ORDERED["not_allowed"]
        status["errors"] = [
            {
                "code": error.code,
                "title": error.title,
                "message": error.title,
                "error_data": {"details": error.details},
                "href": "https://developers.facebook.com/docs/whatsapp/cloud-api/support/error-codes/",
            }
        ]
    if due.send["biz_opaque_callback_data"] is not None:
        status["biz_opaque_callback_data"] = due.send["biz_opaque_callback_data"]
    value = {
        "messaging_product": "whatsapp",
        "metadata": {"display_phone_number": "15550783881", "phone_number_id": due.send["phone_number_id"]},
        "statuses": [status],
    }
    return {
        "object": "whatsapp_business_account",
        "entry": [{"id": "102290129340398", "changes": [{"value": value, "field": "messages"}]}],
    }


def signature(secret: str, body: bytes) -> str:
    """Value of ``X-Hub-Signature-256`` for these bytes."""
    return "sha256=" + hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()


class StatusDelivery:
    """A queue and the thread that empties it.

    While switched off, statuses wait; switched on again, all of them go out, as after an outage at Meta.
    """

    def __init__(self, settings: GraphSettings, delivered: Callable[[Due], None]) -> None:
        self._settings = settings
        self._delivered = delivered
        self._changed = threading.Condition()
        self._queue: deque[Due] = deque()
        self._enabled = True
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="statuses", daemon=True)

    def start(self) -> None:
        if self._settings.webhook_url:
            self._thread.start()

    def stop(self) -> None:
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        if self._thread.is_alive():
            self._thread.join()

    def put(self, send: dict[str, Any], kinds: list[str]) -> None:
        with self._changed:
            self._queue.extend(Due(send, kind) for kind in kinds)
            self._changed.notify_all()

    def enable(self, enabled: bool) -> None:
        with self._changed:
            self._enabled = enabled
            self._changed.notify_all()

    def clear(self) -> None:
        with self._changed:
            self._queue.clear()

    def pending(self) -> int:
        with self._changed:
            return len(self._queue)

    def _run(self) -> None:
        verify: ssl.SSLContext | bool = True
        if self._settings.webhook_ca_file:
            verify = ssl.create_default_context(cafile=self._settings.webhook_ca_file)
        pause = FIRST_PAUSE_S
        with httpx.Client(timeout=10.0, verify=verify) as client:
            while (due := self._next()) is not None:
                if self._deliver(client, due):
                    pause = FIRST_PAUSE_S
                    self._delivered(due)
                    self._drop(due)
                    continue
                with self._changed:
                    # To the tail, so that one body the agent refuses does not stand in the way of all others.
                    if self._queue and self._queue[0] is due:
                        self._queue.rotate(-1)
                    self._changed.wait_for(lambda: self._stopping, timeout=pause)
                pause = min(pause * 2, LONGEST_PAUSE_S)

    def _next(self) -> Due | None:
        """The status to deliver now; waits for one. It stays in the queue until it is delivered."""
        with self._changed:
            self._changed.wait_for(lambda: self._stopping or (self._enabled and bool(self._queue)))
            return None if self._stopping else self._queue[0]

    def _drop(self, due: Due) -> None:
        with self._changed:
            # A reset may have emptied the queue while the status was under way.
            if self._queue and self._queue[0] is due:
                self._queue.popleft()

    def _deliver(self, client: httpx.Client, due: Due) -> bool:
        body = json.dumps(status_body(due, int(time.time())), separators=(",", ":")).encode()
        headers = {
            "Content-Type": "application/json",
            "User-Agent": "facebookexternalua",
            "X-Hub-Signature-256": signature(self._settings.app_secret, body),
        }
        try:
            answer = client.post(self._settings.webhook_url, content=body, headers=headers)
        except httpx.HTTPError as error:
            LOG.warning("status %s not delivered: %s", due.kind, error)
            return False
        if answer.status_code != 200:
            LOG.warning("status %s not delivered: HTTP %d", due.kind, answer.status_code)
        return answer.status_code == 200
