# SPDX-License-Identifier: GPL-3.0-or-later
"""Waiting on a condition with a deadline, never for a fixed time."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

Value = TypeVar("Value")


class TooLateError(AssertionError):
    """The condition did not come true in time."""


def eventually(probe: Callable[[], Value], what: str, limit: float = 30.0, pause: float = 0.1) -> Value:
    """Call ``probe`` until its result is true and return it. Raises TooLateError with the last result."""
    deadline = time.monotonic() + limit
    while True:
        value = probe()
        if value:
            return value
        if time.monotonic() > deadline:
            raise TooLateError(f"not within {limit:g} s: {what} (last seen: {value!r})")
        time.sleep(pause)


def never(probe: Callable[[], object], what: str, seconds: float, pause: float = 0.2) -> None:
    """Watch ``probe`` for a while; its result must stay false."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        value = probe()
        assert not value, f"{what}: {value!r}"
        time.sleep(pause)
