# SPDX-License-Identifier: GPL-3.0-or-later
"""Each process's own file of numbers, mapped into memory: adding costs microseconds and no system call.

A process takes the first file nobody holds and goes on counting where its last owner stopped, so totals never fall and the number
of files stays that of the processes. The files lie beside the message log because that is what app and worker share.
"""

import bisect
import fcntl
import logging
import mmap
import os
import threading
import time
from pathlib import Path

from whats_agent import logs
from whats_agent.metrics import layout
from whats_agent.metrics.layout import (
    BOUNDS,
    COUNTER_AT,
    DISTRIBUTION,
    ERRORS,
    FAMILY_AT,
    GREATEST,
    NUMBERS,
    SIGNATURE,
    SUM,
    WINDOW,
    WINDOW_SECONDS,
    WINDOWS,
)

DIRECTORY = "metrics"
SIZE = NUMBERS * 8
MAX_FILES = 256

_log = logging.getLogger("whats_agent.metrics")


class Recorder:
    """Counts for one process. Where no file can be had (full disk), the numbers stay in this process's memory."""

    def __init__(self, directory: Path | None) -> None:
        self._mutex = threading.Lock()
        self._descriptor = -1
        self._map = self._open(directory / DIRECTORY) if directory is not None else mmap.mmap(-1, SIZE)
        self._numbers = memoryview(self._map).cast("d")
        if self._numbers[0] != SIGNATURE:
            for at in range(NUMBERS):
                self._numbers[at] = 0.0
            self._numbers[0] = SIGNATURE

    def _open(self, directory: Path) -> mmap.mmap:
        try:
            directory.mkdir(exist_ok=True)
            for number in range(MAX_FILES):
                descriptor = os.open(directory / f"{number:03d}", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    os.close(descriptor)
                    continue
                # Allocated, not only sized: writing into a hole of a full disk would end the process.
                os.posix_fallocate(descriptor, 0, SIZE)
                os.ftruncate(descriptor, SIZE)
                self._descriptor = descriptor
                return mmap.mmap(descriptor, SIZE)
        except OSError as error:
            _log.error(logs.fields(event="metrics_not_shared", reason=error.strerror or type(error).__name__))
        return mmap.mmap(-1, SIZE)

    def count(self, name: str, amount: float = 1.0) -> None:
        """Add to a counter of ``layout.COUNTERS``."""
        at = COUNTER_AT[name]
        with self._mutex:
            self._numbers[at] += amount

    def observe(self, family: str, seconds: float, *, error: bool = False) -> None:
        """Add one duration to a family of ``layout.FAMILIES``."""
        base = FAMILY_AT[family]
        bucket = bisect.bisect_left(BOUNDS, seconds)
        window = int(time.time() // WINDOW_SECONDS)
        at = base + DISTRIBUTION + (window % WINDOWS) * WINDOW
        numbers = self._numbers
        with self._mutex:
            if numbers[at] != window:
                numbers[at + 1 : at + WINDOW] = _EMPTY_WINDOW
                numbers[at] = window
            for start in (base, at + 1):
                numbers[start + bucket] += 1
                numbers[start + SUM] += seconds
                if error:
                    numbers[start + ERRORS] += 1
                numbers[start + GREATEST] = max(numbers[start + GREATEST], seconds)

    def request(self, endpoint: str, status: int, seconds: float) -> None:
        """One HTTP answer."""
        name = endpoint if endpoint in layout.ENDPOINTS else "other"
        self.count(f"http_requests_total|{name}|{min(max(status // 100, 2), 5)}xx")
        self.observe(layout.REQUEST, seconds, error=status >= 500)

    def committed(self, records: int) -> None:
        """One commit of the message log."""
        self.count("log_records_total", records)
        self.count("log_syncs_total")

    def close(self) -> None:
        """Let go of the file; the numbers stay in it."""
        self._numbers.release()
        self._map.close()
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


_EMPTY_WINDOW = memoryview(bytes(8 * (WINDOW - 1))).cast("d")
