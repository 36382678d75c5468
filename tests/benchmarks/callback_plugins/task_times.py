# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Callback: write when each task began and ended, for tests/benchmarks/healthy.py."""

from __future__ import annotations

DOCUMENTATION = """
name: task_times
type: aggregate
short_description: Write a JSON line per task with its begin and end
version_added: 0.1.0
description:
  - Appends C({"task", "began", "ended"}), seconds since the epoch, to the file that E(TASK_TIMES_FILE) names.
"""

import json  # noqa: E402
import os  # noqa: E402
import time  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

from ansible.plugins.callback import CallbackBase  # noqa: E402


class CallbackModule(CallbackBase):  # type: ignore[misc]  # ansible-core ships no types
    """Keeps the begin of the present task; its first result is its end."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "task_times"
    CALLBACK_NEEDS_ENABLED = True

    def __init__(self) -> None:
        super().__init__()
        self._file = Path(os.environ["TASK_TIMES_FILE"])
        self._began = 0.0

    def v2_playbook_on_task_start(self, task: Any, is_conditional: bool) -> None:
        """Note the begin."""
        self._began = time.time()

    def _ended(self, result: Any) -> None:
        line = {"task": result.task.get_name().strip(), "began": self._began, "ended": time.time()}
        with self._file.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(line) + "\n")

    def v2_runner_on_ok(self, result: Any) -> None:
        """Note the end."""
        self._ended(result)

    def v2_runner_on_failed(self, result: Any, ignore_errors: bool = False) -> None:
        """Note the end."""
        self._ended(result)
