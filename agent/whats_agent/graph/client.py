# SPDX-License-Identifier: GPL-3.0-or-later
"""Sending through the Graph API with httpx."""

import logging
from collections.abc import Callable
from typing import Protocol
from uuid import UUID

import httpx

from whats_agent import logs
from whats_agent.graph.outcome import GraphAnswer, read_answer
from whats_agent.outbox.records import Outcome
from whats_agent.whatsapp.items import Json

MAX_TEXT = 4096
BEST_EFFORT_SECONDS = 5.0

_log = logging.getLogger("whats_agent.graph")


class Graph(Protocol):
    """What the sender needs of the Graph API."""

    def send_text(
        self, phone_number_id: str, wa_id: str | None, user_id: str | None, text: str, callback_data: UUID
    ) -> GraphAnswer:
        """Send ``text``; never raises for what the network or Meta does."""
        ...

    def mark_read(self, phone_number_id: str, wamid: str, *, typing: bool) -> bool:
        """Show the user that their message was read and, if wanted, that an answer is being written. Never raises."""
        ...


def text_message(wa_id: str | None, user_id: str | None, text: str, callback_data: UUID) -> Json:
    """The request's body. A user without a number is addressed by ``recipient``."""
    address = {"to": wa_id} if wa_id else {"recipient": user_id}
    return {
        "messaging_product": "whatsapp",
        "recipient_type": "individual",
        **address,
        "type": "text",
        "text": {"preview_url": False, "body": text[:MAX_TEXT]},
        "biz_opaque_callback_data": str(callback_data),
    }


def read_mark(wamid: str, *, typing: bool) -> Json:
    """The request's body."""
    body: Json = {"messaging_product": "whatsapp", "status": "read", "message_id": wamid}
    return {**body, "typing_indicator": {"type": "text"}} if typing else body


class GraphClient:
    """One connection pool for all sender threads.

    ``token`` is asked before each call, so that a replaced secret file takes effect without a restart. ``served_version`` is the
    version that Meta says it answered with; once the configured one is retired, Meta quietly answers with another.
    """

    def __init__(self, base_url: str, version: str, token: Callable[[], str], timeout: float) -> None:
        self.version = version
        self.served_version: str | None = None
        self._base = f"{base_url}/{version}"
        self._token = token
        self._http = httpx.Client(timeout=httpx.Timeout(timeout, connect=min(5.0, timeout)), trust_env=False)

    def send_text(
        self, phone_number_id: str, wa_id: str | None, user_id: str | None, text: str, callback_data: UUID
    ) -> GraphAnswer:
        """Send one text message and say what came of it."""
        try:
            response = self._post(phone_number_id, text_message(wa_id, user_id, text, callback_data))
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout) as error:
            # The request never left.
            return GraphAnswer(Outcome.RETRY, error=f"Graph API not reached: {type(error).__name__}")
        except httpx.HTTPError as error:
            return GraphAnswer(Outcome.UNKNOWN, error=f"the call broke off: {type(error).__name__}")
        return read_answer(response.status_code, _json(response), response.headers.get("Retry-After"))

    def mark_read(self, phone_number_id: str, wamid: str, *, typing: bool) -> bool:
        """Mark one inbound message as read; whether Meta took it."""
        try:
            response = self._post(phone_number_id, read_mark(wamid, typing=typing), timeout=BEST_EFFORT_SECONDS)
        except httpx.HTTPError as error:
            _log.debug(logs.fields(event="read_mark_lost", reason=type(error).__name__))
            return False
        return response.is_success

    def _post(self, phone_number_id: str, body: Json, timeout: float | None = None) -> httpx.Response:
        response = self._http.post(
            f"{self._base}/{phone_number_id}/messages",
            json=body,
            headers={"Authorization": f"Bearer {self._token()}"},
            timeout=timeout if timeout is not None else httpx.USE_CLIENT_DEFAULT,
        )
        served = response.headers.get("facebook-api-version")
        if served and served != self.served_version:
            self.served_version = served
            if served != self.version:
                _log.critical(logs.fields(event="graph_version_retired", configured=self.version, served=served))
        return response

    def close(self) -> None:
        """Close the pool."""
        self._http.close()


def _json(response: httpx.Response) -> object:
    try:
        return response.json()
    except (ValueError, RecursionError):
        return None
