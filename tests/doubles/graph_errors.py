# SPDX-License-Identifier: GPL-3.0-or-later
"""Error answers in the shape of the Graph API, and which control class asks for which.

Meta asks clients to go by ``code``, not by the HTTP status; the statuses here are those of its error reference.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class GraphError:
    """One error answer: its HTTP status and what its body says."""

    status: int
    code: int
    title: str
    details: str = ""
    kind: str = "OAuthException"
    subcode: int | None = None
    prefixed: bool = True
    """Whether the message opens with ``(#code)``, as most of the Cloud API's do."""

    def body(self) -> dict[str, Any]:
        error: dict[str, Any] = {
            "message": f"(#{self.code}) {self.title}" if self.prefixed else self.title,
            "type": self.kind,
            "code": self.code,
        }
        if self.details:
            error["error_data"] = {"messaging_product": "whatsapp", "details": self.details}
        if self.subcode is not None:
            error["error_subcode"] = self.subcode
        error["fbtrace_id"] = "A" + secrets.token_urlsafe(16)
        return {"error": error}


class RejectedError(Exception):
    """The request is refused; ``error`` is the answer."""

    def __init__(self, error: GraphError) -> None:
        super().__init__(error.title)
        self.error = error


ORDERED: dict[str, GraphError] = {
    # Retried by a good client.
    "rate_limit": GraphError(
        400,
        130429,
        "Rate limit hit",
        "Message failed to send because there were too many messages sent from this phone number in a short period "
        "of time",
    ),
    "pair_rate_limit": GraphError(
        400,
        131056,
        "(Business Account, Consumer Account) pair rate limit hit",
        "Message failed to send because there were too many messages sent from this phone number to the same phone "
        "number in a short period of time",
    ),
    "server_error": GraphError(500, 131000, "Something went wrong", "Message failed to send due to an unknown error."),
    # Stop the sender until somebody acts.
    "token_expired": GraphError(
        401,
        190,
        "Error validating access token: Session has expired on Monday, 01-Jan-24 00:00:00 PST.",
        subcode=463,
        prefixed=False,
    ),
    "permission": GraphError(403, 10, "Application does not have permission for this action"),
    "account_blocked": GraphError(
        403,
        368,
        "Temporarily blocked for policies violations",
        "The WhatsApp Business Account associated with the app has been restricted or disabled.",
    ),
    # Fail this one message.
    "not_allowed": GraphError(400, 131026, "Message undeliverable", "Message Undeliverable."),
    "window_closed": GraphError(
        400,
        131047,
        "Re-engagement message",
        "Message failed to send because more than 24 hours have passed since the customer last replied to this number.",
    ),
}

NO_TOKEN = GraphError(401, 104, "An access token is required to request this resource.", prefixed=False)
BAD_TOKEN = GraphError(401, 190, "Invalid OAuth access token - Cannot parse access token", prefixed=False)


def unknown_path(path: str) -> GraphError:
    return GraphError(400, 2500, f"Unknown path components: {path}", prefixed=False)


def unknown_object(object_id: str) -> GraphError:
    return GraphError(
        400,
        100,
        f"Unsupported post request. Object with ID '{object_id}' does not exist, cannot be loaded due to missing "
        "permissions, or does not support this operation",
        kind="GraphMethodException",
        subcode=33,
        prefixed=False,
    )


def bad_parameter(details: str) -> GraphError:
    return GraphError(400, 100, "Invalid parameter", details)
