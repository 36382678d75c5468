# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Action: run a long module of ours and show, meanwhile, the progress it writes to the run's journal.

A module can not speak while it runs, so its progress lies in the journal on the target; this looks there every other second,
over the task's own connection, and prints percent, amount and time left. Modules that want it have an action of their name in
this folder.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import threading
from typing import Any

from ansible.plugins.action import ActionBase
from ansible.utils.display import Display

DEFAULT_STATE_DIR = "/var/lib/whats_agent"
# Privilege escalation tells its success by a state in the connection; it is over long before the first look.
FIRST_LOOK = 3.0
INTERVAL = 2.0
_RUN_ID = re.compile(r"\d{8}T\d{6}Z-[0-9a-f]{8}")


def human(amount: float, unit: str) -> str:
    """Return an amount of bytes as 12.3 MB, of other things as they are."""
    if unit != "bytes":
        return f"{amount:g}"
    for name in ("B", "kB", "MB", "GB"):
        if amount < 1000 or name == "GB":
            return f"{amount:.0f} {name}" if name == "B" else f"{amount:.1f} {name}"
        amount /= 1000
    raise AssertionError  # GB takes all


def describe(event: dict[str, Any], portuguese: bool) -> str:
    """Return one line about a progress event."""
    unit = str(event.get("unit", "bytes"))
    of, left_word, suffix = ("de", "faltam", "") if portuguese else ("of", "", " left")
    amount = f"{human(event['done'], unit)} {of} {human(event['total'], unit)}"
    if unit != "bytes":
        amount += f" {unit}"
    left = event.get("seconds_left")
    remaining = "" if left is None else f", {left_word} {left:.0f} s{suffix}".replace("  ", " ").replace(",  ", ", ")
    note = f" ({event['note']})" if event.get("note") else ""
    return f"  … {event['step']} {event['percent']:.0f} % ({amount}{remaining}){note}"


class ActionModule(ActionBase):  # type: ignore[misc]  # ansible-core ships no types
    """Run the module of the task's name and watch its run's journal."""

    _requires_connection = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Run the module; what it returns is returned as it is."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        del tmp
        run_id = str(self._task.args.get("run_id") or "")
        stop = threading.Event()
        watch = threading.Thread(target=self._watch, args=(run_id, stop), daemon=True, name="progress-watch")
        if _RUN_ID.fullmatch(run_id) and not self._task.check_mode:
            watch.start()
        try:
            result.update(self._execute_module(task_vars=task_vars))
        finally:
            stop.set()
            if watch.is_alive():
                watch.join()
        return result

    def _watch(self, run_id: str, stop: threading.Event) -> None:
        state_dir = str(self._task.args.get("state_dir") or DEFAULT_STATE_DIR)
        command = f"tail -n 3 {shlex.quote(f'{state_dir}/runs/{run_id}.jsonl')}"
        portuguese = (os.environ.get("WHATS_AGENT_LANG") or os.environ.get("LANG") or "").lower().startswith("pt")
        seen = ""
        pause = FIRST_LOOK
        while not stop.wait(pause):
            pause = INTERVAL
            answer = self._low_level_execute_command(command)
            for line in reversed(str(answer.get("stdout", "")).splitlines()):
                event = self._parse(line)
                if event is not None:
                    if event["at"] > seen:
                        Display().display(describe(event, portuguese))
                        seen = event["at"]
                    break

    @staticmethod
    def _parse(line: str) -> dict[str, Any] | None:
        """Return the progress event of a line that measures something; the line may be cut, since the module is writing."""
        try:
            event = json.loads(line)
        except ValueError:
            return None
        measures = isinstance(event, dict) and event.get("event") == "progress" and "percent" in event
        return event if measures else None
