# SPDX-License-Identifier: GPL-3.0-or-later
"""When every message would fail for the same reason, stop sending and keep the queue."""

import logging
import threading
import time

from whats_agent import logs

_log = logging.getLogger("whats_agent.sender")


class StopSwitch:
    """Shared by the sender threads of a worker: pauses them, then lets one of them try, and goes by what came of it."""

    def __init__(self, pause_seconds: float) -> None:
        self._pause_seconds = pause_seconds
        self._mutex = threading.Lock()
        self._until = 0.0
        self._trial: int | None = None
        self.reason: str | None = None
        self.since: float | None = None

    def stop(self, reason: str) -> None:
        """A send met an error that is not the message's fault."""
        with self._mutex:
            if self.reason is None:
                self.since = time.time()
                _log.critical(logs.fields(event="sender_stopped", reason=reason, retry_in=f"{self._pause_seconds:g}s"))
            self.reason = reason
            self._trial = None
            self._until = time.monotonic() + self._pause_seconds

    def succeeded(self) -> None:
        """A send was accepted, or refused for a reason of its own: the way is clear."""
        with self._mutex:
            if self.reason is not None:
                _log.warning(logs.fields(event="sender_resumed", after=self.reason))
            self.reason = self.since = self._trial = None
            self._until = 0.0

    def may_send(self) -> bool:
        """Whether this thread may take a row now. While stopped, after each pause, exactly one thread may."""
        with self._mutex:
            if self.reason is None:
                return True
            if time.monotonic() < self._until:
                return False
            if self._trial is None:
                self._trial = threading.get_ident()
            return self._trial == threading.get_ident()

    def trial_over(self) -> None:
        """The trying thread found nothing to send or could not tell; another may try."""
        with self._mutex:
            if self._trial == threading.get_ident():
                self._trial = None
