# SPDX-License-Identifier: GPL-3.0-or-later
"""Word of a run's end: against a real HTTP receiver and a real command, and when either is broken."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.whats_agent import notify
from ansible.module_utils.whats_agent.errors import WhatsAgentError

SECRET_PATH = "/services/T000/B000/planted-secret-path"
RESULT: dict[str, Any] = {
    "outcome": "acted_not_recovered",
    "escalate": True,
    "dry_run": False,
    "message": {"en": "database@box: acted, NOT recovered", "pt": "database@box: agiu, NÃO recuperou"},
}


class Receiver(ThreadingHTTPServer):
    """Keeps what it was sent; answers `status`, once `may_answer` is set."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.got: list[tuple[str, dict[str, Any]]] = []
        self.status = 200
        self.may_answer = threading.Event()
        self.may_answer.set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}{SECRET_PATH}"


class _Handler(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.got.append((self.path, json.loads(body)))
        self.server.may_answer.wait(60)
        self.send_response(self.server.status)
        self.send_header("Location", f"{self.server.url}/moved")
        self.end_headers()

    def log_message(self, *_arguments: Any) -> None:
        """Keep quiet."""


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    server = Receiver()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


def test_a_webhook_gets_what_slack_reads(receiver: Receiver) -> None:
    (told,) = notify.send(notify.Channels(receiver.url), notify.text_of(RESULT), RESULT)
    assert (told["channel"], told["ok"]) == ("webhook", True)
    assert receiver.got == [
        (SECRET_PATH, {"text": "database@box: agiu, NÃO recuperou\ndatabase@box: acted, NOT recovered"})
    ]


@pytest.mark.parametrize("status", [403, 500, 302])
def test_a_webhook_that_will_not_have_it_is_told_without_its_address(receiver: Receiver, status: int) -> None:
    receiver.status = status
    (told,) = notify.send(notify.Channels(receiver.url), "text", RESULT)
    assert (told["ok"], told["error"]) == (False, f"the webhook answered HTTP {status}")
    assert len(receiver.got) == 1, "it was carried to where the answer pointed"


def test_a_webhook_that_is_not_there() -> None:
    with Receiver() as gone:
        url = gone.url
    (told,) = notify.send(notify.Channels(url), "text", RESULT)
    assert not told["ok"]
    assert "refused" in told["error"]
    assert "planted-secret-path" not in told["error"]


def test_a_slow_webhook_holds_nobody_up(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notify, "TIMEOUT", 0.5)
    receiver.may_answer.clear()
    began = time.monotonic()
    (told,) = notify.send(notify.Channels(receiver.url), "text", RESULT)
    receiver.may_answer.set()
    assert not told["ok"]
    assert time.monotonic() - began < 30, "it waited for the answer"


def test_a_command_gets_the_result_on_its_standard_input(tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    code = f"import sys; open({str(kept)!r}, 'w').write(sys.stdin.read())"
    (told,) = notify.send(notify.Channels(command=(sys.executable, "-c", code)), "text", RESULT)
    assert (told["channel"], told["ok"]) == ("command", True)
    assert json.loads(kept.read_text()) == RESULT


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (("/no/such/program",), "No such file"),
        ((sys.executable, "-c", "raise SystemExit('no mail today')"), "no mail today"),
    ],
)
def test_a_command_that_fails_says_why(command: tuple[str, ...], words: str) -> None:
    (told,) = notify.send(notify.Channels(command=command), "text", RESULT)
    assert not told["ok"]
    assert words in told["error"]


@pytest.mark.parametrize(
    ("change", "news"),
    [
        ({}, True),
        ({"outcome": "recovered", "escalate": False}, True),
        ({"outcome": "rolled_back", "escalate": False}, True),
        ({"outcome": "refused", "escalate": True}, True),
        ({"outcome": "refused", "escalate": False}, False),
        ({"outcome": "already_healthy", "escalate": False}, False),
        ({"outcome": "predicted", "escalate": False}, False),
        ({"dry_run": True}, False),
    ],
)
def test_what_is_news(change: dict[str, Any], news: bool) -> None:
    assert notify.is_news({**RESULT, **change}) is news


def test_without_a_file_nobody_is_told(tmp_path: Path) -> None:
    assert notify.read_channels(tmp_path / notify.FILE_NAME) == notify.Channels()


@pytest.mark.parametrize(
    "value",
    [
        [],
        {"url": "https://hooks.example"},
        {"webhook_url": "ftp://hooks.example/planted-secret"},
        {"webhook_url": "https:///planted-secret"},
        {"webhook_url": ["https://hooks.example"]},
        {"command": "/bin/true"},
    ],
)
def test_a_file_of_another_shape_is_named_and_its_secret_is_not(tmp_path: Path, value: Any) -> None:
    path = tmp_path / notify.FILE_NAME
    path.write_text(json.dumps(value))
    with pytest.raises(WhatsAgentError) as caught:
        notify.read_channels(path)
    assert str(path) in caught.value.message
    assert "planted-secret" not in caught.value.message
