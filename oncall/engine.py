# SPDX-License-Identifier: GPL-3.0-or-later
"""ansible-runner behind two functions: run a playbook under the contract, and ask hosts one question each."""

from __future__ import annotations

import getpass
import json
import os
import platform
import shlex
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ansible_runner

from oncall.project import ROOT, language


@dataclass
class HostResult:
    """How a run ended on one host; `result` is what the run contract returned, if it got so far."""

    host: str
    outcome: str
    result: dict[str, Any] = field(default_factory=dict)
    error: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Return JSON-able data."""
        return {"host": self.host, "outcome": self.outcome, "error": self.error, **self.result}


@dataclass
class Finished:
    """How a whole playbook ended. `status` is ansible-runner's: successful, failed, timeout, canceled."""

    status: str
    code: int
    hosts: list[HostResult]
    errors: list[str]


def environment(*, colour: bool) -> dict[str, str]:
    """Return what ansible needs to see, so that it works from any directory and prints our view."""
    chosen = {
        "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
        # ansible-runner adds its own folder, and the variable then hides the one in ansible.cfg.
        "ANSIBLE_CALLBACK_PLUGINS": str(ROOT / "oncall" / "callback_plugins"),
        "ANSIBLE_STDOUT_CALLBACK": "runbook",
        # Ansible does not start under a locale that this machine has not got; the language is told apart from it.
        "WHATS_AGENT_LANG": language(),
        "LC_ALL": "C.UTF-8",
        "PATH": f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}",
    }
    chosen["ANSIBLE_FORCE_COLOR" if colour else "ANSIBLE_NOCOLOR"] = "1"
    return chosen


def operator() -> dict[str, str]:
    """Return who is at the keyboard, as locks and journals name a holder."""
    user = os.environ.get("SUDO_USER") or getpass.getuser()
    return {"user": user, "controller": platform.node(), "entry_point": "oncall"}


class _Collector:
    """Takes ansible-runner's events: shows their text at once, keeps what the contract returned."""

    def __init__(self, show: Callable[[str], None] | None) -> None:
        self._show = show
        self.results: dict[str, dict[str, Any]] = {}
        self.unreachable: dict[str, str] = {}
        self.failed: dict[str, str] = {}
        self.started: set[str] = set()
        self.errors: list[str] = []

    def __call__(self, event: dict[str, Any]) -> bool:
        text = str(event.get("stdout") or "")
        if text and self._show is not None:
            self._show(text)
        if "[ERROR]" in text or "ERROR!" in text:
            self.errors.append(text.strip())
        data = event.get("event_data") or {}
        host = data.get("host")
        if not host:
            return False
        answer = data.get("res") or {}
        kind = event.get("event")
        if kind in ("runner_on_ok", "runner_on_failed"):
            self.started.add(host)
            if isinstance(answer.get("result"), dict) and "outcome" in answer["result"]:
                self.results[host] = answer["result"]
        if kind == "runner_on_failed" and not data.get("ignore_errors"):
            self.failed[host] = str(answer.get("msg", "failed"))
        if kind == "runner_on_unreachable":
            self.unreachable[host] = str(answer.get("msg", "unreachable"))
        return False

    def hosts(self, status: str) -> list[HostResult]:
        """Return how it ended per host, whatever it got to."""
        ended = []
        for host in sorted(self.started | self.unreachable.keys() | self.results.keys()):
            if host in self.results:
                ended.append(HostResult(host, self.results[host]["outcome"], self.results[host]))
            elif host in self.unreachable:
                ended.append(HostResult(host, "unreachable", error=self.unreachable[host]))
            elif status in ("timeout", "canceled"):
                ended.append(HostResult(host, "interrupted", error=status))
            elif host in self.failed:
                ended.append(HostResult(host, "error", error=self.failed[host]))
        return ended


def run_playbook(
    playbook: Path,
    inventory: Path,
    *,
    host: str | None = None,
    check: bool = False,
    variables: Mapping[str, Any] | None = None,
    arguments: Sequence[str] = (),
    timeout: float | None = None,
    show: Callable[[str], None] | None = None,
    colour: bool = False,
    cancelled: Callable[[], bool] | None = None,
) -> Finished:
    """Run a playbook. `show` gets its text as it comes; `timeout` is seconds, after which it is killed (a rerun mends).

    `cancelled` says when to stop; without it ansible-runner takes Ctrl-C and SIGTERM for itself.
    """
    words = ["--check"] if check else []
    words += list(arguments)
    collector = _Collector(show)
    with tempfile.TemporaryDirectory(prefix="oncall-") as folder:
        settings = {"job_timeout": int(timeout)} if timeout else {}
        run = ansible_runner.run(
            private_data_dir=folder,
            project_dir=str(ROOT),
            playbook=str(playbook),
            inventory=str(inventory),
            limit=host,
            extravars={"runbook_entry_point": "oncall", **(variables or {})},
            cmdline=shlex.join(words) or None,
            envvars=environment(colour=colour),
            settings={**settings, "suppress_ansible_output": True, "pexpect_timeout": 1},
            event_handler=collector,
            cancel_callback=cancelled,
            quiet=True,
        )
        return Finished(run.status, int(run.rc), collector.hosts(run.status), collector.errors)


def ask(
    module: str,
    parameters: Mapping[str, Any],
    inventory: Path,
    *,
    host: str | None = None,
    check: bool = False,
    cancelled: Callable[[], bool] | None = None,
) -> list[HostResult]:
    """Run one of our modules on the agent hosts, or on one of them; each answer is in `result`."""
    collector = _Answers()
    with tempfile.TemporaryDirectory(prefix="oncall-") as folder:
        run = ansible_runner.run(
            private_data_dir=folder,
            project_dir=str(ROOT),
            host_pattern=host or "agent_hosts",
            module=module,
            module_args=json.dumps(parameters),
            inventory=str(inventory),
            cmdline="--check" if check else None,
            envvars=environment(colour=False),
            settings={"suppress_ansible_output": True, "pexpect_timeout": 1},
            event_handler=collector,
            cancel_callback=cancelled,
            quiet=True,
        )
        text = run.stdout.read() if not collector.answers else ""
    if not collector.answers:
        raise EngineError(text.strip().splitlines()[0] if text.strip() else f"no host answered ({run.status})")
    return [collector.answers[name] for name in sorted(collector.answers)]


class EngineError(Exception):
    """Ansible itself could not start: an inventory or a host that does not exist, for instance."""


class _Answers:
    """Keeps one answer per host."""

    def __init__(self) -> None:
        self.answers: dict[str, HostResult] = {}

    def __call__(self, event: dict[str, Any]) -> bool:
        data = event.get("event_data") or {}
        host, answer = data.get("host"), data.get("res") or {}
        kind = event.get("event")
        if host and kind == "runner_on_ok":
            self.answers[host] = HostResult(host, "ok", answer)
        elif host and kind == "runner_on_failed":
            self.answers[host] = HostResult(host, "error", answer, str(answer.get("msg", "failed")))
        elif host and kind == "runner_on_unreachable":
            self.answers[host] = HostResult(host, "unreachable", {}, str(answer.get("msg", "unreachable")))
        return False
