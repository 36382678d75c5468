# SPDX-License-Identifier: GPL-3.0-or-later
"""How long each runbook takes on a healthy stack, and where the time goes.

    .venv/bin/python tests/benchmarks/healthy.py [-i INVENTORY] [--repeat 5] [--write-docs] [NAME …]

Runs `ansible-playbook` as an operator does, over and over, and prints a table: the best and the median run, start-up (Ansible
until its first task), the tasks by phase, and the end. Then the same through `oncall run`. The target is at most 6 s and
`changed=0`. A backup is always wanted, so of `backup` the dry run is measured, without a target: it goes through its steps and
takes none. `deploy`, of what is deployed already, is measured beside them, with a target of its own and the longest tasks.

`--write-docs` writes docs/healthy_times.md anew; only of a whole run, and only on a quiet machine. The last line is the result as
JSON. Exit code 1: a run did something else than expected, or its best was over the target.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent
# Run as a script, Python knows only this folder.
sys.path[:0] = [str(ROOT)]

from tests.benchmarks.machine import described  # noqa: E402

PAGE = ROOT / "docs" / "healthy_times.md"
TARGET_SECONDS = 6.0
SLOWEST = 8
# The role runbook's own tasks, by the phase of the contract; every other task is the component's diagnosis.
PHASES = {
    "Open the run (a lease left behind is waited for)": "open",
    "Plan": "plan",
    "Report the outcome": "report",
}
COLUMNS = ("start-up", "open", "diagnose", "plan", "report", "end")


@dataclass(frozen=True)
class Case:
    """One playbook on a healthy stack: how it is run, and what has to come of it."""

    name: str
    arguments: tuple[str, ...] = ()
    says: str = "already healthy"
    unchanged: bool = True
    oncall_exit: int = 0
    target: float | None = TARGET_SECONDS
    is_runbook: bool = True

    @property
    def title(self) -> str:
        """Return what is run, in the fewest words."""
        return " ".join([self.name, *self.arguments])


CASES = (
    *(Case(path.stem) for path in sorted((ROOT / "playbooks").glob("recover_*.yml"))),
    # It never finds nothing to do, so no target fits: what it would change, it names, and goes through each step of it.
    Case("backup", ("--check",), says="predicted", unchanged=False, oncall_exit=12, target=None),
    Case("deploy", target=25.0, is_runbook=False),
)


@dataclass(frozen=True)
class Timed:
    """One run, in seconds: the whole, its parts by column, and its tasks, the longest first."""

    total: float
    parts: dict[str, float]
    tasks: list[tuple[str, float]] = field(default_factory=list)


def slowest(tasks: Sequence[dict[str, float | str]]) -> list[tuple[str, float]]:
    """Return the tasks that took longest, with their seconds."""
    took = [(str(task["task"]), float(task["ended"]) - float(task["began"])) for task in tasks]
    return sorted(took, key=lambda pair: -pair[1])[:SLOWEST]


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


def run_once(inventory: Path, case: Case) -> Timed:
    """Run a playbook once. Raises SystemExit when it did not find a healthy stack, or changed something."""
    with tempfile.TemporaryDirectory() as folder:
        times = Path(folder) / "times"
        command = ["ansible-playbook", "-i", str(inventory), f"playbooks/{case.name}.yml", *case.arguments]
        began = time.time()
        done = subprocess.run(
            command, cwd=ROOT, env=environment(times), capture_output=True, text=True, check=False, timeout=900
        )
        ended = time.time()
        changed = "changed=0 " not in done.stdout
        if done.returncode or case.says not in done.stdout or (case.unchanged and changed):
            raise SystemExit(f"{case.title} did not end as {case.says}:\n{done.stdout}{done.stderr}")
        tasks = [json.loads(line) for line in times.read_text(encoding="utf-8").splitlines()]
    return Timed(ended - began, parts_of(began, ended, tasks), slowest(tasks))


def through_oncall(inventory: Path, case: Case) -> float:
    """Return how long the same takes through `oncall run`."""
    command = [str(ROOT / "scripts" / "oncall"), "run", case.name, "-i", str(inventory), *case.arguments]
    began = time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=900)
    if done.returncode != case.oncall_exit:
        raise SystemExit(f"oncall run {case.title} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    return time.monotonic() - began


def measure(inventory: Path, case: Case, repeat: int) -> tuple[dict[str, float], list[tuple[str, float]]]:
    """Return the numbers of a case, and its longest tasks. Parts and tasks are the best run's: the others are noise."""
    runs = sorted((run_once(inventory, case) for _ in range(repeat)), key=lambda timed: timed.total)
    median = statistics.median(timed.total for timed in runs)
    numbers = {"best": runs[0].total, "median": median}
    if case.target is not None:
        numbers["target"] = case.target
    if case.is_runbook:
        oncall = min(through_oncall(inventory, case) for _ in range(min(repeat, 2)))
        numbers.update(**runs[0].parts, oncall=oncall)
    return {name: round(value, 2) for name, value in numbers.items()}, runs[0].tasks


def table(found: dict[str, dict[str, float]]) -> str:
    """Return the numbers as a Markdown table; what is no runbook has no parts."""
    columns = ("target", "best", "median", *COLUMNS, "oncall")
    lines = [f"| playbook | {' | '.join(columns)} |", f"|---|{'---|' * len(columns)}"]
    for title, numbers in found.items():
        shown = (f"{numbers[name]:.1f}" if name in numbers else "" for name in columns)
        lines.append(f"| `{title}` | {' | '.join(shown)} |")
    return "\n".join(lines)


def task_table(tasks: Sequence[tuple[str, float]]) -> str:
    """Return tasks and their seconds as a Markdown table."""
    rows = (f"| {name} | {seconds:.1f} |" for name, seconds in tasks)
    return "\n".join(["| task | seconds |", "|---|---|", *rows])


def page(found: dict[str, dict[str, float]], longest: Sequence[tuple[str, float]], repeat: int, load: float) -> str:
    """Return the page's Markdown."""
    day = time.strftime("%Y-%m-%d", time.gmtime())
    return f"""# How long a run takes where nothing is wrong

Written by `tests/benchmarks/healthy.py --write-docs` on {day}, on {described()}, at a load of {load:.1f} before it began. Each
playbook ran {repeat} times; `best` and `median` are the whole command in seconds, as an operator waits for it.

{table(found)}

The parts are those of the best run. `start-up` is Ansible until its first task, `open` and `plan` are one call of
`runbook_run` each, `diagnose` is the component's own call with what Ansible needs between tasks, `oncall` is the whole through
`oncall run`. A backup is always wanted, so of `backup` it is the dry run, which goes through every step. Nothing was changed
by any of them.

## Where an unchanged deployment spends its time

{task_table(longest)}
"""


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-i", "--inventory", type=Path, default=ROOT / "inventories" / "local")
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--write-docs", action="store_true", help=f"write {PAGE.relative_to(ROOT)} anew")
    parser.add_argument("names", nargs="*", choices=[[], *(case.name for case in CASES)], help="without any, all")
    arguments = parser.parse_args()
    if arguments.write_docs and arguments.names:
        parser.error("--write-docs writes down a whole run: not with names")
    load = os.getloadavg()[0]
    found: dict[str, dict[str, float]] = {}
    longest: list[tuple[str, float]] = []
    for case in CASES:
        if not arguments.names or case.name in arguments.names:
            found[case.title], tasks = measure(arguments.inventory.resolve(), case, arguments.repeat)
            longest = tasks if case.name == "deploy" else longest
    print(f"seconds on a healthy stack, of {arguments.repeat} runs each; load {load:.1f} before\n")
    print(table(found))
    if longest:
        print(f"\n{task_table(longest)}")
    slow = [title for title, numbers in found.items() if numbers["best"] > numbers.get("target", math.inf)]
    if arguments.write_docs:
        PAGE.write_text(page(found, longest, arguments.repeat, load), encoding="utf-8")
    print()
    print(json.dumps({"ok": not slow, "over_target": slow, "playbooks": found}))
    return 1 if slow else 0


if __name__ == "__main__":
    sys.exit(main())
