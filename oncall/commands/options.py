# SPDX-License-Identifier: GPL-3.0-or-later
"""Options and helpers that several commands share."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem

from oncall import engine
from oncall.engine import EngineError, HostResult
from oncall.project import default_inventory, playbooks


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
EXTRA = click.option(
    "-e", "--extra", multiple=True, metavar="NAME=VALUE", help="A variable for the playbook; may be repeated."
)


def on_hosts(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options of everything that looks at hosts."""
    return INVENTORY(HOST(JSON(STATE_DIR(command))))


def print_json(value: Any) -> None:
    """Print one JSON document."""
    click.echo(json.dumps(value, ensure_ascii=False, indent=2))


def look(inventory: Path, host: str | None, **parameters: Any) -> list[HostResult]:
    """Ask the hosts how they stand; a playbook engine that cannot start is one line."""
    try:
        return engine.ask("runbook_info", parameters, inventory, host=host)
    except EngineError as error:
        raise click.ClickException(str(error)) from error


def variables_of(extra: Sequence[str]) -> dict[str, Any]:
    """Return the variables given as NAME=VALUE."""
    variables: dict[str, Any] = {}
    for item in extra:
        name, separator, value = item.partition("=")
        if not separator or not name.isidentifier():
            raise click.BadParameter(f"{item!r} is not NAME=VALUE", param_hint="-e")
        variables[name] = value
    return variables
