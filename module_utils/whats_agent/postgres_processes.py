# SPDX-License-Identifier: GPL-3.0-or-later
"""The processes of the database's container, as the host sees them in /proc: what is left to ask when the server is silent."""

from __future__ import annotations

import contextlib
import os
import re
import signal
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

PROC = Path("/proc")
STOPPED = "T"  # by a signal; `t` would be a debugger's, whose business it is
# A backend's title: postgres: USER DATABASE ADDRESS(PORT) idle
_IDLE = re.compile(r"postgres: (?P<client>\S+ \S+ (?:\[local\]|[^\s(]+))(?:\(\d+\))? idle")


@dataclass(frozen=True)
class Process:
    """A process by its id on the host. `state` is the kernel's letter, `started` its start in clock ticks since boot."""

    pid: int
    parent: int
    state: str
    started: int
    title: str

    def describe(self) -> str:
        """Return it in words."""
        return f"{self.pid} ({self.title[:60].strip() or 'no title'})"


def parse_stat(text: str, title: str) -> Process:
    """Read /proc/PID/stat; the command in parentheses may itself hold parentheses and spaces."""
    pid = int(text.partition(" ")[0])
    fields = text.rpartition(")")[2].split()
    return Process(pid, parent=int(fields[1]), state=fields[0], started=int(fields[19]), title=title)


def descendants(processes: Iterable[Process], root: int) -> tuple[Process, ...]:
    """Return a process and all that descend from it, the longest running first."""
    by_parent: dict[int, list[Process]] = {}
    known = {process.pid: process for process in processes}
    for process in known.values():
        by_parent.setdefault(process.parent, []).append(process)
    found: list[Process] = []
    waiting = [known[root]] if root in known else []
    while waiting:
        process = waiting.pop()
        found.append(process)
        waiting += by_parent.get(process.pid, [])
    return tuple(sorted(found, key=lambda process: (process.started, process.pid)))


def processes_of(root: int) -> tuple[Process, ...]:
    """Return the processes under a container's main process; none when it does not run."""
    found = []
    for folder in PROC.iterdir() if root else ():
        if folder.name.isdigit():
            # One that has ended meanwhile is not to be told of.
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                title = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace").strip()
                found.append(parse_stat((folder / "stat").read_text(encoding="utf-8", errors="replace"), title))
    return descendants(found, root)


def stopped(processes: Iterable[Process]) -> tuple[Process, ...]:
    """Return those that a signal has stopped."""
    return tuple(process for process in processes if process.state == STOPPED)


def stopped_server(processes: Iterable[Process], root: int) -> Process | None:
    """Return the server itself, the child of the container's main process, if a signal has stopped it: it answers nobody then."""
    return next((process for process in stopped(processes) if process.parent == root), None)


def idle(processes: Iterable[Process]) -> tuple[Process, ...]:
    """Return the backends that wait for their client and hold no transaction, by what they call themselves.

    Those of the client that has most come first: who leaks connections, not who needs the few that it has.
    """
    found = [(match["client"], process) for process in processes if (match := _IDLE.fullmatch(process.title))]
    counts = Counter(client for client, _process in found)
    return tuple(process for _client, process in sorted(found, key=lambda pair: -counts[pair[0]]))


def send(processes: Iterable[Process], number: signal.Signals) -> None:
    """Send each a signal; one that has ended needs none."""
    for process in processes:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, number)
