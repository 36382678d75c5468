# SPDX-License-Identifier: GPL-3.0-or-later
"""Word of how a run ended, sent where the host was told to: a Slack-compatible webhook, a command, or both.

Best effort: tried once, within seconds, and what became of it is only recorded. It never decides an outcome. The webhook's
address is a secret: it lies in a file that only root reads and is in no message of ours.
"""

from __future__ import annotations

import json
import subprocess
import threading
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from .clock import SYSTEM_CLOCK, Clock
from .errors import WhatsAgentError
from .files import read_json
from .redact import redact_text

FILE_NAME = "notify.json"
TIMEOUT = 5.0  # seconds for a channel, all in all
_ACTED = ("recovered", "rolled_back", "acted_not_recovered")
_SHAPE = 'must be {"webhook_url": "https://…", "command": ["/path", "argument"]}, either or both'


@dataclass(frozen=True)
class Channels:
    """Where word goes; `command` is an argument list that gets the result as JSON on its standard input."""

    webhook_url: str = ""
    command: tuple[str, ...] = ()


def read_channels(path: Path) -> Channels:
    """Return what a channels file says; no file means that nobody is told. Another shape is an error that names the file."""
    value = read_json(path)
    if value is None:
        return Channels()
    if not isinstance(value, Mapping) or not value.keys() <= {"webhook_url", "command"}:
        raise WhatsAgentError(f"{path} {_SHAPE}")
    url, command = value.get("webhook_url") or "", value.get("command") or []
    if not isinstance(url, str) or not isinstance(command, list) or not all(isinstance(word, str) for word in command):
        raise WhatsAgentError(f"{path} {_SHAPE}")
    if url and (urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).hostname):
        raise WhatsAgentError(f"{path}: webhook_url is no http or https address")
    return Channels(url, tuple(command))


def is_news(result: Mapping[str, Any]) -> bool:
    """Tell whether people who did not start a run want to hear of its end: it acted, or it needs them."""
    return not result.get("dry_run") and (result["outcome"] in _ACTED or bool(result.get("escalate")))


def send(
    channels: Channels, text: str, document: Mapping[str, Any], clock: Clock = SYSTEM_CLOCK
) -> list[dict[str, Any]]:
    """Try each channel once; return `{channel, ok, seconds, error}` for each. Never raises, never takes long."""
    ways = []
    if channels.webhook_url:
        ways.append(("webhook", lambda: _post(channels.webhook_url, text)))
    if channels.command:
        ways.append(("command", lambda: _run(channels.command, document)))
    return [_try(name, way, channels.webhook_url, clock) for name, way in ways]


def _try(name: str, way: Any, secret: str, clock: Clock) -> dict[str, Any]:
    """Run one way in a thread of its own: neither a name server nor a slow answer holds the run up longer than TIMEOUT."""
    errors: list[str] = []
    began = clock.boottime()

    def attempt() -> None:
        try:
            way()
        except (OSError, ValueError, subprocess.SubprocessError, WhatsAgentError) as error:
            errors.append(str(getattr(error, "reason", "") or error) or type(error).__name__)

    thread = threading.Thread(target=attempt, daemon=True, name=f"notify-{name}")
    thread.start()
    thread.join(TIMEOUT)
    if thread.is_alive():
        errors.append(f"no answer within {TIMEOUT:g} s")
    parts = [part for part in (secret, urlsplit(secret).path) if len(part) > 1]
    told = {"channel": name, "ok": not errors, "seconds": round(clock.boottime() - began, 1)}
    return {**told, "error": redact_text(errors[0], parts)} if errors else told


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A webhook that moved is a failure to be told of, not a place to carry the text to."""

    def redirect_request(self, *_arguments: Any, **_options: Any) -> None:
        """Follow nothing."""


def _post(url: str, text: str) -> None:
    body = json.dumps({"text": text}, ensure_ascii=False).encode()
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})  # noqa: S310 (read_channels checks)
    try:
        with urllib.request.build_opener(_NoRedirect).open(request, timeout=TIMEOUT):
            pass
    except urllib.error.HTTPError as error:
        raise WhatsAgentError(f"the webhook answered HTTP {error.code}") from error


def _run(command: tuple[str, ...], document: Mapping[str, Any]) -> None:
    done = subprocess.run(
        command,
        input=json.dumps(document, ensure_ascii=False, default=str),
        capture_output=True,
        text=True,
        timeout=TIMEOUT - 0.5,
        check=False,
    )
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [""])[-1][:200]
        raise WhatsAgentError(f"{command[0]} ended with {done.returncode}: {last}")


def text_of(result: Mapping[str, Any]) -> str:
    """Return the message of a result, in Portuguese and English."""
    return f"{result['message']['pt']}\n{result['message']['en']}"
