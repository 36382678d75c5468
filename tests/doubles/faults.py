# SPDX-License-Identifier: GPL-3.0-or-later
"""Faults a test orders beforehand: "the next three requests fail like this"."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Any

HANG_LIMIT_S = 120.0
"""How long a ``timeout`` fault holds a request at most; any client has given up by then."""


class UnknownFaultError(ValueError):
    """The order names no fault of this double, or a count that is no positive whole number."""


@dataclass(frozen=True)
class Order:
    fault: str
    remaining: int | None
    """How many requests it still takes; ``None`` until it is switched off."""


class Faults:
    """Holds at most one order at a time; each request takes one share of it."""

    def __init__(self, known: frozenset[str]) -> None:
        self._known = known
        self._changed = threading.Condition()
        self._order: Order | None = None
        self._generation = 0

    def set(self, order: Any) -> dict[str, Any]:
        """Take ``{"class": str, "count": int?}``; releases requests that hang. Raises UnknownFaultError."""
        if not isinstance(order, dict) or order.get("class") not in self._known | {"off"}:
            raise UnknownFaultError(f"class must be one of {', '.join(sorted(self._known | {'off'}))}")
        count = order.get("count")
        if count is not None and (not isinstance(count, int) or isinstance(count, bool) or count < 1):
            raise UnknownFaultError("count must be a whole number of at least 1, or absent for 'until switched off'")
        with self._changed:
            self._order = None if order["class"] == "off" else Order(order["class"], count)
            self._generation += 1
            self._changed.notify_all()
        return self.describe()

    def take(self) -> str | None:
        """The fault that this request must suffer, if any."""
        with self._changed:
            order = self._order
            if order is None:
                return None
            if order.remaining is not None:
                self._order = Order(order.fault, order.remaining - 1) if order.remaining > 1 else None
            return order.fault

    def look(self) -> str | None:
        """The fault ordered now, without taking a share of it."""
        with self._changed:
            return None if self._order is None else self._order.fault

    def hang(self) -> None:
        """Hold the calling request until the next order or the limit."""
        with self._changed:
            generation = self._generation
            self._changed.wait_for(lambda: self._generation != generation, timeout=HANG_LIMIT_S)

    def describe(self) -> dict[str, Any]:
        with self._changed:
            if self._order is None:
                return {"class": "off", "remaining": 0}
            return {"class": self._order.fault, "remaining": self._order.remaining}
