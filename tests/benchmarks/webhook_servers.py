# SPDX-License-Identifier: GPL-3.0-or-later
"""The servers that are compared: each its own gunicorn on a loopback port, and what the kernel says it used."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

START_LIMIT_S = 30.0
STOP_LIMIT_S = 15.0
_TICKS = os.sysconf("SC_CLK_TCK")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def children(pid: int) -> list[int]:
    """Process ids below ``pid``, however deep."""
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            found += [int(child), *children(int(child))]
    return found


@dataclass(frozen=True)
class Usage:
    """Of a server's whole process tree: CPU seconds since its start, resident bytes, open files."""

    cpu_seconds: float
    resident: int
    open_files: int


class Server:
    """One running server; ``address`` is where it listens."""

    def __init__(self, name: str, port: int, process: subprocess.Popen[bytes], log: Path) -> None:
        self.name = name
        self.address = ("127.0.0.1", port)
        self._process = process
        self._log = log

    def processes(self) -> list[int]:
        return [self._process.pid, *children(self._process.pid)]

    def usage(self) -> Usage:
        cpu = resident = files = 0
        for pid in self.processes():
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            cpu += int(fields[11]) + int(fields[12])
            resident += int(fields[21]) * os.sysconf("SC_PAGE_SIZE")
            files += len(os.listdir(f"/proc/{pid}/fd"))  # noqa: PTH208 - counted only
        return Usage(cpu / _TICKS, resident, files)

    def wait_until_it_listens(self) -> None:
        deadline = time.monotonic() + START_LIMIT_S
        while True:
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{self.name} did not start:\n{self._log.read_text()}")
            try:
                with socket.create_connection(self.address, timeout=1):
                    return
            except OSError:
                time.sleep(0.1)

    def stop(self) -> None:
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(STOP_LIMIT_S)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()


@contextmanager
def served(
    name: str, command: Sequence[str], port: int, environment: dict[str, str], directory: Path
) -> Iterator[Server]:
    """Run ``command`` in ``directory`` until the block ends."""
    log = directory / f"{name}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            list(command), cwd=directory, env=environment, stdout=output, stderr=output, start_new_session=True
        )
    server = Server(name, port, process, log)
    try:
        server.wait_until_it_listens()
        yield server
    finally:
        server.stop()


class SyncCounter:
    """Counts the syncs of a server's processes with strace, while the block runs.

    Its tracing slows every traced call down: a rate measured meanwhile means nothing, the count per request does.
    """

    AVAILABLE = shutil.which("strace") is not None

    def __init__(self, server: Server, directory: Path) -> None:
        self._summary = directory / f"{server.name}.strace"
        targets = [f"--attach={pid}" for pid in server.processes()]
        self._command = ["strace", "-f", "-c", "-e", "trace=fsync,fdatasync", "-o", str(self._summary), *targets]
        self.syncs = 0

    def __enter__(self) -> SyncCounter:
        self._process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        # strace says "Process N attached" for each thread; the first line is enough to know that it works.
        assert self._process.stderr is not None
        first = self._process.stderr.readline()
        if b"attached" not in first:
            raise RuntimeError(f"strace cannot attach: {first.decode(errors='replace').strip()}")
        return self

    def __exit__(self, *_: object) -> None:
        self._process.send_signal(signal.SIGINT)
        self._process.communicate(timeout=STOP_LIMIT_S)
        self.syncs = count_syncs(self._summary.read_text())


def count_syncs(summary: str) -> int:
    """Calls of fsync and fdatasync in the table that ``strace -c`` writes."""
    rows = re.findall(r"^\s*[\d.]+\s+[\d.]+\s+\d+\s+(\d+)\s.*?\b(?:fsync|fdatasync)$", summary, re.MULTILINE)
    return sum(int(calls) for calls in rows)
