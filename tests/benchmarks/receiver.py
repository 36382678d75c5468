#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the WAL receiver costs a commit: none, one that commits do not wait for, one that they wait for.

    .venv/bin/python tests/benchmarks/receiver.py [--rounds 3] [--seconds 8] [--keep] [--write-docs]

On a throwaway server with the stack, `deploy.yml -e stack_wal_receiver=…` switches as an operator does; then pgbench, PostgreSQL's
own tool, commits one row at a time from inside the database's container. The three take turns. About ten minutes.

`--write-docs` writes docs/wal_receiver.md anew, of a quiet machine only. The last line is the result as JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# Run as a script, Python knows only this folder.
sys.path[:0] = [str(ROOT)]

from tests.benchmarks.machine import described  # noqa: E402
from tests.benchmarks.recovery_server import BenchmarkError, Server, need_space, throwaway  # noqa: E402

PAGE = ROOT / "docs" / "wal_receiver.md"
MODES = ("off", "async", "sync")
CLIENTS = (1, 8)
NEEDED_GB = 6.0
TABLE = "create table if not exists benchmark_commits (payload text)"
INSERT = "insert into benchmark_commits values (repeat('x', 300));\n"
LOG = "/tmp/benchmark"  # noqa: S108  the container's own, a tmpfs
MICROSECONDS_FIELD = 2
"""Of a line of pgbench's log: client, transaction, microseconds it took, and more."""


@dataclass(frozen=True)
class Measured:
    """One round of one mode with so many clients: commits per second, and milliseconds of each commit."""

    mode: str
    clients: int
    per_second: float
    milliseconds: Sequence[float]

    def percentile(self, wanted: int) -> float:
        return statistics.quantiles(self.milliseconds, n=100)[wanted - 1]


def commit_for(server: Server, mode: str, clients: int, seconds: int) -> Measured:
    """Commit rows one by one for a while."""
    pgbench = (
        f"rm -f {LOG}*; cat > {LOG}.sql; pgbench --no-vacuum --client={clients} --jobs={min(clients, 2)} --time={seconds} "
        f"--log --log-prefix={LOG} --file={LOG}.sql --username=postgres whats_agent >&2 && cat {LOG}.*[0-9]"
    )
    told = server.run("docker", "exec", "--interactive", server.postgres(), "bash", "-c", pgbench, stdin=INSERT)
    took = [int(line.split()[MICROSECONDS_FIELD]) / 1000 for line in told.splitlines()]
    return Measured(mode, clients, len(took) / seconds, took)


def measure(server: Server, rounds: int, seconds: int) -> list[Measured]:
    """Let the three take turns."""
    server.sql(TABLE)
    found = []
    for turn in range(rounds):
        for mode in MODES:
            server.playbook("playbooks/deploy.yml", "-e", f"stack_wal_receiver={mode}")
            server.sql("checkpoint")
            for clients in CLIENTS:
                found.append(commit_for(server, mode, clients, seconds))
                say(f"round {turn + 1}, {mode}, {clients} at once: {found[-1].per_second:.0f} commits/s")
    return found


def say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)


def rows_of(found: Sequence[Measured]) -> list[dict[str, float | str]]:
    """Medians over the rounds, and the ratio to no receiver."""
    rows: list[dict[str, float | str]] = []
    for clients in CLIENTS:
        rates = {
            mode: statistics.median(one.per_second for one in found if (one.mode, one.clients) == (mode, clients))
            for mode in MODES
        }
        for mode in MODES:
            rounds = [one for one in found if (one.mode, one.clients) == (mode, clients)]
            times = {f"p{p}": round(statistics.median(one.percentile(p) for one in rounds), 2) for p in (50, 95, 99)}
            ratio = round(rates[mode] / rates["off"], 2)
            rows.append({"mode": mode, "clients": clients, "per_second": round(rates[mode]), **times, "ratio": ratio})
    return rows


def table(rows: Sequence[dict[str, float | str]]) -> str:
    """A Markdown table."""
    lines = [
        "| `stack_wal_receiver` | at once | commits/s | p50 ms | p95 ms | p99 ms | ÷ off |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    lines += [f"| `{row['mode']}` | {' | '.join(str(row[name]) for name in list(row)[1:])} |" for row in rows]
    return "\n".join(lines)


def page(rows: Sequence[dict[str, float | str]], rounds: int, seconds: int) -> str:
    """The page's Markdown."""
    day = time.strftime("%Y-%m-%d", time.gmtime())
    told = f"medians of {rounds} rounds" if rounds > 1 else "one round"
    return f"""# The WAL receiver: no commit lost with the volume, and what that costs

Messages that Meta was told 200 about lie in the message log and come back in any case. What else is committed to the database
between the last archived WAL segment and the loss of its volume - at most `archive_timeout`, 60 s - is gone with the volume, unless
something else has written it down. That is the WAL receiver: `pg_receivewal` in a container beside the database, with a volume of
its own. One variable in the inventory switches it, and `playbooks/deploy.yml` brings it into effect:

| `stack_wal_receiver` | a lost data volume costs |
|---|---|
| `off` (as shipped) | what was committed since the last archived segment |
| `async` | what was committed in the last moments before |
| `sync` | nothing: a commit is acknowledged once the receiver has it on its disk |

With `sync`, commits wait while the receiver is away. `playbooks/recover_db.yml` calls that `commits_waiting`; it brings the
receiver back or, where that fails, lets commits go on without it (`receiver_bypassed`) until it is back. With `async` nothing
waits, so one that has not followed the server for two minutes, or is not there at all, is a cause of its own: `receiver_stopped`.
Webhooks never wait for either: they are acknowledged from the message log. A restore reads what the receiver wrote like any other
WAL, also beside an old volume that is still there but not whole: it takes from each what goes furthest, and demands the later of
both ends. The scenario `recover_db_causes` destroys the volume right after a commit, and finds that commit again.

The receiver's volume lies on the same server. It helps against a lost volume, a damaged file system in it or a hand that removed
it, not against a lost server: that is the second repository's part, whose WAL is at most 60 s old.

## What it costs

Written by `tests/benchmarks/receiver.py --write-docs` on {day}, on {described()}: commits of one row of
300 bytes by pgbench inside the database's container, {seconds} s at a time, the three modes taking turns, {told}.
Receiver and database share one disk here, as they do on one server.

{table(rows)}
"""


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=8)
    parser.add_argument("--keep", action="store_true", help="leave the server, and use one that was left")
    parser.add_argument("--write-docs", action="store_true", help=f"write {PAGE.relative_to(ROOT)} anew")
    options = parser.parse_args()
    try:
        need_space(NEEDED_GB)
        name = os.environ.get("WHATS_AGENT_TEST_SERVER", "whats-agent-benchmark")
        say(f"making the throwaway server {name} with the stack on it")
        with throwaway(name, keep=options.keep) as server:
            rows = rows_of(measure(server, options.rounds, options.seconds))
    except (BenchmarkError, subprocess.TimeoutExpired) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"\n{table(rows)}\n")
    if options.write_docs:
        PAGE.write_text(page(rows, options.rounds, options.seconds), encoding="utf-8")
    print(json.dumps({"rows": rows}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
