# SPDX-License-Identifier: GPL-3.0-or-later
"""The command line `oncall`. Exit codes: see docs/oncall.md and `oncall.outcomes`."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import click
from click.shell_completion import CompletionItem, get_completion_class

from oncall import render
from oncall.engine import EngineError, Finished, HostResult, ask, operator, run_playbook
from oncall.outcomes import EXIT_ATTENTION, EXIT_CODES, exit_code
from oncall.project import default_inventory, find, parse_duration, playbooks
from oncall.texts import say

ALL_PARTS = ["lock", "breakers", "mutes", "runs", "containers", "health", "alerts", "backup"]
LEASE_SECONDS = 30


class PlaybookName(click.ParamType[str]):
    """A playbook's name, completed from what exists."""

    name = "runbook"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Offer the playbooks with their purpose."""
        found = [runbook for runbook in playbooks() if runbook.name.startswith(incomplete)]
        return [CompletionItem(runbook.name, help=runbook.header.get("Purpose", "")) for runbook in found]


RUNBOOK = click.argument("runbook", type=PlaybookName())
INVENTORY = click.option(
    "-i", "--inventory", type=click.Path(path_type=Path, exists=True, resolve_path=True),
    default=default_inventory, show_default="local",
    help="Inventory; also by ONCALL_INVENTORY.",
)  # fmt: skip
HOST = click.option("--host", metavar="HOST", help="One host (or pattern) of the inventory instead of all.")
JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")
STATE_DIR = click.option(
    "--state-dir", default="/var/lib/whats_agent", show_default=True, help="Where the hosts keep lock and journals."
)
WHY = click.option("--why", required=True, metavar="TEXT", help="The reason, kept in the host's journal.")


def _print_json(value: Any) -> None:
    click.echo(json.dumps(value, ensure_ascii=False, indent=2))


def _look(inventory: Path, host: str | None, **parameters: Any) -> list[HostResult]:
    try:
        return ask("runbook_info", parameters, inventory, host=host)
    except EngineError as error:
        raise click.ClickException(str(error)) from error


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option("0.1.0", prog_name="oncall")
def cli() -> None:
    """Recover the WhatsApp agent, and see how its servers stand.

    \b
    Examples:
      oncall status
      oncall plan recover_db --host server1
      oncall run recover_db --host server1
      oncall run recover_db -e target_time=2026-01-31T12:00:00-03:00 --confirm HASH
      oncall show last
      oncall mute database for 2h --why "disk is being replaced"

    Exit codes of run: 0 already healthy, 10 recovered, 11 rolled back, 12 predicted, 20 refused,
    21 acted but not recovered, 30 unreachable, 31 interrupted, 1 error, 2 wrong usage.
    """


@cli.command("list")
@JSON
def list_runbooks(as_json: bool) -> None:
    """List the playbooks with their purpose."""
    found = playbooks()
    if as_json:
        _print_json([{"name": runbook.name, "runbook": runbook.is_runbook, **runbook.header} for runbook in found])
        return
    for runbook in found:
        click.echo(f"{runbook.name:<24} {runbook.header.get('Purpose', '')}")


@cli.command()
@RUNBOOK
@INVENTORY
@HOST
@JSON
@click.option("--check", is_flag=True, help="Dry run: show what would be done, change nothing.")
@click.option("--confirm", metavar="HASH", help="Consent to a destructive step, with the hash the plan printed.")
@click.option(
    "-e", "--extra", multiple=True, metavar="NAME=VALUE", help="A variable for the playbook; may be repeated."
)
@click.option("--timeout", metavar="TIME", help="Stop after 90s, 30m, 2h …; a rerun mends.")
@click.option("-v", "--verbose", count=True, help="Ansible's own output.")
def run(
    *,
    runbook: str,
    inventory: Path,
    host: str | None,
    as_json: bool,
    check: bool,
    confirm: str | None,
    extra: Sequence[str],
    timeout: str | None,
    verbose: int,
) -> None:
    """Run a runbook.

    \b
    Examples:
      oncall run recover_db
      oncall run recover_db --host server1 --check
      oncall run recover_db --confirm tp0equ-f453470f9d09 -e target_time=2026-01-31T12:00:00-03:00
    """
    variables = _variables(extra)
    if confirm:
        variables["confirm"] = confirm
    arguments = [f"-{'v' * verbose}"] if verbose else []
    _run(
        runbook,
        inventory=inventory,
        host=host,
        as_json=as_json,
        check=check,
        variables=variables,
        timeout=timeout,
        arguments=arguments,
    )


@cli.command()
@RUNBOOK
@INVENTORY
@HOST
@JSON
@click.option(
    "-e", "--extra", multiple=True, metavar="NAME=VALUE", help="A variable for the playbook; may be repeated."
)
def plan(*, runbook: str, inventory: Path, host: str | None, as_json: bool, extra: Sequence[str]) -> None:
    """Show what a runbook would do, what would be lost and how long it took before. Changes nothing."""
    _run(runbook, inventory=inventory, host=host, as_json=as_json, check=True, variables=_variables(extra))


def _variables(extra: Sequence[str]) -> dict[str, Any]:
    variables: dict[str, Any] = {}
    for item in extra:
        name, separator, value = item.partition("=")
        if not separator or not name.isidentifier():
            raise click.BadParameter(f"{item!r} is not NAME=VALUE", param_hint="-e")
        variables[name] = value
    return variables


def _run(
    runbook: str,
    *,
    inventory: Path,
    host: str | None,
    as_json: bool,
    check: bool,
    variables: dict[str, Any],
    timeout: str | None = None,
    arguments: Sequence[str] = (),
) -> NoReturn:
    found = find(runbook)
    if not as_json:
        click.echo(say("inventory", path=inventory), err=True)
    finished = run_playbook(
        found.path,
        inventory,
        host=host,
        check=check,
        variables=variables,
        arguments=arguments,
        timeout=parse_duration(timeout) if timeout else None,
        show=None if as_json else click.echo,
        colour=not as_json and sys.stdout.isatty(),
    )
    code = _code(finished, found.is_runbook)
    if as_json:
        _print_json(
            {
                "playbook": found.name,
                "inventory": str(inventory),
                "dry_run": check,
                "status": finished.status,
                "hosts": [ended.as_dict() for ended in finished.hosts],
                "errors": finished.errors,
                "exit_code": code,
            }
        )
    elif code == EXIT_CODES["interrupted"]:
        click.echo(say("interrupted", seconds=LEASE_SECONDS), err=True)
    elif not finished.hosts and code:
        click.echo(say("nothing_ran"), err=True)
    sys.exit(code)


def _code(finished: Finished, is_runbook: bool) -> int:
    """Return the exit code: by outcomes for a runbook, by success for another playbook."""
    if finished.status in ("canceled", "timeout"):
        return EXIT_CODES["interrupted"]
    if is_runbook:
        return exit_code(ended.outcome for ended in finished.hosts)
    return 0 if finished.status == "successful" else max(1, finished.code)


@cli.command()
@INVENTORY
@HOST
@JSON
@STATE_DIR
def status(inventory: Path, host: str | None, as_json: bool, state_dir: str) -> None:
    """Show health, alerts, locks, breakers, last run and backup age per host. Exit code 3: something needs a person."""
    answers = _look(inventory, host, parts=ALL_PARTS, limit=1, state_dir=state_dir)
    attention = {answer.host: render.needs_attention(answer) for answer in answers}
    if as_json:
        seen = {a.host: a.result.get("seen") or {"problem": a.error} for a in answers}
        _print_json({"hosts": seen, "attention": attention})
    else:
        render.status(answers)
    sys.exit(EXIT_ATTENTION if any(attention.values()) else 0)


@cli.command()
@INVENTORY
@HOST
@JSON
@STATE_DIR
@click.option("-n", "--number", default=20, show_default=True, help="How many per host.")
def runs(inventory: Path, host: str | None, as_json: bool, state_dir: str, number: int) -> None:
    """List the last runs of each host."""
    answers = _look(inventory, host, parts=["runs"], limit=number, state_dir=state_dir)
    if as_json:
        _print_json({a.host: a.result["seen"]["runs"] if a.outcome == "ok" else {"problem": a.error} for a in answers})
    else:
        render.runs(answers)


def _resolve(run_id: str, inventory: Path, host: str | None, state_dir: str) -> tuple[str, str]:
    """Return the host and the id of a run: by its id, the start of its id, or `last`."""
    answers = _look(inventory, host, parts=["runs"], limit=200, state_dir=state_dir)
    known = [(run["run"], a.host) for a in answers if a.outcome == "ok" for run in a.result["seen"]["runs"]]
    fitting = sorted(known) if run_id == "last" else sorted(item for item in known if item[0].startswith(run_id))
    if not fitting:
        raise click.ClickException(say("no_run", run=run_id))
    found, its_host = fitting[-1]
    return its_host, found


RUN = click.argument("run_id", metavar="[RUN]", default="last")


@cli.command()
@RUN
@INVENTORY
@HOST
@JSON
@STATE_DIR
def show(run_id: str, inventory: Path, host: str | None, as_json: bool, state_dir: str) -> None:
    """Show a run's timeline. RUN is its id, the start of it, or `last`."""
    host, found = _resolve(run_id, inventory, host, state_dir)
    (answer,) = _look(inventory, host, parts=[], run_id=found, state_dir=state_dir)
    events = _events(answer)
    if as_json:
        _print_json({"host": host, "run": found, "events": events})
        return
    click.echo(f"{found} @ {host}")
    for item in events:
        render.event(item, events[0]["boot"])


def _events(answer: HostResult) -> list[dict[str, Any]]:
    if answer.outcome != "ok":
        raise click.ClickException(f"{answer.host}: {answer.error}")
    found: list[dict[str, Any]] = answer.result["events"]
    return found


@cli.command()
@RUN
@INVENTORY
@HOST
@JSON
@STATE_DIR
@click.option("--every", default=1.0, show_default=True, help="Seconds between looks.")
def follow(*, run_id: str, inventory: Path, host: str | None, as_json: bool, state_dir: str, every: float) -> None:
    """Follow a run that another person, or a timer, started, until it ends."""
    host, found = _resolve(run_id, inventory, host, state_dir)
    click.echo(say("waiting", run=found), err=True)
    seen: list[dict[str, Any]] = []
    while not any(item["event"] == "close" for item in seen):
        if seen:
            time.sleep(every)
        (answer,) = _look(inventory, host, parts=[], run_id=found, after=len(seen), state_dir=state_dir)
        for item in _events(answer):
            seen.append(item)
            if as_json:
                click.echo(json.dumps(item, ensure_ascii=False))
            else:
                render.event(item, seen[0]["boot"])
    ended = str(next(item["outcome"] for item in seen if item["event"] == "close"))
    sys.exit(EXIT_CODES.get(ended, EXIT_CODES["interrupted"]))


@cli.group(invoke_without_command=True)
@INVENTORY
@HOST
@JSON
@STATE_DIR
@click.pass_context
def lock(ctx: click.Context, inventory: Path, host: str | None, as_json: bool, state_dir: str) -> None:
    """Show who holds each host; `oncall lock break RUN` removes a lease."""
    ctx.obj = {"inventory": inventory, "host": host, "as_json": as_json, "state_dir": state_dir}
    if ctx.invoked_subcommand is not None:
        return
    answers = _look(inventory, host, parts=["lock"], state_dir=state_dir)
    if as_json:
        _print_json({a.host: a.result["seen"]["lock"] if a.outcome == "ok" else {"problem": a.error} for a in answers})
    else:
        render.locks(answers)


@lock.command("break")
@click.argument("run_id", metavar="RUN")
@WHY
@click.pass_obj
def break_lock(obj: dict[str, Any], run_id: str, why: str) -> None:
    """Remove the lease of RUN. Only for a run of which you know that it is dead: otherwise it is fenced off half-way."""
    _decide(obj, action="break_lock", run_id=run_id, why=why)


@cli.group(invoke_without_command=True)
@INVENTORY
@HOST
@JSON
@STATE_DIR
@click.pass_context
def breaker(ctx: click.Context, inventory: Path, host: str | None, as_json: bool, state_dir: str) -> None:
    """Show the circuit breakers; `close` and `open` set one by hand."""
    ctx.obj = {"inventory": inventory, "host": host, "as_json": as_json, "state_dir": state_dir}
    if ctx.invoked_subcommand is not None:
        return
    answers = _look(inventory, host, parts=["breakers"], state_dir=state_dir)
    if as_json:
        _print_json(
            {a.host: a.result["seen"]["breakers"] if a.outcome == "ok" else {"problem": a.error} for a in answers}
        )
    else:
        render.breakers(answers)


@breaker.command("close")
@click.argument("component")
@WHY
@click.pass_obj
def close_breaker(obj: dict[str, Any], component: str, why: str) -> None:
    """Let runs act on COMPONENT again, after a person looked into the failures."""
    _decide(obj, action="close_breaker", component=component, why=why)


@breaker.command("open")
@click.argument("component")
@WHY
@click.pass_obj
def open_breaker(obj: dict[str, Any], component: str, why: str) -> None:
    """Forbid runs to act on COMPONENT."""
    _decide(obj, action="open_breaker", component=component, why=why)


@cli.command()
@click.argument("component")
@click.argument("words", nargs=-1, metavar="for TIME")
@WHY
@INVENTORY
@HOST
@JSON
@STATE_DIR
def mute(
    *,
    component: str,
    words: Sequence[str],
    why: str,
    inventory: Path,
    host: str | None,
    as_json: bool,
    state_dir: str,
) -> None:
    """Hold back alerts and unattended runs of COMPONENT for a while: `oncall mute database for 2h --why …`."""
    given = [word for word in words if word != "for"]
    if len(given) != 1:
        raise click.UsageError("say for how long: oncall mute COMPONENT for 2h")
    obj = {"inventory": inventory, "host": host, "as_json": as_json, "state_dir": state_dir}
    _decide(obj, action="mute", component=component, seconds=parse_duration(given[0]), why=why)


@cli.command()
@click.argument("component")
@WHY
@INVENTORY
@HOST
@JSON
@STATE_DIR
def unmute(*, component: str, why: str, inventory: Path, host: str | None, as_json: bool, state_dir: str) -> None:
    """End a mute."""
    obj = {"inventory": inventory, "host": host, "as_json": as_json, "state_dir": state_dir}
    _decide(obj, action="unmute", component=component, why=why)


def _decide(obj: dict[str, Any], **parameters: Any) -> None:
    """Take a decision on one host; with several in the inventory the host must be said."""
    inventory, state_dir = obj["inventory"], obj["state_dir"]
    hosts = [answer.host for answer in _look(inventory, obj["host"], parts=[], state_dir=state_dir)]
    if len(hosts) > 1:
        raise click.UsageError(say("several_hosts", hosts=", ".join(hosts)))
    try:
        (answer,) = ask(
            "runbook_control", {**parameters, "by": operator(), "state_dir": state_dir}, inventory, host=hosts[0]
        )
    except EngineError as error:
        raise click.ClickException(str(error)) from error
    if answer.outcome != "ok":
        raise click.ClickException(f"{answer.host}: {answer.error}")
    if obj["as_json"]:
        _print_json({"host": answer.host, "changed": answer.result["changed"], "mute": answer.result.get("mute")})
    elif answer.result.get("mute"):
        muted = answer.result["mute"]
        click.echo(say("muted", component=muted["component"], host=answer.host, until=muted["until"]))
    else:
        click.echo(say("done" if answer.result["changed"] else "already", host=answer.host))


@cli.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the completion script: `eval "$(oncall completion bash)"`."""
    found = get_completion_class(shell)
    if found is None:
        raise click.ClickException(f"no completion for {shell}")
    click.echo(found(cli, {}, "oncall", "_ONCALL_COMPLETE").source())


def main() -> None:
    """Run the command line."""
    cli(prog_name="oncall")
