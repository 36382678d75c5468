# SPDX-License-Identifier: GPL-3.0-or-later
"""The thread that fetches media: beside the senders, never before them."""

import logging
import threading
from collections.abc import Callable

import psycopg

from whats_agent import logs
from whats_agent.database.connection import Connection
from whats_agent.media import queue
from whats_agent.media.download import Fetched, MediaClient, MediaRefusedError, MediaUnavailableError
from whats_agent.media.folder import Folder, NoRoomError
from whats_agent.media.queue import Wanted
from whats_agent.retry import Backoff

IDLE_SECONDS = 2.0

_log = logging.getLogger("whats_agent.media")


class MediaFetcher:
    """Takes what is wanted, one file at a time, and keeps the folder within its quota."""

    def __init__(self, client: MediaClient, folder: Folder, connect: Callable[[], Connection], quota: int) -> None:
        self._client = client
        self._folder = folder
        self._connect = connect
        self._quota = quota

    def run(self, stop: threading.Event) -> None:
        """Fetch until told to stop; survives PostgreSQL, Meta and the disk being away."""
        backoff = Backoff(_log, "media", least=0.5, most=30.0)
        while not stop.is_set():
            try:
                self._folder.prepare()
                with self._connect() as connection:
                    while not stop.is_set():
                        busy = self._one(connection)
                        backoff.succeeded()
                        if not busy:
                            stop.wait(IDLE_SECONDS)
            except (psycopg.Error, OSError) as error:
                stop.wait(backoff.failed(error))

    def _one(self, connection: Connection) -> bool:
        """Fetch one file; whether there was one."""
        wanted = queue.claim(connection)
        if wanted is None:
            return False
        try:
            self._folder.must_have_room()
            fetched = self._client.fetch(wanted.media_id, wanted.phone_number_id, self._folder.path)
            self._keep(connection, wanted, fetched)
        except MediaRefusedError as error:
            self._failed(connection, wanted, str(error), retry=False)
        except (MediaUnavailableError, NoRoomError) as error:
            self._failed(connection, wanted, str(error), retry=True)
        except OSError as error:
            self._failed(connection, wanted, error.strerror or type(error).__name__, retry=True)
        return True

    def _keep(self, connection: Connection, wanted: Wanted, fetched: Fetched) -> None:
        """Give the file its place, and drop the oldest ones when there are too many. Raises OSError, psycopg.Error."""
        with connection.transaction():
            # One worker at a time: or one could drop the file that another was just given once more.
            queue.have_turn(connection)
            self._folder.take(fetched)
            queue.stored(connection, wanted, fetched)
            dropped = queue.over_quota(connection, self._quota)
            for sha256 in dropped:
                self._folder.drop(sha256)
        _log.info(
            logs.fields(event="media_stored", message=wanted.message_id, type=fetched.mime_type, bytes=fetched.size)
        )
        if dropped:
            _log.info(logs.fields(event="media_dropped", files=len(dropped), reason="MEDIA_QUOTA_BYTES"))

    def _failed(self, connection: Connection, wanted: Wanted, reason: str, *, retry: bool) -> None:
        queue.failed(connection, wanted, reason, retry=retry)
        _log.warning(
            logs.fields(
                event="media_not_fetched",
                message=wanted.message_id,
                attempt=wanted.attempts,
                final=not retry or wanted.attempts >= queue.MAX_ATTEMPTS,
                reason=reason,
            )
        )
