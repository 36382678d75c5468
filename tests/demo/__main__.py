# SPDX-License-Identifier: GPL-3.0-or-later
"""Deploy on this machine, break the database three ways, recover it each time, and count what was lost.

Everything is looked at from outside: webhooks go in over HTTP, rows are counted over a connection of our own, answers
are read from the Graph double's record. Exit code 0 only when every acknowledged message is stored once and answered
once.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import docker.errors
import httpx
import psycopg
from rich.console import Console
from rich.table import Table

from tests.demo.breakage import BREAKAGES, Breakage
from tests.demo.traffic import Traffic

PROJECT = Path(__file__).resolve().parents[2]
INVENTORY = "inventories/local"
# How many messages go in before and during each breakage: enough to see an order, few enough to read.
BEFORE, DURING = 5, 5
ANSWER_DEADLINE_S = 60.0

# What a broken step raises: said in a line, without a traceback. Anything else is a bug of ours and shows itself whole.
EXPECTED = (
    subprocess.CalledProcessError,
    docker.errors.DockerException,
    httpx.HTTPError,
    psycopg.Error,
    OSError,
    RuntimeError,
)

console = Console(highlight=False)


@dataclass(frozen=True)
class Result:
    """What one breakage came to. Seconds are wall time of the whole `ansible-playbook` command."""

    title: str
    seconds: float
    acknowledged: int
    lost: int
    answered_twice: int
    unanswered: int

    @property
    def ok(self) -> bool:
        """Whether nothing was lost, repeated or left unanswered."""
        return not (self.lost or self.answered_twice or self.unanswered)


def playbook(name: str, *arguments: str) -> float:
    """Run a playbook as an operator would, its output on this terminal; return its seconds, raise if it failed."""
    command = [".venv/bin/ansible-playbook", "-i", INVENTORY, f"playbooks/{name}", *arguments]
    console.print(f"[bold]$ {' '.join(command)}[/bold]")
    start = time.monotonic()
    subprocess.run(command, cwd=PROJECT, check=True)
    return time.monotonic() - start


def heading(text: str) -> None:
    """Print a step's heading."""
    console.print()
    console.rule(f"[bold]{text}[/bold]", align="left")


def break_and_recover(breakage: Breakage, traffic: Traffic) -> Result:
    """Break the database, keep sending while it is broken, run the runbook, count."""
    heading(breakage.title)
    traffic.send(BEFORE)
    traffic.wait_until_answered(ANSWER_DEADLINE_S)
    console.print(breakage.inflict())
    during = traffic.send(DURING)
    console.print(f"{len(during)} messages sent while the database is broken: all acknowledged with 200.")
    seconds = playbook("recover_db.yml")
    traffic.wait_until_answered(ANSWER_DEADLINE_S)
    count = traffic.count()
    result = Result(breakage.title, seconds, count.acknowledged, count.lost, count.answered_twice, count.unanswered)
    console.print(
        f"Recovered in {seconds:.1f} s. Acknowledged so far: {count.acknowledged}; "
        f"lost: {count.lost}; answered twice: {count.answered_twice}; unanswered: {count.unanswered}."
    )
    return result


def table_of(results: list[Result]) -> Table:
    """The closing table, one row a breakage."""
    table = Table(title="What was broken, and what it cost")
    for column in ("broken", "recover_db.yml, s", "acknowledged", "lost", "answered twice", "unanswered"):
        table.add_column(column, justify="left" if column == "broken" else "right")
    for row in results:
        table.add_row(
            row.title,
            f"{row.seconds:.1f}",
            str(row.acknowledged),
            str(row.lost),
            str(row.answered_twice),
            str(row.unanswered),
        )
    return table


def main() -> int:
    """Run the demonstration; 0 when nothing was lost."""
    parser = argparse.ArgumentParser(prog="python -m tests.demo", description=__doc__)
    parser.add_argument("--no-deploy", action="store_true", help="use the stack that is already deployed here")
    arguments = parser.parse_args()

    try:
        if not arguments.no_deploy:
            heading("Deploy the stack on this machine (the first time builds its images: a few minutes)")
            playbook("deploy.yml")

        heading("A WhatsApp message, signed as Meta signs it, and its answer")
        traffic = Traffic.of_local_stack()
        (first,) = traffic.send(1)
        traffic.wait_until_answered(ANSWER_DEADLINE_S)
        console.print(f"message {first.wamid}: {first.text}")
        console.print(f"answer:  {traffic.answers()[first.wamid][0]}")

        results = [break_and_recover(breakage, traffic) for breakage in BREAKAGES]

        heading("A healthy stack: the same runbook looks and leaves everything alone")
        healthy = playbook("recover_db.yml")
    except EXPECTED as error:
        console.print(f"[bold red]The demonstration stopped: {error}[/bold red]")
        console.print(
            "Look at `docker ps -a`, /opt/whats_agent/logs and docs/operators_guide.md; `make down` removes everything."
        )
        return 1

    console.print()
    console.print(table_of(results))
    console.print(f"On the healthy stack the runbook took {healthy:.1f} s. `make down` removes everything.")
    return 0 if all(result.ok for result in results) else 1


if __name__ == "__main__":
    sys.exit(main())
