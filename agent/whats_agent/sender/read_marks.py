# SPDX-License-Identifier: GPL-3.0-or-later
"""Mark-as-read and the typing indicator: best effort, never in the way of an answer."""

import logging
import queue
import threading

from whats_agent import logs
from whats_agent.graph.client import Graph

MAX_WAITING = 200

_log = logging.getLogger("whats_agent.sender")


class ReadMarks:
    """A short queue with one thread behind it. When Meta is slow, marks are dropped rather than piled up."""

    def __init__(self, graph: Graph, *, enabled: bool, typing: bool) -> None:
        self._graph = graph
        self._enabled = enabled
        self._typing = typing
        self._waiting: queue.Queue[tuple[str, str]] = queue.Queue(MAX_WAITING)

    def add(self, phone_number_id: str, wamid: str) -> None:
        """Have this message marked; returns at once."""
        if not self._enabled:
            return
        try:
            self._waiting.put_nowait((phone_number_id, wamid))
        except queue.Full:
            _log.debug(logs.fields(event="read_mark_dropped"))

    def run(self, stop: threading.Event) -> None:
        """Send marks until told to stop; what still waits then is forgotten."""
        while not stop.is_set():
            try:
                phone_number_id, wamid = self._waiting.get(timeout=1.0)
            except queue.Empty:
                continue
            self._graph.mark_read(phone_number_id, wamid, typing=self._typing)
