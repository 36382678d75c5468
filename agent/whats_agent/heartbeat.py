# SPDX-License-Identifier: GPL-3.0-or-later
"""What a worker tells about itself: a small file beside the message log, which the web processes read.

A file and not Redis or PostgreSQL, so that the worker can be seen while either of them is down.
"""

import json
import os
import socket
import time
from pathlib import Path
from typing import Any

DIRECTORY = "/var/lib/whats_agent/message_log"  # settings' own default; the health check reads no settings
FORGET_SECONDS = 24 * 3600.0


def path_of(directory: Path, name: str | None = None) -> Path:
    """The file of the worker on this host name (a container's own id)."""
    return directory / f"worker_{name or socket.gethostname()}.json"


def write(directory: Path, facts: dict[str, Any]) -> None:
    """Replace this worker's file. Raises OSError."""
    path = path_of(directory)
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps({"at": time.time(), **facts}), encoding="utf-8")
    temporary.replace(path)


def remove(directory: Path) -> None:
    """Take this worker's file away when it ends in order."""
    path_of(directory).unlink(missing_ok=True)


def read_all(directory: Path) -> list[dict[str, Any]]:
    """Every worker's facts with ``age`` in seconds, youngest first; files a day old are of containers long gone."""
    found: list[dict[str, Any]] = []
    for path in directory.glob("worker_*.json"):
        try:
            facts = json.loads(path.read_text(encoding="utf-8"))
            age = time.time() - float(facts["at"])
        except (OSError, ValueError, KeyError, TypeError):
            continue  # being replaced or taken away this moment
        if age < FORGET_SECONDS:
            found.append({**facts, "age": round(max(age, 0.0), 1)})
    return sorted(found, key=lambda facts: float(facts["age"]))


def is_fresh(directory: Path, limit: float) -> bool:
    """Whether this host's own worker beat within ``limit`` seconds; for the container's health check."""
    try:
        facts = json.loads(path_of(directory).read_text(encoding="utf-8"))
        return time.time() - float(facts["at"]) < limit and os.path.exists(f"/proc/{int(facts['pid'])}")  # noqa: PTH110
    except (OSError, ValueError, KeyError, TypeError):
        return False
