#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Hold a restore at a step of its own, so that a test can do something just then."""

from __future__ import annotations

DOCUMENTATION = r"""
module: restore_moment
short_description: Hold a restore at a step, and let it go on
version_added: "0.1.0"
author: whats_agent contributors (@whats-agent)
description:
  - V(reached) waits until a restore that is at work has finished a step, and with O(freeze) stops its process right there
    with SIGSTOP. The process is found by the guard file that it holds open, so no other is stopped.
  - V(resumed) lets a stopped one go on.
  - With O(freeze), the moment is written to O(flag), for whoever watches from outside.
options:
  state:
    description: What to do.
    type: str
    choices: [reached, resumed]
    required: true
  step:
    description: The step after which the moment comes. A later one will do, since a step may take no time at all.
    type: str
    default: planned
  freeze:
    description: Whether to stop the process.
    type: bool
    default: true
  timeout:
    description: Seconds to wait for the moment.
    type: int
    default: 600
  state_dir:
    description: Where the restore keeps its state.
    type: path
    default: /var/lib/whats_agent
  flag:
    description: Where the step that was met is written, once it is.
    type: path
    default: /run/whats_agent_test/moment
attributes:
  check_mode:
    description: Not supported; it is only used by tests.
    support: none
"""

EXAMPLES = r"""
- name: Stop the restore once it has stopped the database
  restore_moment:
    state: reached
    step: fenced

- name: Let it go on
  restore_moment:
    state: resumed
"""

RETURN = r"""
step:
  description: The step that the restore has finished last.
  returned: when O(state=reached)
  type: str
old_volume:
  description: The volume that the restore replaces.
  returned: when O(state=reached)
  type: str
"""

import json  # noqa: E402
import os  # noqa: E402
import signal  # noqa: E402
import time  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

from ansible.module_utils.basic import AnsibleModule  # noqa: E402

POLL_SECONDS = 0.005
STEPS = (
    "planned",
    "fenced",
    "restored",
    "carried",
    "started",
    "replayed",
    "verified",
    "switched",
    "promoted",
    "archiving",
    "served",
    "checked",
    "backed_up",
)


class MomentError(Exception):
    """The moment never came, or nothing is held."""


def read_state(path: Path) -> dict[str, Any]:
    """The restore's state, empty while there is none."""
    try:
        state: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return {}
    return state


def holders(guard: Path) -> list[int]:
    """The processes that hold the restore's guard open."""
    found = []
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit() or int(folder.name) == os.getpid():
            continue
        try:
            if any(entry.readlink() == guard for entry in (folder / "fd").iterdir()):
                found.append(int(folder.name))
        except OSError:
            continue  # it ended, or is not ours to look into
    return found


def come(state: dict[str, Any], step: str) -> bool:
    """Whether a restore at work has come as far as the step."""
    if not state or state.get("finished_at"):
        return False
    return STEPS.index(state["step"]) >= STEPS.index(step)


def reach(params: dict[str, Any]) -> dict[str, Any]:
    """Wait for the moment, and stop the process there."""
    folder = Path(params["state_dir"])
    deadline = time.monotonic() + params["timeout"]
    while True:
        if come(read_state(folder / "restore.json"), params["step"]):
            pids = holders(folder / "restore.guard")
            if pids:
                break
        if time.monotonic() > deadline:
            raise MomentError(f"the restore never came to {params['step']}: {read_state(folder / 'restore.json')}")
        time.sleep(POLL_SECONDS)
    if params["freeze"]:
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
    state = read_state(folder / "restore.json")
    if params["freeze"]:
        flag = Path(params["flag"])
        flag.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        flag.write_text(f"{state['step']}\n", encoding="utf-8")
    return {"step": state["step"], "old_volume": state["old_volume"], "pids": pids}


def resume(params: dict[str, Any]) -> dict[str, Any]:
    """Let it go on."""
    pids = holders(Path(params["state_dir"]) / "restore.guard")
    if not pids:
        raise MomentError("no restore is held")
    for pid in pids:
        os.kill(pid, signal.SIGCONT)
    Path(params["flag"]).unlink(missing_ok=True)
    return {"pids": pids}


def main() -> None:
    """Hold, or let go."""
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": ["reached", "resumed"], "required": True},
            "step": {"type": "str", "default": "planned"},
            "freeze": {"type": "bool", "default": True},
            "timeout": {"type": "int", "default": 600},
            "state_dir": {"type": "path", "default": "/var/lib/whats_agent"},
            "flag": {"type": "path", "default": "/run/whats_agent_test/moment"},
        },
        supports_check_mode=False,
    )
    params = module.params
    try:
        result = reach(params) if params["state"] == "reached" else resume(params)
    except (MomentError, OSError) as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=True, **result)


if __name__ == "__main__":
    main()
