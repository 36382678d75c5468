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
    with SIGSTOP. The process is found by the guard file that it holds locked, so no other is stopped.
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

import ctypes  # noqa: E402
import json  # noqa: E402
import os  # noqa: E402
import signal  # noqa: E402
import time  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

from ansible.module_utils.basic import AnsibleModule  # noqa: E402
from ansible.module_utils.whats_agent.postgres_unfinished import STEPS  # noqa: E402

POLL_SECONDS = 0.005
STOP_SECONDS = 30  # a process may wait for its disk first
PTRACE_SYSCALL, PTRACE_DETACH, PTRACE_SEIZE = 24, 17, 0x4206
PTRACE_O_TRACESYSGOOD = 1
WALL = 0x40000000  # wait for a thread that is no child, too


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
    """The processes that hold the restore's guard locked, as the kernel lists them: that is quick, however many there are."""
    try:
        found = guard.stat()
    except FileNotFoundError:
        return []
    wanted = f"{os.major(found.st_dev):02x}:{os.minor(found.st_dev):02x}:{found.st_ino}"
    locks = [line.split() for line in Path("/proc/locks").read_text(encoding="ascii").splitlines()]
    return [int(fields[4]) for fields in locks if fields[1:2] == ["FLOCK"] and fields[5] == wanted]


def come(state: dict[str, Any], step: str) -> bool:
    """Whether a restore at work has come as far as the step."""
    if not state or state.get("finished_at"):
        return False
    return STEPS.index(state["step"]) >= STEPS.index(step)


def ptrace(request: int, pid: int, data: int = 0) -> None:
    """Call ptrace(2)."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.ptrace.argtypes = [ctypes.c_long] * 4
    libc.ptrace.restype = ctypes.c_long
    if libc.ptrace(request, pid, 0, data) == -1:
        raise OSError(ctypes.get_errno(), f"ptrace {request:#x} of {pid}: {os.strerror(ctypes.get_errno())}")


def wait_until_stopped(pid: int, deadline: float) -> None:
    """Wait until a signal has stopped a process."""
    while (state := Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[0]) != "T":
        if state in ("Z", "X") or time.monotonic() > deadline:
            raise MomentError(f"process {pid} did not stop: its state is {state}")
        time.sleep(POLL_SECONDS)


def stop_after(pid: int, path: Path, step: str) -> None:
    """Stop a restore's process once it has finished a step, and before it can write anything else.

    Some steps take but a few milliseconds, in which no onlooker is sure to be awake: so its main thread, which writes the
    state, is let go from one system call to the next. It stands still while the tracer comes, or it would run on in between.
    """
    os.kill(pid, signal.SIGSTOP)
    wait_until_stopped(pid, time.monotonic() + STOP_SECONDS)
    ptrace(PTRACE_SEIZE, pid, PTRACE_O_TRACESYSGOOD)
    os.kill(pid, signal.SIGCONT)
    looked_at = (0, 0)
    while True:
        _pid, status = os.waitpid(pid, WALL)
        if not os.WIFSTOPPED(status):
            raise MomentError(f"the restore ended before it came to {step}: {read_state(path)}")
        found = path.stat() if path.exists() else None
        if found and looked_at != (found.st_ino, found.st_mtime_ns):
            looked_at = (found.st_ino, found.st_mtime_ns)
            if come(read_state(path), step):
                os.kill(pid, signal.SIGSTOP)
                ptrace(PTRACE_DETACH, pid)
                return
        its_own = os.WSTOPSIG(status) & 0x80 or status >> 16  # not a signal that it is to get
        ptrace(PTRACE_SYSCALL, pid, 0 if its_own else os.WSTOPSIG(status))


def wait_until_held(guard: Path, deadline: float) -> list[int]:
    """Wait for a restore, and return its process."""
    while not (pids := holders(guard)):
        if time.monotonic() > deadline:
            raise MomentError("no restore has begun")
        time.sleep(POLL_SECONDS)
    return pids


def reach(params: dict[str, Any]) -> dict[str, Any]:
    """Wait for the moment, and stop the process there."""
    folder = Path(params["state_dir"])
    deadline = time.monotonic() + params["timeout"]
    pids = wait_until_held(folder / "restore.guard", deadline)
    if params["freeze"]:
        for pid in pids:
            stop_after(pid, folder / "restore.json", params["step"])
    while not come(state := read_state(folder / "restore.json"), params["step"]):
        if time.monotonic() > deadline:
            raise MomentError(f"the restore never came to {params['step']}: {state}")
        time.sleep(POLL_SECONDS)
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
