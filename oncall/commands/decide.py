# SPDX-License-Identifier: GPL-3.0-or-later
"""Commands by which a person decides: lock, breaker, mute, unmute."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

from oncall import engine, render
from oncall.commands.options import JSON, WHY, look, on_hosts, print_json
from oncall.engine import EngineError, HostResult
from oncall.project import parse_duration
from oncall.texts import say


def _show(context: click.Context, part: str, draw: Callable[[Sequence[HostResult]], None]) -> None:
    """Keep the options for a subcommand; without one, show the part of each host."""
    given: dict[str, Any] = dict(context.params)
    context.obj = given
    if context.invoked_subcommand is not None:
        return
    answers = look(given["inventory"], given["host"], parts=[part], state_dir=given["state_dir"])
    if given["as_json"]:
        print_json({a.host: a.result["seen"][part] if a.outcome == "ok" else {"problem": a.error} for a in answers})
    else:
        draw(answers)


@click.group(invoke_without_command=True)
@on_hosts
@click.pass_context
def lock(context: click.Context, /, **_: Any) -> None:
    """Show who holds each host; `oncall lock break RUN` removes a lease."""
    _show(context, "lock", render.locks)


@lock.command("break")
@click.argument("run_id", metavar="RUN")
@WHY
@JSON
@click.pass_obj
def break_lock(obj: dict[str, Any], run_id: str, why: str, as_json: bool) -> None:
    """Remove the lease of RUN. Only for a run of which you know that it is dead: otherwise it is fenced off half-way."""
    _decide(obj, as_json, action="break_lock", run_id=run_id, why=why)


@click.group(invoke_without_command=True)
@on_hosts
@click.pass_context
def breaker(context: click.Context, /, **_: Any) -> None:
    """Show the circuit breakers; `close` and `open` set one by hand."""
    _show(context, "breakers", render.breakers)


@breaker.command("close")
@click.argument("component")
@WHY
@JSON
@click.pass_obj
def close_breaker(obj: dict[str, Any], component: str, why: str, as_json: bool) -> None:
    """Let runs act on COMPONENT again, after a person looked into the failures."""
    _decide(obj, as_json, action="close_breaker", component=component, why=why)


@breaker.command("open")
@click.argument("component")
@WHY
@JSON
@click.pass_obj
def open_breaker(obj: dict[str, Any], component: str, why: str, as_json: bool) -> None:
    """Forbid runs to act on COMPONENT."""
    _decide(obj, as_json, action="open_breaker", component=component, why=why)


@click.command()
@click.argument("component")
@click.argument("words", nargs=-1, metavar="for TIME")
@WHY
@on_hosts
@click.pass_context
def mute(context: click.Context, /, *, component: str, words: Sequence[str], why: str, as_json: bool, **_: Any) -> None:
    """Hold back alerts and unattended runs of COMPONENT for a while: `oncall mute database for 2h --why …`."""
    given = [word for word in words if word != "for"]
    if len(given) != 1:
        raise click.UsageError("say for how long: oncall mute COMPONENT for 2h")
    seconds = parse_duration(given[0])
    _decide(context.params, as_json, action="mute", component=component, seconds=seconds, why=why)


@click.command()
@click.argument("component")
@WHY
@on_hosts
@click.pass_context
def unmute(context: click.Context, /, *, component: str, why: str, as_json: bool, **_: Any) -> None:
    """End a mute."""
    _decide(context.params, as_json, action="unmute", component=component, why=why)


def _decide(where: dict[str, Any], as_json: bool, **parameters: Any) -> None:
    """Take a decision on one host; with several in the inventory the host must be said."""
    inventory: Path = where["inventory"]
    state_dir = where["state_dir"]
    hosts = [answer.host for answer in look(inventory, where["host"], parts=[], state_dir=state_dir)]
    if len(hosts) > 1:
        raise click.UsageError(say("several_hosts", hosts=", ".join(hosts)))
    decision = {**parameters, "by": engine.operator(), "state_dir": state_dir}
    try:
        (answer,) = engine.ask("runbook_control", decision, inventory, host=hosts[0])
    except EngineError as error:
        raise click.ClickException(str(error)) from error
    if answer.outcome != "ok":
        raise click.ClickException(f"{answer.host}: {answer.error}")
    if as_json or where["as_json"]:
        print_json({"host": answer.host, "changed": answer.result["changed"], "mute": answer.result.get("mute")})
    elif answer.result.get("mute"):
        muted = answer.result["mute"]
        click.echo(say("muted", component=muted["component"], host=answer.host, until=muted["until"]))
    else:
        click.echo(say("done" if answer.result["changed"] else "already", host=answer.host))
