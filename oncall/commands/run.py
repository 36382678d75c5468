# SPDX-License-Identifier: GPL-3.0-or-later
"""Commands that run playbooks: list, run, plan."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import click

from oncall import engine
from oncall.commands.options import EXTRA, HOST, INVENTORY, JSON, RUNBOOK, print_json, variables_of
from oncall.engine import Finished
from oncall.outcomes import EXIT_CODES, exit_code
from oncall.project import find, parse_duration, playbooks
from oncall.texts import say

LEASE_SECONDS = 30


@click.command("list")
@JSON
def list_runbooks(as_json: bool) -> None:
    """List the playbooks with their purpose."""
    found = playbooks()
    if as_json:
        print_json([{"name": runbook.name, "runbook": runbook.is_runbook, **runbook.header} for runbook in found])
        return
    for runbook in found:
        click.echo(f"{runbook.name:<24} {runbook.header.get('Purpose', '')}")


@click.command()
@RUNBOOK
@INVENTORY
@HOST
@JSON
@click.option("--check", is_flag=True, help="Dry run: show what would be done, change nothing.")
@click.option("--confirm", metavar="HASH", help="Consent to a destructive step, with the hash the plan printed.")
@EXTRA
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
    variables = variables_of(extra)
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


@click.command()
@RUNBOOK
@INVENTORY
@HOST
@JSON
@EXTRA
def plan(*, runbook: str, inventory: Path, host: str | None, as_json: bool, extra: Sequence[str]) -> None:
    """Show what a runbook would do, what would be lost and how long it took before. Changes nothing."""
    _run(runbook, inventory=inventory, host=host, as_json=as_json, check=True, variables=variables_of(extra))


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
    finished = engine.run_playbook(
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
        print_json(
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
