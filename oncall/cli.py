# SPDX-License-Identifier: GPL-3.0-or-later
"""The command line `oncall`. Exit codes: see docs/oncall.md and `oncall.outcomes`."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from oncall.commands import decide, look, run, watch


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
      oncall watch

    Exit codes of run: 0 already healthy, 10 recovered, 11 rolled back, 12 predicted, 20 refused,
    21 acted but not recovered, 30 unreachable, 31 interrupted, 1 error, 2 wrong usage.
    """


@cli.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the completion script: `eval "$(oncall completion bash)"`."""
    found = get_completion_class(shell)
    if found is None:
        raise click.ClickException(f"no completion for {shell}")
    click.echo(found(cli, {}, "oncall", "_ONCALL_COMPLETE").source())


for command in (
    run.list_runbooks,
    run.run,
    run.plan,
    look.status,
    look.runs,
    look.show,
    look.follow,
    decide.lock,
    decide.breaker,
    decide.mute,
    decide.unmute,
    watch.watch,
):
    cli.add_command(command)


def main() -> None:
    """Run the command line."""
    cli(prog_name="oncall")
