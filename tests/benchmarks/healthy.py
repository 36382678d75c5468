# SPDX-License-Identifier: GPL-3.0-or-later
"""How long each recovery runbook takes on a healthy stack, and where the time goes.

    .venv/bin/python tests/benchmarks/healthy.py -i inventories/local [--repeat 5] [RUNBOOK …]

Runs `ansible-playbook` as an operator does, over and over, and prints a table: the best and the median run, start-up (Ansible
until its first task), the tasks by phase, and the end. Then the same through `oncall run`. The target is at most 6 s and
`changed=0`. The last line is the result as JSON. Exit code 1: a run was not `already_healthy`, or its best was over the target.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent
TARGET_SECONDS = 6.0
# The role runbook's own tasks, by the phase of the contract; every other task is the component's diagnosis.
PHASES = {
    "Open the run (a lease left behind is waited for)": "open",
    "Plan": "plan",
    "Report the outcome": "report",
}
COLUMNS = ("start-up", "open", "diagnose", "plan", "report", "end")


@dataclass(frozen=True)
class Timed:
    """One run, in seconds: the whole, and its parts by column."""

    total: float
    parts: dict[str, float]


def parts_of(began: float, ended: float, tasks: Sequence[dict[str, float | str]]) -> dict[str, float]:
    """Divide a run by what its tasks say; the parts and the gaps between tasks (in `diagnose`) make up the whole."""
    parts = dict.fromkeys(COLUMNS, 0.0)
    parts["start-up"] = float(tasks[0]["began"]) - began
    parts["end"] = ended - float(tasks[-1]["ended"])
    for task in tasks:
        column = PHASES.get(str(task["task"]).rpartition(" : ")[2])
        if column is not None:
            parts[column] += float(task["ended"]) - float(task["began"])
    parts["diagnose"] = ended - began - sum(parts.values())
    return parts


def environment(times: Path) -> dict[str, str]:
    """Return the environment in which the runs write their tasks' times."""
    callbacks = [ROOT / "oncall" / "callback_plugins", HERE / "callback_plugins"]
    return {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}",
        "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
        "ANSIBLE_CALLBACK_PLUGINS": ":".join(map(str, callbacks)),
        "ANSIBLE_CALLBACKS_ENABLED": "no_hosts,task_times",
        "TASK_TIMES_FILE": str(times),
        "ANSIBLE_NOCOLOR": "1",
        "WHATS_AGENT_LANG": "en",
    }


def run_once(inventory: Path, runbook: str) -> Timed:
    """Run a runbook once. Raises SystemExit when it did not find a healthy stack, or changed something."""
    with tempfile.TemporaryDirectory() as folder:
        times = Path(folder) / "times"
        command = ["ansible-playbook", "-i", str(inventory), f"playbooks/{runbook}.yml"]
        began = time.time()
        done = subprocess.run(
            command, cwd=ROOT, env=environment(times), capture_output=True, text=True, check=False, timeout=600
        )
        ended = time.time()
        if done.returncode or "already healthy" not in done.stdout or "changed=0 " not in done.stdout:
            raise SystemExit(f"{runbook} was not already healthy:\n{done.stdout}{done.stderr}")
        tasks = [json.loads(line) for line in times.read_text(encoding="utf-8").splitlines()]
    return Timed(ended - began, parts_of(began, ended, tasks))


def through_oncall(inventory: Path, runbook: str) -> float:
    """Return how long the same takes through `oncall run`."""
    command = [str(ROOT / "scripts" / "oncall"), "run", runbook, "-i", str(inventory)]
    began = time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
    if done.returncode:
        raise SystemExit(f"oncall run {runbook} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    return time.monotonic() - began


def measure(inventory: Path, runbook: str, repeat: int) -> dict[str, float]:
    """Return the numbers of a runbook. The parts are those of the best run: the others are the machine's noise."""
    runs = sorted((run_once(inventory, runbook) for _ in range(repeat)), key=lambda timed: timed.total)
    median = statistics.median(timed.total for timed in runs)
    oncall = min(through_oncall(inventory, runbook) for _ in range(min(repeat, 2)))
    numbers = {"best": runs[0].total, "median": median, **runs[0].parts, "oncall": oncall}
    return {name: round(value, 2) for name, value in numbers.items()}


def table(found: dict[str, dict[str, float]]) -> str:
    """Return the numbers as a Markdown table."""
    columns = ("best", "median", *COLUMNS, "oncall")
    lines = [f"| runbook | {' | '.join(columns)} |", f"|---|{'---|' * len(columns)}"]
    for runbook, numbers in found.items():
        lines.append(f"| `{runbook}` | {' | '.join(f'{numbers[name]:.1f}' for name in columns)} |")
    return "\n".join(lines)


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-i", "--inventory", type=Path, default=ROOT / "inventories" / "local")
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("runbooks", nargs="*", help="names; without any, every recover_*")
    arguments = parser.parse_args()
    names = arguments.runbooks or sorted(path.stem for path in (ROOT / "playbooks").glob("recover_*.yml"))
    found = {name: measure(arguments.inventory.resolve(), name, arguments.repeat) for name in names}
    print(f"seconds on a healthy stack, best of {arguments.repeat}; load {os.getloadavg()[0]:.1f}\n")
    print(table(found))
    slow = [name for name, numbers in found.items() if numbers["best"] > TARGET_SECONDS]
    print()
    print(json.dumps({"target": TARGET_SECONDS, "ok": not slow, "runbooks": found}))
    return 1 if slow else 0


if __name__ == "__main__":
    sys.exit(main())
