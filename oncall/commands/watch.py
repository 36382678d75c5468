# SPDX-License-Identifier: GPL-3.0-or-later
"""The command `oncall watch`: the watcher's hands on ansible-runner, its signals, and its lines."""

from __future__ import annotations

import json
import signal
import sys
import threading
import time
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Any

import click

from oncall import engine
from oncall.commands.options import on_hosts
from oncall.engine import EngineError, Finished, HostResult
from oncall.faults import Fault
from oncall.outcomes import EXIT_CODES
from oncall.project import Runbook, find_or_none, parse_duration
from oncall.shared import WhatsAgentError, notify
from oncall.texts import say
from oncall.watch import Policy, Watcher

PARTS = ["lock", "breakers", "mutes", "health", "alerts"]


class AnsibleHands:
    """Looks, runs, notes and tells for real. `stop` ends what is under way."""

    def __init__(
        self, inventory: Path, host: str | None, state_dir: str, *, as_json: bool, check: bool, timeout: float
    ) -> None:
        """Keep what every call needs."""
        self.stop = threading.Event()
        self.channels = notify.Channels()
        self.interrupted = False
        self._inventory = inventory
        self._host = host
        self._state_dir = state_dir
        self._as_json = as_json
        self._check = check
        self._timeout = timeout

    def look(self) -> list[HostResult]:
        """Ask every host."""
        parameters = {"parts": PARTS, "state_dir": self._state_dir}
        try:
            return engine.ask("runbook_info", parameters, self._inventory, host=self._host, cancelled=self.stop.is_set)
        except EngineError as error:
            if not self.stop.is_set():
                self.line("blind", say("watch_blind", why=error))
            return []

    def run(self, runbook: Runbook, fault: Fault) -> Finished:
        """Run a runbook. No variable of it can be a consent: none is given but who runs it and what the alert calls for."""
        finished = engine.run_playbook(
            runbook.path,
            self._inventory,
            host=fault.host,
            check=self._check,
            variables={**fault.variables, "runbook_entry_point": "watcher", "runbook_state_dir": self._state_dir},
            timeout=self._timeout,
            show=None if self._as_json else click.echo,
            colour=not self._as_json and sys.stdout.isatty(),
            cancelled=self.stop.is_set,
        )
        self.interrupted = finished.status == "canceled"
        return finished

    def note(self, fault: Fault, why: str) -> None:
        """Write a decision into the host's journal; a host that cannot be written to has it in this output only."""
        decision = {"action": "note", "component": fault.component, "why": why, "state_dir": self._state_dir}
        by = {**engine.operator(), "entry_point": "watcher"}
        asked = {**decision, "by": by}
        try:
            # Is seen through, and without a say of ours ansible-runner would take the signals that end the watch for itself.
            (answer,) = engine.ask("runbook_control", asked, self._inventory, host=fault.host, cancelled=lambda: False)
        except EngineError as error:
            answer = HostResult(fault.host, "error", error=str(error))
        if answer.outcome != "ok":
            self.line("not_noted", answer.error, fault)

    def tell(self, fault: Fault, kind: str, why: str) -> None:
        """Send word, if the watcher was told where to; what did not go out is said here."""
        text = f"{fault.host}: {fault.severity} {fault.name}: {why}"
        document = {"host": fault.host, "alert": fault.name, "severity": fault.severity, "kind": kind, "why": why}
        for told in notify.send(self.channels, text, document):
            if not told["ok"]:
                self.line("not_told", f"{told['channel']}: {told['error']}", fault)

    def say(self, fault: Fault, kind: str, why: str) -> None:
        """Print a decision."""
        self.line(kind, why, fault)

    def line(self, kind: str, why: str, fault: Fault | None = None) -> None:
        """Print one line, or one JSON object."""
        at = datetime.now(UTC).isoformat(timespec="seconds")
        about: dict[str, Any] = {}
        if fault is not None:
            about = {name: getattr(fault, name) for name in ("host", "component", "name", "severity")}
        if self._as_json:
            click.echo(json.dumps({"at": at, "kind": kind, **about, "why": why}, ensure_ascii=False))
        else:
            where = f"{fault.host} {fault.component}: " if fault is not None else ""
            click.echo(f"{at} {where}{why}")


@click.command()
@on_hosts
@click.option("--every", default="15s", show_default=True, metavar="TIME", help="Time between looks.")
@click.option("--looks", default=2, show_default=True, type=click.IntRange(1), help="Looks in a row before it acts.")
@click.option(
    "--pause", default="90s", show_default=True, metavar="TIME", help="Wait after an attempt; doubles each time."
)
@click.option("--timeout", default="30m", show_default=True, metavar="TIME", help="The longest a run may take.")
@click.option("--check", is_flag=True, help="Dry runs only: say what would be done.")
@click.option(
    "--notify", "channels", type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="JSON file with webhook_url and/or command, for what needs people. Keep it private.",
)  # fmt: skip
def watch(
    *,
    inventory: Path,
    host: str | None,
    as_json: bool,
    state_dir: str,
    every: str,
    looks: int,
    pause: str,
    timeout: str,
    check: bool,
    channels: Path | None,
) -> None:
    """Watch the hosts and run, unattended, the runbook that a P0 or P1 alert names.

    Never gives consent, so nothing that destroys is done. Obeys mutes, breakers and locks, and waits longer after each
    attempt. Ctrl-C or SIGTERM ends it: exit code 0, or 31 when a run was under way (a rerun mends).

    \b
    Examples:
      oncall watch
      oncall watch --check --every 1m
      oncall watch --host server1 --notify /etc/oncall/notify.json --json
    """
    hands = AnsibleHands(inventory, host, state_dir, as_json=as_json, check=check, timeout=parse_duration(timeout))
    if channels is not None:
        try:
            hands.channels = notify.read_channels(channels)
        except WhatsAgentError as error:
            raise click.BadParameter(error.message, param_hint="--notify") from error
    policy = Policy(every=parse_duration(every), looks=looks, pause=parse_duration(pause))

    def stop(_number: int, _frame: FrameType | None) -> None:
        hands.stop.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    watcher = Watcher(hands, find_or_none, policy, time.monotonic, hands.stop.is_set)
    hands.line("begin", say("watch_begins", hosts=host or "agent_hosts"))
    while not hands.stop.is_set():
        watcher.look()
        hands.stop.wait(policy.every)
    hands.line("end", say("watch_ends"))
    sys.exit(EXIT_CODES["interrupted"] if hands.interrupted else 0)
