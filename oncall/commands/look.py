# SPDX-License-Identifier: GPL-3.0-or-later
"""Commands that only look: status, runs, show, follow."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import click

from oncall import render
from oncall.commands.options import look, on_hosts, print_json
from oncall.engine import HostResult
from oncall.outcomes import EXIT_ATTENTION, EXIT_CODES
from oncall.texts import say

ALL_PARTS = ["lock", "breakers", "mutes", "runs", "containers", "health", "alerts", "backup"]
RUN = click.argument("run_id", metavar="[RUN]", default="last")


@click.command()
@on_hosts
def status(inventory: Path, host: str | None, as_json: bool, state_dir: str) -> None:
    """Show health, alerts, locks, breakers, last run and backup age per host. Exit code 3: something needs a person."""
    answers = look(inventory, host, parts=ALL_PARTS, limit=1, state_dir=state_dir)
    attention = {answer.host: render.needs_attention(answer) for answer in answers}
    if as_json:
        seen = {a.host: a.result.get("seen") or {"problem": a.error} for a in answers}
        print_json({"hosts": seen, "attention": attention})
    else:
        render.status(answers)
    sys.exit(EXIT_ATTENTION if any(attention.values()) else 0)


@click.command()
@on_hosts
@click.option("-n", "--number", default=20, show_default=True, help="How many per host.")
def runs(inventory: Path, host: str | None, as_json: bool, state_dir: str, number: int) -> None:
    """List the last runs of each host."""
    answers = look(inventory, host, parts=["runs"], limit=number, state_dir=state_dir)
    if as_json:
        print_json({a.host: a.result["seen"]["runs"] if a.outcome == "ok" else {"problem": a.error} for a in answers})
    else:
        render.runs(answers)


def _resolve(run_id: str, inventory: Path, host: str | None, state_dir: str) -> tuple[str, str]:
    """Return the host and the id of a run: by its id, the start of its id, or `last`."""
    answers = look(inventory, host, parts=["runs"], limit=200, state_dir=state_dir)
    known = [(run["run"], a.host) for a in answers if a.outcome == "ok" for run in a.result["seen"]["runs"]]
    fitting = sorted(known) if run_id == "last" else sorted(item for item in known if item[0].startswith(run_id))
    if not fitting:
        raise click.ClickException(say("no_run", run=run_id))
    found, its_host = fitting[-1]
    return its_host, found


@click.command()
@RUN
@on_hosts
def show(run_id: str, inventory: Path, host: str | None, as_json: bool, state_dir: str) -> None:
    """Show a run's timeline. RUN is its id, the start of it, or `last`."""
    host, found = _resolve(run_id, inventory, host, state_dir)
    (answer,) = look(inventory, host, parts=[], run_id=found, state_dir=state_dir)
    events = _events(answer)
    if as_json:
        print_json({"host": host, "run": found, "events": events})
        return
    click.echo(f"{found} @ {host}")
    for item in events:
        render.event(item, events[0]["boot"])


def _events(answer: HostResult) -> list[dict[str, Any]]:
    if answer.outcome != "ok":
        raise click.ClickException(f"{answer.host}: {answer.error}")
    found: list[dict[str, Any]] = answer.result["events"]
    return found


@click.command()
@RUN
@on_hosts
@click.option("--every", default=1.0, show_default=True, help="Seconds between looks.")
def follow(*, run_id: str, inventory: Path, host: str | None, as_json: bool, state_dir: str, every: float) -> None:
    """Follow a run that another person, or a timer, started, until it ends."""
    host, found = _resolve(run_id, inventory, host, state_dir)
    click.echo(say("waiting", run=found), err=True)
    seen: list[dict[str, Any]] = []
    while not any(item["event"] == "close" for item in seen):
        if seen:
            time.sleep(every)
        (answer,) = look(inventory, host, parts=[], run_id=found, after=len(seen), state_dir=state_dir)
        for item in _events(answer):
            seen.append(item)
            if as_json:
                click.echo(json.dumps(item, ensure_ascii=False))
            else:
                render.event(item, seen[0]["boot"])
    ended = str(next(item["outcome"] for item in seen if item["event"] == "close"))
    sys.exit(EXIT_CODES.get(ended, EXIT_CODES["interrupted"]))
