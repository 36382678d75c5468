# SPDX-License-Identifier: GPL-3.0-or-later
"""Build or load the images of a release, and tell from what the engine says how far it is."""

from __future__ import annotations

import re
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from .errors import WhatsAgentError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

    from .docker_host import DockerHost
    from .journal import Progress
    from .lock import Heart, Idle

KEPT_LINES = 30
_CHUNK = 1 << 20
_STEP = re.compile(r"Step (\d+)/(\d+) : ")
_LOADED = re.compile(r"Loaded image: (\S+)")


def step_of(event: Mapping[str, Any]) -> tuple[int, int] | None:
    """Return which of how many steps of a build this event begins; None when it begins none."""
    match = _STEP.match(str(event.get("stream") or ""))
    return (int(match[1]), int(match[2])) if match else None


@dataclass
class Layers:
    """How many bytes of an archive's layers the engine has taken in, by what it tells while it loads."""

    done: dict[str, int] = field(default_factory=dict)

    def add(self, event: Mapping[str, Any]) -> int | None:
        """Take an event in; return the bytes so far, or None when it tells of none."""
        detail = event.get("progressDetail") or {}
        if not event.get("id") or "current" not in detail:
            return None
        self.done[str(event["id"])] = int(detail["current"])
        return sum(self.done.values())


def raise_for(event: Mapping[str, Any], what: str, said: Iterable[str]) -> None:
    """Raise when an event is the engine's way to say that it failed."""
    if "error" not in event:
        return
    reason = (event.get("errorDetail") or {}).get("message") or event["error"]
    raise WhatsAgentError(f"cannot {what}: {str(reason).strip()}", stderr="\n".join(said))


def is_there(docker: DockerHost, name: str) -> bool:
    """Tell whether the engine has an image of that name."""
    return name in docker.image_names()


def build(docker: DockerHost, name: str, options: Mapping[str, Any], progress: Progress, heart: Heart | Idle) -> None:
    """Build an image from a folder. A step counts as done when the next one begins."""
    said: deque[str] = deque(maxlen=KEPT_LINES)
    total = 1
    for event in docker.build(name, options):
        heart.check()
        said.extend(line for line in str(event.get("stream") or "").splitlines() if not line.startswith(" ---> "))
        raise_for(event, f"build {name}", said)
        step = step_of(event)
        if step is not None:
            total = step[1]
            progress.update(step[0] - 1, total)
    progress.update(total, total)


def load(docker: DockerHost, archive: Path, sent: Progress, loaded: Progress, heart: Heart | Idle) -> list[str]:
    """Load an archive, and return the images it held.

    First all of it goes to the engine, which then unpacks layer by layer, leaving out those it has.
    """
    what = f"load {archive}"
    size = archive.stat().st_size
    layers = Layers()
    names = []
    for event in docker.load(_chunks(archive, size, sent, heart), what):
        heart.check()
        raise_for(event, what, ())
        named = _LOADED.match(str(event.get("stream") or ""))
        if named is not None:
            names.append(named[1])
        so_far = layers.add(event)
        if so_far is not None:
            # Never said to be done by bytes alone: the engine names the images last.
            loaded.update(min(so_far, size - 1), size)
    loaded.update(size, size)
    return sorted(names)


def _chunks(archive: Path, size: int, progress: Progress, heart: Heart | Idle) -> Iterator[bytes]:
    done = 0
    with archive.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            heart.check()
            yield chunk
            done += len(chunk)
            progress.update(done, size)
