# SPDX-License-Identifier: GPL-3.0-or-later
"""Sending through the Graph API with httpx."""

from typing import Protocol
from uuid import UUID

import httpx

from whats_agent.graph.outcome import GraphAnswer, read_answer
from whats_agent.outbox.records import Outcome
from whats_agent.whatsapp.items import Json

MAX_TEXT = 4096


class Graph(Protocol):
    """What the sender needs of the Graph API."""

    def send_text(
        self, phone_number_id: str, wa_id: str | None, user_id: str | None, text: str, callback_data: UUID
    ) -> GraphAnswer:
        """Send ``text``; never raises for what the network or Meta does."""
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


class GraphClient:
    """One connection pool for all sender threads."""

    def __init__(self, base_url: str, version: str, token: str, timeout: float) -> None:
        self._base = f"{base_url}/{version}"
        self._token = token
        self._http = httpx.Client(timeout=httpx.Timeout(timeout, connect=min(5.0, timeout)), trust_env=False)

    def send_text(
        self, phone_number_id: str, wa_id: str | None, user_id: str | None, text: str, callback_data: UUID
    ) -> GraphAnswer:
        """Send one text message and say what came of it."""
        try:
            response = self._http.post(
                f"{self._base}/{phone_number_id}/messages",
                json=text_message(wa_id, user_id, text, callback_data),
                headers={"Authorization": f"Bearer {self._token}"},
            )
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout) as error:
            # The request never left.
            return GraphAnswer(Outcome.RETRY, error=f"Graph API not reached: {type(error).__name__}")
        except httpx.HTTPError as error:
            return GraphAnswer(Outcome.UNKNOWN, error=f"the call broke off: {type(error).__name__}")
        return read_answer(response.status_code, _json(response), response.headers.get("Retry-After"))

    def close(self) -> None:
        """Close the pool."""
        self._http.close()


def _json(response: httpx.Response) -> object:
    try:
        return response.json()
    except (ValueError, RecursionError):
        return None
