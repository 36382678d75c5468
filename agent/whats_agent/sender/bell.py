# SPDX-License-Identifier: GPL-3.0-or-later
"""Where idle sender threads wait. One of them looks at the queue now and then, the others sleep until they are rung for."""

import threading

IDLE_SECONDS = 1.0


class Bell:
    """One ring wakes one thread; a thread that then finds a row rings for the next.

    So an idle worker asks PostgreSQL once a second and not once for each thread, and a burst still wakes as many as it needs. Rows
    that no ring tells of (another worker's, or those that were to wait) are found by the one that looks.
    """

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._looking = False
        self._rings = 0

    def wait(self, stop: threading.Event) -> None:
        """Sleep until it is worth looking at the queue; returns at once when somebody rang meanwhile or ``stop`` is set."""
        with self._condition:
            if self._rings:
                self._rings -= 1
                return
            if stop.is_set():
                return
            looks = not self._looking
            self._looking = True
            self._condition.wait(IDLE_SECONDS if looks else None)
            if looks:
                self._looking = False
            self._rings = max(self._rings - 1, 0)

    def ring(self) -> None:
        """There may be something to do."""
        with self._condition:
            # Remembered once for whoever is about to wait: it may have looked just before.
            self._rings = 1
            self._condition.notify()

    def ring_all(self) -> None:
        """Wake everybody, to end."""
        with self._condition:
            self._condition.notify_all()
