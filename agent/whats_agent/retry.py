# SPDX-License-Identifier: GPL-3.0-or-later
"""Waiting longer after each failure, and saying so without filling the log."""

import logging
import random
import time

from whats_agent import logs

REPEAT_LOG_SECONDS = 30.0


class Backoff:
    """Doubles from ``least`` to ``most`` seconds, with jitter; logs the first failure, then one line every 30 s, then the end."""

    def __init__(self, logger: logging.Logger, what: str, *, least: float, most: float) -> None:
        self._logger = logger
        self._what = what
        self._least = least
        self._most = most
        self._failures = 0
        self._logged_at = 0.0

    def failed(self, error: BaseException) -> float:
        """Note a failure; returns the seconds to wait."""
        self._failures += 1
        if self._failures == 1 or time.monotonic() - self._logged_at >= REPEAT_LOG_SECONDS:
            self._logged_at = time.monotonic()
            reason = str(error).strip().splitlines()
            self._logger.error(
                logs.fields(
                    event=f"{self._what}_waiting",
                    failures=self._failures,
                    error=type(error).__name__,
                    reason=reason[0][:300] if reason else "",
                )
            )
        ceiling = min(self._most, self._least * 2.0 ** min(self._failures - 1, 16))
        return ceiling * random.uniform(0.5, 1.0)  # noqa: S311 - jitter, not a secret

    def succeeded(self) -> None:
        """Note a success; the next failure starts from ``least`` again."""
        if self._failures:
            self._logger.info(logs.fields(event=f"{self._what}_resumed", failures=self._failures))
        self._failures = 0
