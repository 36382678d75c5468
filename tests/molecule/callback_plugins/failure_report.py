# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Write down why a scenario's task failed, with what its command printed, for `tests/molecule/run` to show last.

The operator's view gives a failure one line, and Molecule prints its recap below it. Who reads only the end of a long
log, as of a run on another machine, would learn from neither what went wrong.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ansible.module_utils.whats_agent.redact import redact_text
from ansible.plugins.callback import CallbackBase

if TYPE_CHECKING:
    from ansible.executor.task_result import CallbackTaskResult
    from ansible.playbook import Playbook

DOCUMENTATION = r"""
name: failure_report
type: notification
short_description: Write failed tasks of Molecule's playbooks into a file
version_added: "0.1.0"
description:
  - Appends to the file that the environment's E(WHATS_AGENT_TEST_FAILURES) names; does nothing without it.
  - Playbooks that a scenario runs itself, and which may have to fail, are left out.
  - What those printed stands in the task that ran them.
"""

LINES = 60
"""How many lines of each output are kept, the last ones."""
SCENARIOS = "/tests/molecule/"


def described(result: dict[str, Any]) -> Iterator[str]:
    """Yield the lines that say why a result is a failure."""
    items = [item for item in result.get("results", ()) if item.get("failed") or item.get("unreachable")]
    if items:
        for item in items:
            yield f"item: {item.get('_ansible_item_label', item.get('item'))}"
            yield from described(item)
        return
    for name in ("msg", "stdout", "stderr", "output", "exception"):
        lines = str(result.get(name) or "").splitlines()[-LINES:]
        if lines:
            yield f"{name}:"
            yield from (f"    {line}" for line in lines)


class CallbackModule(CallbackBase):  # type: ignore[misc]  # ansible-core ships no types
    """One entry per failed task."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "notification"
    CALLBACK_NAME = "failure_report"
    CALLBACK_NEEDS_ENABLED = True

    def __init__(self) -> None:
        super().__init__()
        self._file = os.environ.get("WHATS_AGENT_TEST_FAILURES")
        self._playbook = ""

    def v2_playbook_on_start(self, playbook: Playbook) -> None:
        """Remember which playbook it is."""
        self._playbook = str(playbook._file_name)

    def v2_runner_on_failed(self, result: CallbackTaskResult, ignore_errors: bool = False) -> None:
        """Write a failure down, unless it was allowed."""
        if not ignore_errors:
            self._write(result)

    def v2_runner_on_unreachable(self, result: CallbackTaskResult) -> None:
        """Write down that a host cannot be reached."""
        self._write(result)

    def _write(self, result: CallbackTaskResult) -> None:
        if not self._file or SCENARIOS not in self._playbook:
            return
        scenario = self._playbook.rpartition(SCENARIOS)[2]
        entry = "\n".join([f"{scenario}: {result.task.get_name()}", *described(result.result)])
        with Path(self._file).open("a", encoding="utf-8") as report:
            report.write(redact_text(entry) + "\n\n")
