# SPDX-License-Identifier: GPL-3.0-or-later
"""A circuit breaker: after N failures in a row nobody calls for a while; then one call may try."""

import threading
import time
from collections.abc import Callable


class Breaker:
    """Closed -> open after ``failures`` in a row -> after ``open_seconds`` one trial -> closed or open again."""

    def __init__(self, failures: int, open_seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._limit = failures
        self._open_seconds = open_seconds
        self._clock = clock
        self._mutex = threading.Lock()
        self._failures = 0
        self._opened_at: float | None = None
        self._trial = False

    def allows(self) -> bool:
        """Whether a call may be made now; the caller must report how it went."""
        with self._mutex:
            if self._opened_at is None:
                return True
            if self._trial or self._clock() - self._opened_at < self._open_seconds:
                return False
            self._trial = True
            return True

    def succeeded(self) -> None:
        """A call went well."""
        with self._mutex:
            self._failures = 0
            self._opened_at = None
            self._trial = False

    def failed(self) -> None:
        """A call failed."""
        with self._mutex:
            self._failures += 1
            if self._trial or self._failures >= self._limit:
                self._opened_at = self._clock()
                self._trial = False

    @property
    def is_open(self) -> bool:
        """Whether calls are being held back."""
        return self._opened_at is not None
