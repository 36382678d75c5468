#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""How fast webhooks are accepted durably, against an empty Flask endpoint and against pywa's Flask server.

All on the same gunicorn settings, on the loopback, in one run: many short rounds take turns, in alternating order, so that
whatever else the machine does meets all of them. The ratio is the median over the rounds of (agent ÷ empty endpoint of the same
round), the percentiles are the medians of the rounds' own.

    .venv/bin/python tests/benchmarks/webhook.py [--quick] [--no-pywa] [--no-stack] [--write-docs]

About ten minutes, with --quick one. Needs nothing else at work on the machine. The part with containers needs Docker and the
images (make images). Prints tables; its last line is one JSON object. Exit code 1 when an answer was not 200 or a target was
missed.
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import statistics
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# Run as a script, Python knows only this folder.
sys.path[:0] = [str(ROOT), str(ROOT / "agent")]

from tests.benchmarks import webhook_report, webhook_stack  # noqa: E402
from tests.benchmarks.webhook_load import PHONE_NUMBER_ID, Load, Result, requests  # noqa: E402
from tests.benchmarks.webhook_servers import Server, SyncCounter, free_port, served  # noqa: E402
from whats_agent import gunicorn_config  # noqa: E402

CONNECTIONS = (16, 64)
PYWA_PACKAGE = "pywa==4.5.0"
EMPTY, AGENT, PYWA = "empty Flask endpoint", "this agent", "pywa's Flask server"
DAY_SECONDS = 180.0
RATIO_TARGET = 0.8
P99_TARGET_MS = {16: 50.0, 64: 100.0}


def gunicorn_settings() -> list[str]:
    """The agent's own settings as options, for the servers it is compared with."""
    return [
        f"--workers={gunicorn_config.workers}",
        f"--worker-class={gunicorn_config.worker_class}",
        f"--threads={gunicorn_config.threads}",
        f"--worker-connections={gunicorn_config.worker_connections}",
        f"--keep-alive={gunicorn_config.keepalive}",
        f"--backlog={gunicorn_config.backlog}",
        f"--worker-tmp-dir={gunicorn_config.worker_tmp_dir}",
        "--no-control-socket",
    ]


@dataclass
class Measured:
    """All rounds of one server at one number of connections."""

    rounds: list[Result] = field(default_factory=list)
    cpu_seconds: float = 0.0

    @property
    def per_second(self) -> float:
        return statistics.median(result.per_second for result in self.rounds)

    @property
    def cpu_microseconds(self) -> float:
        return self.cpu_seconds / sum(result.answered for result in self.rounds) * 1e6

    @property
    def not_200(self) -> int:
        return sum(result.not_200 for result in self.rounds)

    def percentile_ms(self, percent: float) -> float:
        """Median over the rounds, so that one disturbed round does not decide."""
        return statistics.median(result.percentile_ms(percent) for result in self.rounds)


@dataclass(frozen=True)
class Options:
    rounds: int
    seconds: float
    pywa: bool
    stack: bool
    write_docs: bool


def environment(directory: Path) -> dict[str, str]:
    """The same for every server; the secrets are random and this run's own."""

    def secret() -> str:
        return "B" + secrets.token_urlsafe(24)

    message_log, logs = directory / "message_log", directory / "logs"
    message_log.mkdir()
    logs.mkdir()
    return {
        **os.environ,
        "PYTHONPATH": f"{ROOT}:{ROOT / 'agent'}",
        "PHONE_NUMBER_ID": PHONE_NUMBER_ID,
        "META_ACCESS_TOKEN": secret(),
        "META_APP_SECRET": secret(),
        "META_VERIFY_TOKEN": secret(),
        "OPENAI_API_KEY": secret(),
        # Nobody answers there: accepting webhooks needs neither.
        "DB_HOST": "127.0.0.1",
        "DB_PORT": "9",
        "DB_PASSWORD": secret(),
        "REDIS_URL": "redis://127.0.0.1:9/0",
        "MESSAGE_LOG_DIR": str(message_log),
        "LOG_DIR": str(logs),
        "LOG_LEVEL": "WARNING",
    }


def pywa_python(directory: Path) -> Path:
    """A virtual environment that exists only for this run, with pywa in it."""
    print(f"installing {PYWA_PACKAGE} into a temporary virtual environment …", flush=True)
    venv = directory / "pywa"
    subprocess.run([sys.executable, "-m", "venv", str(venv)], check=True)
    pinned = [f"{name}=={version(name)}" for name in ("flask", "gunicorn")]
    subprocess.run([str(venv / "bin/pip"), "install", "--quiet", PYWA_PACKAGE, *pinned], check=True)
    return venv / "bin/python"


def start_servers(stack: ExitStack, directory: Path, options: Options, env: dict[str, str]) -> dict[str, Server]:
    """Name → running server; they listen at the same time and are loaded in turn."""
    commands = {
        EMPTY: [sys.executable, "-m", "gunicorn", *gunicorn_settings(), "tests.benchmarks.webhook_empty:app"],
        AGENT: [sys.executable, "-m", "whats_agent.cli", "serve"],
    }
    if options.pywa:
        python = str(pywa_python(directory))
        commands[PYWA] = [python, "-m", "gunicorn", *gunicorn_settings(), "tests.benchmarks.webhook_pywa:app"]
    servers = {}
    for name, command in commands.items():
        port = free_port()
        bind = f"127.0.0.1:{port}"
        # The agent reads WEB_BIND, plain gunicorn its arguments' variable.
        own = {**env, "WEB_BIND": bind} if name == AGENT else {**env, "GUNICORN_CMD_ARGS": f"--bind={bind}"}
        servers[name] = stack.enter_context(served(name, command, port, own, directory))
    return servers


def measure(servers: dict[str, Server], loads: dict[str, Load], options: Options) -> dict[tuple[str, int], Measured]:
    """Short rounds in turn; each server's first round only warms up."""
    measured: dict[tuple[str, int], Measured] = defaultdict(Measured)
    for connections in CONNECTIONS:
        for load in loads.values():
            load.run(connections, 0.5)
        for number in range(options.rounds):
            # There and back, so that a machine that grows slower or faster favours nobody.
            order = list(servers) if number % 2 == 0 else list(servers)[::-1]
            for name in order:
                server = servers[name]
                before = server.usage()
                result = loads[name].run(connections, options.seconds)
                after = server.usage()
                entry = measured[name, connections]
                entry.rounds.append(result)
                entry.cpu_seconds += after.cpu_seconds - before.cpu_seconds
    return measured


def ratio(measured: dict[tuple[str, int], Measured], connections: int) -> float:
    """Median over the rounds of agent ÷ empty endpoint."""
    empty, agent = (measured[name, connections].rounds for name in (EMPTY, AGENT))
    return statistics.median(a.per_second / e.per_second for a, e in zip(agent, empty, strict=True))


def syncs_per_batch(server: Server, load: Load, directory: Path, connections: int) -> str:
    """Acknowledged requests per sync to disk, as strace counts it; its own short run."""
    if not SyncCounter.AVAILABLE:
        return "n/a (strace is not installed)"
    with SyncCounter(server, directory) as counter:
        result = load.run(connections, 2.0)
    if not counter.syncs:
        return f"0 syncs in {result.answered} requests"
    return (
        f"{counter.syncs} syncs for {result.answered} requests, {result.answered / counter.syncs:.1f} requests per sync"
    )


def table(measured: dict[tuple[str, int], Measured]) -> list[str]:
    """One row for each server and number of connections."""
    lines = [
        "| server | connections | requests/s | p50 ms | p95 ms | p99 ms | CPU µs/request | not 200 |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for (name, connections), entry in sorted(measured.items(), key=lambda item: item[0][1]):
        lines.append(
            f"| {name} | {connections} | {entry.per_second:.0f} | {entry.percentile_ms(50):.1f} | "
            f"{entry.percentile_ms(95):.1f} | {entry.percentile_ms(99):.1f} | {entry.cpu_microseconds:.0f} | "
            f"{entry.not_200} |"
        )
    return lines


def parse_options() -> Options:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="short rounds, no pywa, no containers")
    parser.add_argument(
        "--no-pywa", action="store_true", help="leave pywa out (its installation needs a package index)"
    )
    parser.add_argument("--no-stack", action="store_true", help="leave out what needs Docker and the project's images")
    parser.add_argument(
        "--write-docs", action="store_true", help=f"write {webhook_report.PAGE} from what was measured, all of it"
    )
    given = parser.parse_args()
    if given.write_docs and (given.quick or given.no_pywa or given.no_stack):
        parser.error("--write-docs writes down a whole run: not with --quick, --no-pywa or --no-stack")
    return Options(
        rounds=9 if given.quick else 21,
        seconds=1.0 if given.quick else 1.5,
        pywa=not (given.quick or given.no_pywa),
        stack=not (given.quick or given.no_stack),
        write_docs=given.write_docs,
    )


def run(options: Options, directory: Path, say: Callable[..., None]) -> dict[str, float | int]:
    """Measure, tell ``say`` the tables, return what the last line says."""
    env = environment(directory)
    with ExitStack() as stack:
        servers = start_servers(stack, directory, options, env)
        prepared = requests(env["META_APP_SECRET"], 30_000, secrets.token_hex(4).upper())
        loads = {name: Load(server.address, prepared) for name, server in servers.items()}
        measured = measure(servers, loads, options)
        say(f"gunicorn: `{' '.join(gunicorn_settings())}`", "")
        say(*table(measured), "")
        for connections in CONNECTIONS:
            told = syncs_per_batch(servers[AGENT], loads[AGENT], directory, connections)
            say(f"- syncs at {connections} connections: {told}")
        say(f"- one sync of 4 KiB on this disk: {webhook_report.sync_milliseconds(directory):.2f} ms (median of 200)")
        say(f"- memory of the agent's web processes together: {servers[AGENT].usage().resident / 2**20:.0f} MiB")
    ratios = {connections: ratio(measured, connections) for connections in CONNECTIONS}
    say("- ratio to the empty endpoint: " + ", ".join(f"{value:.2f} at {key}" for key, value in ratios.items()))
    return {
        "ratio_to_empty_endpoint": round(min(ratios.values()), 3),
        "p99_ms": round(measured[AGENT, 16].percentile_ms(99), 1),
        "p99_ms_64": round(measured[AGENT, 64].percentile_ms(99), 1),
        "not_200": sum(measured[AGENT, connections].not_200 for connections in CONNECTIONS),
        "requests_per_second": round(measured[AGENT, 16].per_second),
        "cpu_us_per_request": round(measured[AGENT, 16].cpu_microseconds),
        "cpu_us_per_request_empty": round(measured[EMPTY, 16].cpu_microseconds),
    }


def main() -> int:
    options = parse_options()
    # On the disk the project lies on: a log in memory would prove nothing.
    cache = ROOT / ".cache"
    cache.mkdir(exist_ok=True)
    said: list[str] = []

    def say(*lines: str) -> None:
        said.extend(lines)
        print("\n".join(lines), flush=True)

    with tempfile.TemporaryDirectory(prefix="webhook-benchmark-", dir=cache) as directory:
        summary = run(options, Path(directory), say)
    if options.stack:
        summary |= webhook_stack.run(DAY_SECONDS, say)
    met = {
        "ratio": summary["ratio_to_empty_endpoint"] >= RATIO_TARGET,
        "p99 at 16": summary["p99_ms"] <= P99_TARGET_MS[16],
        "p99 at 64": summary["p99_ms_64"] <= P99_TARGET_MS[64],
        "all 200": summary["not_200"] == 0,
        "no growth": summary.get("grew", 0) == 0,
    }
    say("", "targets: " + ", ".join(f"{name} {'met' if good else 'MISSED'}" for name, good in met.items()))
    if options.write_docs:
        webhook_report.write(ROOT, said)
    print(json.dumps(summary))
    return 0 if all(met.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
