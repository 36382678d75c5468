# SPDX-License-Identifier: GPL-3.0-or-later
"""The Docker engine, as far as it fails: whatever it does, what comes out is one error that says what was attempted."""

from __future__ import annotations

import importlib
import re
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import docker.errors
import docker.utils.socket
import pytest
import requests.exceptions
import urllib3.exceptions
from ansible.module_utils.whats_agent import archive_log, postgres_plan, postgres_proof
from ansible.module_utils.whats_agent.docker_host import DockerHost, parse_writers
from ansible.module_utils.whats_agent.errors import WhatsAgentError

from oncall.project import ROOT

FAILURES = [
    docker.errors.APIError("the engine refuses"),
    requests.exceptions.ConnectionError("the engine went away"),
    urllib3.exceptions.ProtocolError("the stream broke"),
    docker.utils.socket.SocketError("unexpected EOF"),
    ConnectionResetError("reset by peer"),
]
# Nobody but DockerHost calls the SDK: only there are its errors explained.
RAW = re.compile(
    r"\bdocker\.client\b|\.client\.(api|containers|images|info|networks|volumes)\b|^\s*(import|from) docker\b"
)


class Engine:
    """Streams a command's output, and then fails or tells how it ended."""

    def __init__(self, chunks: list[bytes], exit_code: int | None = 0, failure: Exception | None = None) -> None:
        self.chunks = chunks
        self.exit_code = exit_code
        self.failure = failure
        self.ran: list[str] = []

    def exec_create(self, _container: str, command: list[str], **_options: object) -> dict[str, str]:
        """Take a command."""
        self.ran = command
        return {"Id": "exec"}

    def exec_start(self, _handle: str, *, stream: bool = False, demux: bool = False) -> Any:
        """Give its output, at once or in pieces."""
        assert stream != demux
        return self._pieces() if stream else (b"".join(self.chunks), b"")

    def _pieces(self) -> Iterator[bytes]:
        yield from self.chunks
        if self.failure is not None:
            raise self.failure

    def exec_inspect(self, _handle: str) -> dict[str, int | None]:
        """Tell how it ended."""
        return {"ExitCode": self.exit_code}


def _host(api: object, **more: object) -> DockerHost:
    client: Any = SimpleNamespace(api=api, **more)
    return DockerHost(client)


def _broken(failure: Exception) -> DockerHost:
    """Return an engine that fails whatever it is asked."""

    def fails(*_args: object, **_keywords: object) -> None:
        raise failure

    asked = SimpleNamespace(**dict.fromkeys(("containers", "volumes", "images", "kill", "stop", "unpause"), fails))
    return _host(asked, info=fails, containers=SimpleNamespace(create=fails))


def test_a_command_s_lines_come_whole() -> None:
    lines: list[str] = []
    engine = Engine([b"one\ntw", b"o\n", b"the last"], exit_code=3)
    assert _host(engine).stream("db", ["pgbackrest", "backup"], lines.append, timeout=60) == 3
    assert lines == ["one", "two", "the last"]
    assert engine.ran == ["timeout", "--kill-after=30", "60", "pgbackrest", "backup"]


@pytest.mark.parametrize("failure", FAILURES, ids=lambda failure: type(failure).__name__)
def test_a_stream_that_breaks_is_one_clear_error(failure: Exception) -> None:
    host = _host(Engine([b"half a li"], failure=failure))
    with pytest.raises(WhatsAgentError, match="cannot run pgbackrest in the container db: ") as told:
        host.stream("db", ["pgbackrest", "backup"], lambda _line: None, timeout=60)
    assert str(failure) in told.value.message


def test_a_command_whose_end_the_engine_does_not_know_is_an_error_in_both_languages() -> None:
    host = _host(Engine([b""], exit_code=None))
    with pytest.raises(WhatsAgentError, match="does not know how pgbackrest ended in the container db") as told:
        host.stream("db", ["pgbackrest", "backup"], lambda _line: None, timeout=60)
    assert "não sabe" in told.value.details["pt"]
    with pytest.raises(WhatsAgentError, match="does not know how true ended"):
        host.execute("db", ["true"])


@pytest.mark.parametrize("failure", FAILURES, ids=lambda failure: type(failure).__name__)
def test_what_asked_the_engine_itself_fails_as_everything_does(failure: Exception) -> None:
    host = _broken(failure)
    backrest: Any = SimpleNamespace(
        docker=host, place=SimpleNamespace(project="whats_agent", service="postgres"), service=SimpleNamespace(binds={})
    )
    calls: dict[str, Callable[[], object]] = {
        "volumes_root": lambda: postgres_plan.volumes_root(backrest),
        "refuse_other_users": lambda: postgres_plan.refuse_other_users(backrest, "old"),
        "sweep of a proof": lambda: postgres_proof.sweep(host),
        "scratch volumes": lambda: postgres_proof.scratch_volumes(host),
        "sweep of the archive": lambda: archive_log.sweep(host),
        "image_names": host.image_names,
        "signal": lambda: host.signal("nginx", "HUP"),
        "create_container": lambda: host.create_container("image", ["serve"]),
    }
    for name, call in calls.items():
        with pytest.raises(WhatsAgentError) as told:
            call()
        assert str(failure) in told.value.message, name


def test_only_who_has_a_volume_mounted_writable_writes_to_it() -> None:
    def entry(identity: str, volume: str, *, writable: bool, names: list[str] | None) -> dict[str, Any]:
        return {"Id": identity, "Names": names, "Mounts": [{"Name": volume, "RW": writable}]}

    entries = [
        entry("1", "old", writable=True, names=["/writer"]),
        entry("2", "old", writable=False, names=["/reader"]),
        entry("3", "other", writable=True, names=["/elsewhere"]),
        entry("4", "old", writable=True, names=None),
        {"Id": "5", "Names": ["/bare"], "Mounts": None},
    ]
    assert parse_writers(entries, "old") == {"1": "writer", "4": "4"}


def _raw_calls(path: Path) -> list[str]:
    lines = path.read_text(encoding="utf-8").splitlines()
    return [f"{path.name}:{number}" for number, line in enumerate(lines, 1) if RAW.search(line)]


def test_nobody_else_calls_the_sdk() -> None:
    files = [path for folder in ("library", "module_utils", "oncall") for path in (ROOT / folder).rglob("*.py")]
    own = next(path for path in files if path.name == "docker_host.py")
    assert _raw_calls(own), "the pattern finds nothing where it must"
    found = [call for path in files if path != own for call in _raw_calls(path)]
    assert not found, f"raw calls of the Docker SDK, whose errors nobody explains: {found}"


def test_threads_that_need_the_engine_first_import_one_after_the_other_and_share_a_client(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    at_work, most, clients = 0, 0, []
    real = importlib.import_module

    def slowly(name: str) -> Any:
        nonlocal at_work, most
        at_work += 1
        most = max(most, at_work)
        time.sleep(0.01)  # long enough for the other thread to come in, if it may
        at_work -= 1
        return real(name)

    def connect(**_options: Any) -> Any:
        clients.append(SimpleNamespace())
        return clients[-1]

    monkeypatch.setattr("ansible.module_utils.whats_agent.docker_host.importlib.import_module", slowly)
    monkeypatch.setattr(docker, "DockerClient", connect)
    host = DockerHost()
    with ThreadPoolExecutor(max_workers=4) as threads:
        found = list(threads.map(lambda _number: host.client, range(4)))
    assert most == 1
    assert len(clients) == 1
    assert {id(client) for client in found} == {id(clients[0])}
