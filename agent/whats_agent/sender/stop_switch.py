# SPDX-License-Identifier: GPL-3.0-or-later
"""When every message would fail for the same reason, stop sending and keep the queue."""

import logging
import threading
import time

from whats_agent import logs

_log = logging.getLogger("whats_agent.sender")


class StopSwitch:
    """Shared by the sender threads of a worker. Pauses for a while, then lets sends try again."""

    def __init__(self, pause_seconds: float) -> None:
        self._pause_seconds = pause_seconds
        self._mutex = threading.Lock()
        self._until = 0.0
        self.reason: str | None = None

    def stop(self, reason: str) -> None:
        """A send met an error that is not the message's fault."""
        with self._mutex:
            if self.reason is None:
                _log.critical(logs.fields(event="sender_stopped", reason=reason, retry_in=f"{self._pause_seconds:g}s"))
            self.reason = reason
            self._until = time.monotonic() + self._pause_seconds

    def succeeded(self) -> None:
        """A send went through."""
        with self._mutex:
            if self.reason is not None:
                _log.warning(logs.fields(event="sender_resumed", after=self.reason))
            self.reason = None
            self._until = 0.0

    def seconds_left(self) -> float:
        """How long to keep still; 0 when sending may go on."""
        return max(0.0, self._until - time.monotonic())
