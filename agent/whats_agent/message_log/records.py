# SPDX-License-Identifier: GPL-3.0-or-later
"""What one record of the message log is, and how it is checked."""

import zlib
from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class Kind(StrEnum):
    """What a record tells."""

    WEBHOOK = "webhook"  # the raw body of an accepted POST /webhook
    SEND_ATTEMPT = "send_attempt"  # JSON: an answer is about to be handed to the Graph API
    SEND_RESULT = "send_result"  # JSON: what the Graph API said to it
    CONTROL = "control"  # JSON: an operator's decision, such as the kill switch


@dataclass(frozen=True, slots=True)
class Record:
    """One record as read back.

    ``id`` grows without gaps being promised, ``at`` is microseconds since the epoch, ``intact`` is false when the body does
    not match the checksum that was stored with it.
    """

    id: int
    at: int
    kind: str
    body: bytes
    intact: bool


def checksum(at: int, kind: str, body: bytes) -> int:
    """CRC-32 over everything a record says except its id, which SQLite gives it on insertion."""
    return zlib.crc32(body, zlib.crc32(f"{at}:{kind}:".encode()))


def record_from_row(row: tuple[Any, ...]) -> Record:
    """Turn ``(id, at, kind, body, crc)`` of the table into a checked record."""
    record_id, at, kind, body, crc = row
    intact = isinstance(body, bytes) and isinstance(at, int) and crc == checksum(at, str(kind), body)
    return Record(id=record_id, at=at, kind=str(kind), body=body if isinstance(body, bytes) else b"", intact=intact)
