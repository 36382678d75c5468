# SPDX-License-Identifier: GPL-3.0-or-later
"""Where the files lie: beside the message log, named by their SHA-256, so that what came twice is kept once."""

import os
import re
import time
from pathlib import Path

from whats_agent.disk import free_share
from whats_agent.errors import AgentError
from whats_agent.media.download import PART, Fetched

DIRECTORY = "media"
# The message log shares this disk and must never run out of it because of somebody's videos.
LEAST_FREE_SHARE = 0.2
STALE_SECONDS = 3600.0
_SHA256 = re.compile(r"[0-9a-f]{64}")


class NoRoomError(AgentError):
    """The disk is too full to take media."""


class Folder:
    """The media folder under the message log's."""

    def __init__(self, message_log_dir: Path) -> None:
        self.path = message_log_dir / DIRECTORY

    def prepare(self) -> None:
        """Make the folder, and remove what killed processes left half-written. Raises OSError."""
        self.path.mkdir(mode=0o750, exist_ok=True)
        for part in self.path.glob(f"{PART}*"):
            # Another worker may be writing one right now.
            if time.time() - part.stat().st_mtime > STALE_SECONDS:
                part.unlink(missing_ok=True)

    def must_have_room(self) -> None:
        """Raise NoRoomError when the disk has less than a fifth left; OSError when it cannot be asked."""
        if free_share(self.path) < LEAST_FREE_SHARE:
            raise NoRoomError(f"less than {LEAST_FREE_SHARE:.0%} of the message log's disk is free")

    def take(self, fetched: Fetched) -> None:
        """Give a fetched file its name. Raises OSError."""
        fetched.path.chmod(0o640)
        fetched.path.replace(self._file(fetched.sha256))
        descriptor = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def drop(self, sha256: str) -> None:
        """Remove a file; one that is gone already is fine. Raises OSError."""
        self._file(sha256).unlink(missing_ok=True)

    def _file(self, sha256: str) -> Path:
        if not _SHA256.fullmatch(sha256):
            raise ValueError(f"not a SHA-256: {sha256!r}")
        return self.path / sha256
