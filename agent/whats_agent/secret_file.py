# SPDX-License-Identifier: GPL-3.0-or-later
"""A secret that may be replaced while we run."""

import os
from pathlib import Path

from whats_agent import masking


class Replaceable:
    """The value read at the start or, when it came from a file, whatever that file says now."""

    def __init__(self, name: str, value: str) -> None:
        path = os.environ.get(f"{name}_FILE")
        self._path = Path(path) if path and not os.environ.get(name) else None
        self._value = value
        self._seen = self._stamp()

    def _stamp(self) -> tuple[int, int, int] | None:
        """What changes when the file is replaced; None without a file."""
        try:
            status = self._path.stat() if self._path is not None else None
        except OSError:
            return None
        return (status.st_ino, status.st_mtime_ns, status.st_size) if status is not None else None

    def __call__(self) -> str:
        """The present value; an empty or unreadable file changes nothing."""
        stamp = self._stamp()
        if self._path is not None and stamp is not None and stamp != self._seen:
            try:
                text = self._path.read_text(encoding="utf-8").strip()
            except (OSError, UnicodeDecodeError):
                return self._value
            if text:
                masking.know_secrets([text], keep=True)
                self._value, self._seen = text, stamp
        return self._value
