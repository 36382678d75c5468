# SPDX-License-Identifier: GPL-3.0-or-later
"""The worker process: one projector, several senders, a heartbeat."""

import logging
import os
import signal
import threading
import time
from collections.abc import Callable
from types import FrameType

import psycopg

from whats_agent import heartbeat, logs
from whats_agent.database.connection import Connection, connect
from whats_agent.database.redis_client import redis_client
from whats_agent.errors import MessageLogError
from whats_agent.graph.client import GraphClient
from whats_agent.media.download import Limits, MediaClient
from whats_agent.media.fetcher import MediaFetcher
from whats_agent.media.folder import Folder
from whats_agent.message_log import MessageLog
from whats_agent.metrics import Recorder
from whats_agent.openai_client.client import OpenAIAnswerer
from whats_agent.openai_client.shared_breaker import SharedBreaker
from whats_agent.projection.policy import policy_of
from whats_agent.projection.projector import Projector
from whats_agent.retry import Backoff
from whats_agent.secret_file import Replaceable
from whats_agent.sender.bell import Bell
from whats_agent.sender.leases import Leases
from whats_agent.sender.read_marks import ReadMarks
from whats_agent.sender.sender import Sender, Tools
from whats_agent.sender.stop_switch import StopSwitch
from whats_agent.settings import WorkerSettings

BEAT_SECONDS = 2.0
GRACE_SECONDS = 20.0

_log = logging.getLogger("whats_agent.worker")


class Worker:
    """Owns the threads; ends with exit code 0 on SIGTERM, 1 when a thread died of something unforeseen."""

    def __init__(self, settings: WorkerSettings) -> None:
        self._settings = settings
        self._stop = threading.Event()
        self._died = False
        self._bell = Bell()
        self._recorder = Recorder(settings.message_log_dir)
        self._message_log = MessageLog(settings.message_log_dir, self._recorder.committed)
        self._breaker = SharedBreaker(
            settings.breaker_failures, settings.breaker_open_seconds, redis_client(settings, timeout=0.5)
        )
        self._switch = StopSwitch(settings.send_stop_seconds)
        self._leases = Leases()
        self._token = Replaceable("META_ACCESS_TOKEN", settings.meta_access_token.get_secret_value())
        self._graph = GraphClient(settings.graph_base_url, settings.graph_version, self._token, settings.graph_timeout)
        self._read_marks = ReadMarks(self._graph, enabled=settings.mark_as_read, typing=settings.typing_indicator)
        self._projector = Projector(
            self._message_log,
            lambda: connect(settings, "projector"),
            policy_of(settings),
            batch=settings.projection_batch,
            poll_seconds=settings.poll_seconds,
            progressed=self._bell.ring,
            recorder=self._recorder,
        )
        self._tools = Tools(
            settings=settings,
            message_log=self._message_log,
            connect=lambda: connect(settings, "sender"),
            graph=self._graph,
            answerer=OpenAIAnswerer(
                settings.openai_api_key.get_secret_value(),
                settings.openai_base_url,
                settings.openai_model,
                timeout=settings.openai_timeout,
                max_retries=settings.openai_max_retries,
                max_tokens=settings.openai_max_tokens,
                breaker=self._breaker,
                recorder=self._recorder,
            ),
            switch=self._switch,
            leases=self._leases,
            read_marks=self._read_marks,
            recorder=self._recorder,
            bell=self._bell,
        )

    def run(self) -> int:
        """Work until SIGTERM or SIGINT."""
        signal.signal(signal.SIGTERM, self._on_signal)
        signal.signal(signal.SIGINT, self._on_signal)
        self._open_message_log()
        threads = [self._thread("projector", self._projector.run)]
        threads += [self._thread(f"sender-{n}", Sender(self._tools).run) for n in range(self._settings.sender_threads)]
        threads.append(self._thread("leases", self._keep_leases))
        threads.append(self._thread("read-marks", self._read_marks.run))
        if self._settings.media_fetch:
            threads.append(self._thread("media", self._media_fetcher().run))
        _log.info(logs.fields(event="worker_started", senders=self._settings.sender_threads))
        while not self._stop.wait(BEAT_SECONDS):
            self._beat()
        self._end(threads)
        return 1 if self._died else 0

    def _media_fetcher(self) -> MediaFetcher:
        settings = self._settings
        limits = Limits(
            settings.media_origin_set(), settings.media_type_set(), settings.media_max_bytes, settings.media_seconds
        )
        client = MediaClient(settings.graph_base_url, settings.graph_version, self._token, limits)
        return MediaFetcher(
            client, Folder(settings.message_log_dir), lambda: connect(settings, "media"), settings.media_quota_bytes
        )

    def _open_message_log(self) -> None:
        backoff = Backoff(_log, "message_log", least=0.2, most=5.0)
        while not self._stop.is_set():
            try:
                self._message_log.check_tail()
            except MessageLogError as error:
                self._stop.wait(backoff.failed(error))
            else:
                backoff.succeeded()
                self._beat()
                return

    def _thread(self, name: str, run: Callable[[threading.Event], None]) -> threading.Thread:
        def guarded() -> None:
            try:
                run(self._stop)
            except Exception:  # noqa: BLE001 - not one we know how to survive: end the process, the container starts afresh
                _log.critical(logs.fields(event="thread_died", thread=name), exc_info=True)
                self._died = True
                self._stop.set()

        thread = threading.Thread(target=guarded, name=name, daemon=True)
        thread.start()
        return thread

    def _keep_leases(self, stop: threading.Event) -> None:
        """Renew the leases of answers in preparation, so that only a dead worker's are taken over."""
        seconds = self._settings.sender_lease_seconds
        backoff = Backoff(_log, "lease_renewal", least=0.5, most=5.0)
        connection: Connection | None = None
        while not stop.wait(seconds / 3):
            if not self._leases.names():
                continue
            try:
                if connection is None:
                    connection = connect(self._settings, "leases")
                self._leases.renew(connection, seconds)
                backoff.succeeded()
            except psycopg.Error as error:
                if connection is not None:
                    connection.close()
                    connection = None
                stop.wait(backoff.failed(error))
        if connection is not None:
            connection.close()

    def _beat(self) -> None:
        try:
            heartbeat.write(
                self._settings.message_log_dir,
                {
                    "pid": os.getpid(),
                    "projector": self._projector.state,
                    "position": self._projector.position,
                    "log_end": self._message_log.last_id(),
                    "sender_stopped": self._switch.reason,
                    "breaker_open": self._breaker.is_open,
                    "graph_version": self._graph.version,
                    "graph_version_served": self._graph.served_version,
                    "graph_version_expires": str(expires)
                    if (expires := self._settings.graph_version_expires)
                    else None,
                },
            )
        except (OSError, MessageLogError) as error:
            _log.error(logs.fields(event="heartbeat_not_written", reason=error))

    def _end(self, threads: list[threading.Thread]) -> None:
        _log.info(logs.fields(event="worker_stopping"))
        self._bell.ring_all()
        deadline = time.monotonic() + GRACE_SECONDS
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        if self._leases.names():
            try:
                with connect(self._settings, "leases") as connection:
                    self._leases.give_up(connection)
            except psycopg.Error as error:
                _log.warning(logs.fields(event="leases_not_returned", reason=type(error).__name__))
        heartbeat.remove(self._settings.message_log_dir)
        self._graph.close()
        _log.info(logs.fields(event="worker_stopped"))

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        self._stop.set()
