# SPDX-License-Identifier: GPL-3.0-or-later
"""Doubles run as they are deployed: a gunicorn of their own on a loopback port, with a state directory."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

ROOT = Path(__file__).resolve().parents[3]
START_LIMIT_S = 20.0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class ServedDouble:
    """One double's process; ``http`` is bound to its address."""

    def __init__(self, name: str, environment: dict[str, str], log: Path) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.http = httpx.Client(base_url=self.url, timeout=10.0)
        self._command = [sys.executable, "-m", "tests.doubles", name]
        self._environment = {**os.environ, **environment, "PORT": str(self.port)}
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command, cwd=ROOT, env=self._environment, stdout=log, stderr=log, start_new_session=True
            )
        deadline = time.monotonic() + START_LIMIT_S
        while True:
            try:
                self.http.get("/_double/health").raise_for_status()
            except httpx.HTTPError:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    pytest.fail(f"the double did not start:\n{self._log.read_text()}")
                time.sleep(0.05)
            else:
                return

    def kill(self) -> None:
        """``kill -9`` of the master and its worker, with nothing said beforehand."""
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None


Serve = Callable[[str, dict[str, str]], ServedDouble]


@pytest.fixture(scope="module")
def serve(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serve]:
    """Start doubles by name and environment; all are killed in the end."""
    served: list[ServedDouble] = []

    def start(name: str, environment: dict[str, str]) -> ServedDouble:
        double = ServedDouble(name, environment, tmp_path_factory.mktemp(name) / "log")
        served.append(double)
        double.start()
        return double

    yield start
    for double in served:
        double.kill()
        double.http.close()
