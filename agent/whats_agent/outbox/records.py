# SPDX-License-Identifier: GPL-3.0-or-later
"""Outbox ids, and the two records that each send leaves in the message log."""

import json
import uuid
from dataclasses import asdict, dataclass
from enum import StrEnum

from whats_agent.errors import UnreadableItemError

_NAMESPACE = uuid.UUID("6f0d3a52-7a55-5c0e-9d0b-3a1f5b0f7c11")


def outbox_id(phone_number_id: str, inbound_wamid: str) -> uuid.UUID:
    """The id of the answer to one inbound message.

    Derived from the message, so that replaying the log into a restored database makes the same id again and statuses that carry
    it (``biz_opaque_callback_data``) still find their row.
    """
    return uuid.uuid5(_NAMESPACE, f"{phone_number_id}/{inbound_wamid}")


class Outcome(StrEnum):
    """What came of one attempt."""

    SENT = "sent"  # Meta accepted it and gave a wamid
    RETRY = "retry"  # certainly not accepted; worth another try later
    STOPPED = "stopped"  # not accepted for a reason that would hit every message: token, permission, account
    FAILED = "failed"  # certainly not accepted; this message never will be
    UNKNOWN = "unknown"  # perhaps accepted: the answer to the call was lost


@dataclass(frozen=True, slots=True)
class SendAttempt:
    """Fsynced before the call to the Graph API."""

    outbox_id: uuid.UUID
    attempt: int
    text: str
    source: str

    def to_bytes(self) -> bytes:
        """As the message log keeps it."""
        return json.dumps({**asdict(self), "outbox_id": str(self.outbox_id)}, ensure_ascii=False).encode()


@dataclass(frozen=True, slots=True)
class SendResult:
    """Fsynced after it. ``delay`` is seconds until the next try, for RETRY and STOPPED."""

    outbox_id: uuid.UUID
    attempt: int
    outcome: Outcome
    wamid: str | None = None
    error_code: int | None = None
    error: str | None = None
    delay: float = 0.0

    def to_bytes(self) -> bytes:
        """As the message log keeps it."""
        return json.dumps({**asdict(self), "outbox_id": str(self.outbox_id)}, ensure_ascii=False).encode()


def read_attempt(raw: bytes) -> SendAttempt:
    """Raises UnreadableItemError."""
    try:
        data = json.loads(raw)
        return SendAttempt(uuid.UUID(data["outbox_id"]), int(data["attempt"]), str(data["text"]), str(data["source"]))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UnreadableItemError(f"not a send attempt: {error}") from None


def read_result(raw: bytes) -> SendResult:
    """Raises UnreadableItemError."""
    try:
        data = json.loads(raw)
        return SendResult(
            outbox_id=uuid.UUID(data["outbox_id"]),
            attempt=int(data["attempt"]),
            outcome=Outcome(data["outcome"]),
            wamid=data.get("wamid"),
            error_code=data.get("error_code"),
            error=data.get("error"),
            delay=float(data.get("delay") or 0.0),
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UnreadableItemError(f"not a send result: {error}") from None
