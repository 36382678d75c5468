# SPDX-License-Identifier: GPL-3.0-or-later
"""Time in one place: UTC, aware, microseconds."""

import time
from datetime import UTC, datetime


def now() -> datetime:
    """The present moment, aware, in UTC."""
    return datetime.now(UTC)


def now_microseconds() -> int:
    """Microseconds since the epoch, as the message log stores them."""
    return time.time_ns() // 1000


def from_microseconds(value: int) -> datetime:
    """The moment that ``now_microseconds`` gave as ``value``."""
    return datetime.fromtimestamp(value / 1_000_000, UTC)
