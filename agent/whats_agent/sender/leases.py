# SPDX-License-Identifier: GPL-3.0-or-later
"""The leases a worker holds right now, so that one thread can renew them while others wait for OpenAI."""

import threading

from whats_agent.database.connection import Connection


class Leases:
    """A set of lease names, safe to use from several threads."""

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._names: set[str] = set()

    def add(self, name: str) -> None:
        """Begin to hold a lease."""
        with self._mutex:
            self._names.add(name)

    def discard(self, name: str) -> None:
        """Stop holding it."""
        with self._mutex:
            self._names.discard(name)

    def names(self) -> list[str]:
        """The leases held now."""
        with self._mutex:
            return sorted(self._names)

    def renew(self, connection: Connection, seconds: float) -> None:
        """Move the end of every lease held to ``seconds`` from now."""
        connection.execute(
            "update outbox set lease_until = now() + make_interval(secs => %s) where state = 'leased' and lease_owner = any(%s)",
            (seconds, self.names()),
        )

    def give_up(self, connection: Connection) -> None:
        """Return what is held and not yet being sent to the queue; for an orderly stop."""
        connection.execute(
            """
            update outbox set state = 'queued', lease_owner = null, lease_until = null, updated_at = now()
            where state = 'leased' and lease_owner = any(%s)
            """,
            (self.names(),),
        )
