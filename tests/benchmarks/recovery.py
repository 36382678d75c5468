#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""How long a broken database takes to come back, fault by fault, and what it costs in messages.

On a throwaway server, made as Molecule's and removed at the end, the database is given its size and broken for real; a client
keeps sending messages all the while. `recover_db.yml` mends it, timed as an operator waits for it. Restores take turns with
pgBackRest alone on the same repository; the guide's commands, with its sleeps, are run as a script.

    .venv/bin/python tests/benchmarks/recovery.py [--quick] [--rounds N] [--keep] [--only CASE …] [--write-docs]

Needs what `make setup` and a Debian machine have: Docker and the images are made where they are missing. Prints tables; its
last line is one JSON object. Exit code 1 when a target of the table was missed or a recovery failed.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# Run as a script, Python knows only this folder.
sys.path[:0] = [str(ROOT)]

from tests.benchmarks import recovery_bare as bare  # noqa: E402
from tests.benchmarks import recovery_docs as docs  # noqa: E402
from tests.benchmarks import recovery_report as report  # noqa: E402
from tests.benchmarks.recovery_cases import CASES, RUNBOOK, Case, chosen  # noqa: E402
from tests.benchmarks.recovery_client import Client  # noqa: E402
from tests.benchmarks.recovery_server import BenchmarkError, Ran, Server, need_space, throwaway  # noqa: E402

SIZES_MB = (100, 1000)
NEEDED_GB = {100: 8.0, 1000: 16.0}
WAL_ROWS = {100: 2_000, 1000: 20_000}
"""Rows written between backup and fault, which a restore has to replay."""
TRAFFIC = 6
"""Messages that must be acknowledged before the fault, while it is there, and after the recovery."""


@dataclass
class Bench:
    """Everything measured so far."""

    server: Server
    client: Client
    results: list[report.Result] = field(default_factory=list)
    guides: dict[tuple[str, int], float] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    def attempt(self, case: Case, megabytes: int) -> None:
        """Measure one recovery; a failed one is noted, and the rest still measured if the database can be mended after all."""
        try:
            self.recover(case, megabytes)
        except BenchmarkError as error:
            self.problems.append(f"{case.name}, {report.size_text(megabytes)}: {error}")
            say(f"FAILED: {self.problems[-1]}")
            self.server.playbook(RUNBOOK)

    def recover(self, case: Case, megabytes: int) -> None:
        """Break, recover, and settle the account of the messages sent meanwhile."""
        since, refused = len(self.client.acknowledged), len(self.client.refused)
        with self.client:
            alone = self._bare(megabytes, cached=case.cached) if case.compares else None
            self.client.need_traffic(TRAFFIC, since)
        with self.client:
            try:
                case.bring_about(self.server)
                asked = (*case.arguments, *(case.asks(self.server) if case.asks else ()))
                ran, written = self._mend(case, asked)
                closed = self.server.last_run()
            finally:
                case.put_right(self.server)
        with self.client:
            self.client.need_traffic(TRAFFIC, len(self.client.acknowledged))
        if (closed["cause"], closed["outcome"]) != (case.name, case.outcome):
            raise BenchmarkError(f"it was named {closed['cause']}, and the run ended as {closed['outcome']}")
        seconds = closed["seconds"]
        result = report.Result(
            case=case.name,
            megabytes=megabytes,
            detect=seconds["detect"],
            waited=closed["waited"],
            act=seconds["act"] if case.ends_well else None,
            verify=seconds["verify"] if case.ends_well else None,
            total=ran.seconds,
            changed=ran.changed,
            account=self.client.settle(since),
            not_200=len(self.client.refused) - refused,
            first_write=written,
            bare=alone,
            cached=case.cached,
        )
        self.results.append(result)
        say(
            f"{case.name}: detected {result.detect:.1f} s, "
            + (f"acted {result.act:.1f} s, verified {result.verify:.1f} s, " if case.ends_well else f"{case.outcome}, ")
            + f"command {result.total:.1f} s"
            + (f", first write {written:.1f} s" if written else "")
            + (f", bare tool {alone:.1f} s" if alone else "")
        )
        if case.restores and not case.undone_next:
            self.server.settle_restore()

    def _mend(self, case: Case, asked: tuple[str, ...]) -> tuple[Ran, float | None]:
        """Run the runbook; of a restore also the seconds from the command to the first write."""
        self.client.need_traffic(TRAFFIC, len(self.client.acknowledged))
        if not case.restores:
            return self.server.playbook(RUNBOOK, *asked, check=case.ends_well), None
        if not case.cached:
            bare.forget_repository(self.server)
        poller = bare.first_write(self.server, bare.STACK_SOCKET, now=False)
        try:
            ran = self.server.playbook(RUNBOOK, *asked)
            return ran, bare.written_at(poller) - ran.began
        finally:
            poller.kill()
            poller.wait()

    def _bare(self, megabytes: int, *, cached: bool) -> float:
        bare.write_wal(self.server, WAL_ROWS[megabytes])
        return bare.bare_restore(self.server, cached=cached)

    def guide(self, cases: list[Case], megabytes: int) -> None:
        """The guide's commands, for the faults that it has commands for."""
        bare.prepare_guide(self.server)
        if any(case.name == report.STOPPED for case in cases):
            self.guides[report.STOPPED, megabytes] = bare.guide_stopped(self.server)
        if any(case.compares for case in cases):
            seconds = bare.guide_restore(self.server)
            self.guides |= {(case.name, megabytes): seconds for case in cases if case.compares}
        for (name, size), seconds in self.guides.items():
            if size == megabytes:
                say(f"{name}: the guide's commands {seconds:.1f} s")

    def measure(self, cases: list[Case], megabytes: int, rounds: int) -> None:
        """One size: fill, then every case, the restores as often as asked for."""
        say(f"filling the database to {report.size_text(megabytes)}")
        bare.fill(self.server, megabytes)
        of_this_size = [case for case in cases if megabytes > SIZES_MB[0] or not case.cached]
        for turn in range(rounds):
            for case in of_this_size:
                if not case.receiver and (turn == 0 or case.restores):
                    self.attempt(case, megabytes)
        self.guide(of_this_size, megabytes)
        self.with_receiver([case for case in of_this_size if case.receiver], megabytes)

    def with_receiver(self, cases: list[Case], megabytes: int) -> None:
        """What only a stack with a WAL receiver can suffer from."""
        if not cases:
            return
        self.server.playbook("playbooks/deploy.yml", "-e", "stack_wal_receiver=sync")
        for case in cases:
            self.attempt(case, megabytes)
        self.server.playbook("playbooks/deploy.yml")


def say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="the small size, everything once")
    parser.add_argument("--rounds", type=int, default=1, help="how often each restore is measured; all else is once")
    parser.add_argument("--keep", action="store_true", help="leave the server, and use one that was left")
    parser.add_argument(
        "--only", action="append", choices=sorted({case.name for case in CASES}), help="measure only this case"
    )
    parser.add_argument("--write-docs", action="store_true", help="write docs/recovery_times.md and its plot anew")
    given = parser.parse_args()
    if given.write_docs and (given.quick or given.only):
        parser.error("--write-docs writes down a whole run: not with --quick or --only")
    return given


def run(options: argparse.Namespace) -> int:
    """Measure, print the tables and the last line."""
    sizes = SIZES_MB[:1] if options.quick else SIZES_MB
    cases = chosen(options.only)
    need_space(NEEDED_GB[sizes[-1]])
    name = os.environ.get("WHATS_AGENT_TEST_SERVER", "whats-agent-benchmark")
    began = time.monotonic()
    say(f"making the throwaway server {name} with the stack on it")
    with throwaway(name, keep=options.keep) as server:
        bench = Bench(server, Client(server, server.work / "acknowledged.jsonl"))
        for megabytes in sizes:
            bench.measure(cases, megabytes, options.rounds)
        # A later restore may lose what an earlier case had settled.
        last = bench.client.settle()
    rows = report.rows_of(bench.results, bench.guides)
    found = report.targets(rows, bench.results, last)
    print(f"\nTimes in seconds, medians of the rounds.\n\n{report.table(rows)}\n\n{report.target_table(found)}\n")
    minutes = (time.monotonic() - began) / 60
    say(f"took {minutes:.1f} min")
    if options.write_docs:
        docs.write(rows, found, minutes)
    for problem in bench.problems:
        print(f"FAILED: {problem}")
    print(json.dumps({**report.summary(rows, bench.results, last), "problems": len(bench.problems)}))
    return 0 if all(target.met for target in found) and not bench.problems else 1


def main() -> int:
    options = parse_options()
    try:
        return run(options)
    except (BenchmarkError, subprocess.TimeoutExpired) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
