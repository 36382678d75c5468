# SPDX-License-Identifier: GPL-3.0-or-later
"""What the Graph double remembers, rebuilt from its ledger at every start."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

from .graph_statuses import DEFAULT_KINDS, Due
from .ledger import Ledger


class GraphRecord:
    """Accepted sends, which of their statuses were delivered, and the status settings.

    A send that arrives twice is recorded twice: this record exists to reveal duplicates.
    """

    def __init__(self, path: Path) -> None:
        self._lock = threading.Lock()
        self._sends: list[dict[str, Any]] = []
        self._due: dict[tuple[str, str], Due] = {}
        self._reads: list[dict[str, Any]] = []
        self.statuses_enabled = True
        self.status_kinds: list[str] = list(DEFAULT_KINDS)
        self._ledger = Ledger(path)
        for event in self._ledger.records:
            self._apply(event)

    def _apply(self, event: dict[str, Any]) -> None:
        match event["event"]:
            case "send":
                self._sends.append(event["send"])
                for kind in event["kinds"]:
                    self._due[event["send"]["wamid"], kind] = Due(event["send"], kind)
            case "status_delivered":
                self._due.pop((event["wamid"], event["kind"]), None)
            case "read":
                self._reads.append(event["read"])
            case "statuses":
                self.statuses_enabled = event["enabled"]
                self.status_kinds = event["kinds"]
            case "reset":
                self._sends.clear()
                self._due.clear()
                self._reads.clear()
                self.statuses_enabled = True
                self.status_kinds = list(DEFAULT_KINDS)
            case unknown:
                raise ValueError(f"unknown event {unknown!r} in the ledger")

    def _write(self, event: dict[str, Any], *, durable: bool) -> None:
        with self._lock:
            self._ledger.append(event, durable=durable)
            self._apply(event)

    def add_send(self, send: dict[str, Any], kinds: list[str]) -> None:
        """On the disk when this returns."""
        self._write({"event": "send", "send": send, "kinds": kinds}, durable=True)

    def add_read(self, read: dict[str, Any]) -> None:
        self._write({"event": "read", "read": read}, durable=False)

    def mark_delivered(self, due: Due) -> None:
        # Not synced: after a power cut the status goes out again, as Meta's may.
        self._write({"event": "status_delivered", "wamid": due.send["wamid"], "kind": due.kind}, durable=False)

    def set_statuses(self, *, enabled: bool, kinds: list[str]) -> None:
        self._write({"event": "statuses", "enabled": enabled, "kinds": kinds}, durable=True)

    def reset(self) -> None:
        self._write({"event": "reset"}, durable=True)

    def sends(self) -> list[dict[str, Any]]:
        with self._lock:
            return list(self._sends)

    def reads(self) -> list[dict[str, Any]]:
        with self._lock:
            return list(self._reads)

    def due(self) -> list[Due]:
        with self._lock:
            return list(self._due.values())

    def close(self) -> None:
        self._ledger.close()
