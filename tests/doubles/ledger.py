# SPDX-License-Identifier: GPL-3.0-or-later
"""An append-only file of JSON lines that outlives a killed process."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path
from typing import Any

Record = dict[str, Any]


class DamagedLedgerError(RuntimeError):
    """A line in the middle of the file is not JSON: not what a kill leaves behind, so nobody may guess at it."""


class Ledger:
    """Appends records to one file; only one process may hold it."""

    def __init__(self, path: Path) -> None:
        self._lock = threading.Lock()
        path.parent.mkdir(parents=True, exist_ok=True)
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o640)
        self.records = self._load(path)
        """What the file held when it was opened, oldest first."""

    def _load(self, path: Path) -> list[Record]:
        """Read all records; a torn last line was never acknowledged to anybody and is cut off."""
        content = path.read_bytes()
        whole, _, torn = content.rpartition(b"\n")
        if torn:
            os.ftruncate(self._descriptor, len(content) - len(torn))
        records: list[Record] = []
        for number, line in enumerate(whole.split(b"\n") if whole else [], start=1):
            try:
                records.append(json.loads(line))
            except ValueError as error:
                raise DamagedLedgerError(f"{path}:{number}: {error}") from error
        return records

    def append(self, record: Record, *, durable: bool) -> None:
        """Write one record; with ``durable`` it is on the disk when this returns."""
        line = json.dumps(record, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"
        with self._lock:
            view = memoryview(line)
            while view:
                view = view[os.write(self._descriptor, view) :]
            if durable:
                os.fsync(self._descriptor)

    def close(self) -> None:
        os.close(self._descriptor)
