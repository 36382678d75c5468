#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Break the agent's containers, or what they stand on, for real."""

from __future__ import annotations

DOCUMENTATION = r"""
module: agent_fault
short_description: Break the agent's containers, or what they stand on, for real
version_added: "0.1.0"
author: whats_agent contributors (@whats-agent)
description:
  - Does to the agent what happens to agents. Uses the docker command line and signals only.
  - V(stopped), V(paused) and V(missing) are what they say; V(frozen) stops all processes by a signal; V(mute) drops what comes to
    the replica's port, so that it runs and answers nobody; V(starved) leaves it too little memory to start.
  - V(setting_refused) puts a level that does not exist into C(.env) and replaces the container; V(setting_back) mends only C(.env).
  - V(projector_lock) has a forgotten session hold the lock of the worker's projector.
  - V(disk_full) fills the disk under Docker but for a few megabytes; V(disk_free) gives them back.
options:
  fault:
    description: What to do.
    type: str
    required: true
    choices:
      [stopped, paused, missing, frozen, mute, starved, setting_refused, setting_back, projector_lock, disk_full, disk_free]
  service:
    description: To whom.
    type: str
    default: app
  timeout:
    description: Seconds until the fault must show.
    type: int
    default: 60
attributes:
  check_mode:
    description: Not supported; it is only used by tests.
    support: none
"""

EXAMPLES = r"""
- name: Stop all processes of a replica by a signal
  agent_fault:
    fault: frozen
"""

RETURN = r"""
container:
  description: The container that was broken.
  returned: success
  type: str
"""

import json  # noqa: E402
import os  # noqa: E402
import shutil  # noqa: E402
import signal  # noqa: E402
import subprocess  # noqa: E402
import time  # noqa: E402
import urllib.request  # noqa: E402
from collections.abc import Callable  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

from ansible.module_utils.basic import AnsibleModule  # noqa: E402

COMPOSE = ("docker", "compose", "--file", "/opt/whats_agent/compose.yml")
HEALTH = "http://127.0.0.1:8000/health"
ENV = Path("/opt/whats_agent/.env")
KEPT_ENV = Path("/run/whats_agent_test/env_before")
DISK = Path("/var/lib/docker")
FILLER = DISK / "filler"
LEFT_BYTES = 40 * 1024 * 1024
# Enough for the container itself to be made (about 11 MB), not for what runs in it.
TOO_LITTLE_MEMORY = "14m"
PROJECTOR_LOCK = 7264102


class FaultError(Exception):
    """The agent could not be broken as wanted."""


def run(*argv: str) -> str:
    """Run a command; its output, or an error that says what it said."""
    done = subprocess.run(argv, check=False, capture_output=True, text=True)
    if done.returncode != 0:
        raise FaultError(f"{' '.join(argv[:6])}: {done.stderr.strip()}")
    return done.stdout.strip()


def containers(service: str) -> list[str]:
    """Ids of a service's containers, newest first."""
    label = f"label=com.docker.compose.service={service}"
    return run(
        "docker", "ps", "--all", "--quiet", "--filter", label, "--filter", "label=com.docker.compose.oneoff=False"
    ).split()


def inspect(container: str) -> dict[str, Any]:
    """Describe a container as docker does."""
    described: dict[str, Any] = json.loads(run("docker", "inspect", container))[0]
    return described


def wait_until(what: str, holds: Callable[[], bool], timeout: float) -> None:
    """Wait until a condition holds."""
    deadline = time.monotonic() + timeout
    while not holds():
        if time.monotonic() > deadline:
            raise FaultError(f"{what}: not within {timeout:.0f} s")
        time.sleep(0.2)


def freeze(container: str) -> None:
    """Stop all of a container's processes by a signal."""
    for line in run("docker", "top", container, "-o", "pid").splitlines()[1:]:
        os.kill(int(line), signal.SIGSTOP)


def mute(container: str) -> None:
    """Drop what comes to the replica's port, inside the container's own network."""
    pid = str(inspect(container)["State"]["Pid"])
    run("nsenter", "--target", pid, "--net", "iptables", "-I", "INPUT", "-p", "tcp", "--dport", "8000", "-j", "DROP")


def starve(container: str, timeout: float) -> None:
    """Take the container's memory away, so that each start of it is killed, and wait until it has died a few times."""
    run("docker", "stop", "--time", "5", container)
    run("docker", "update", "--memory", TOO_LITTLE_MEMORY, "--memory-swap", TOO_LITTLE_MEMORY, container)
    # The start itself may already fail for want of memory; that it keeps dying is what is waited for.
    subprocess.run(["docker", "start", container], check=False, capture_output=True)
    wait_until("a crash loop", lambda: int(inspect(container)["RestartCount"]) >= 2, timeout)


def refuse_setting(service: str, timeout: float) -> None:
    """Give the service a setting that it refuses."""
    KEPT_ENV.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    shutil.copy2(ENV, KEPT_ENV)
    lines = ENV.read_text(encoding="utf-8").splitlines()
    changed = ["LOG_LEVEL=LOUD" if line.startswith("LOG_LEVEL=") else line for line in lines]
    ENV.write_text("\n".join(changed) + "\n", encoding="utf-8")
    run(*COMPOSE, "up", "--detach", "--no-deps", service)
    wait_until("a crash loop", lambda: int(inspect(containers(service)[0])["RestartCount"]) >= 2, timeout)


def hold_projector_lock(timeout: float) -> None:
    """Have a session wait for the projector's lock, and end the projector's own session, so that the other one gets it."""
    postgres = containers("postgres")[0]
    psql = ("psql", "-X", "-U", "postgres", "-d", "whats_agent", "-At", "-c")
    run("docker", "exec", "--detach", postgres, *psql, f"select pg_advisory_lock({PROJECTOR_LOCK}), pg_sleep(600)")
    waiting = "select count(*) from pg_locks where locktype = 'advisory' and not granted"
    wait_until("a waiting session", lambda: run("docker", "exec", postgres, *psql, waiting) != "0", timeout)
    run(
        "docker", "exec", postgres, *psql,
        "select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'whats_agent projector'",
    )  # fmt: skip
    held = "select count(*) from pg_stat_activity where query like '%pg_sleep(600)%' and wait_event = 'PgSleep'"
    wait_until("the lock to change hands", lambda: run("docker", "exec", postgres, *psql, held) != "0", timeout)
    wait_until("a worker that says so", lambda: projector_state() != "running", timeout)


def projector_state() -> str:
    """What the agent says of its projector."""
    with urllib.request.urlopen(HEALTH, timeout=10) as response:
        return str(json.load(response)["parts"]["worker"].get("projector"))


def fill_disk() -> None:
    """Take all but a few megabytes of Docker's disk."""
    free = shutil.disk_usage(DISK).free
    run("fallocate", "--length", str(free - LEFT_BYTES), str(FILLER))


def inflict(fault: str, service: str, timeout: float) -> str:
    """Do it; return the container it was done to."""
    container = containers(service)[0]
    if fault == "stopped":
        run("docker", "stop", "--time", "5", container)
    elif fault == "paused":
        run("docker", "pause", container)
    elif fault == "missing":
        run("docker", "rm", "--force", container)
    elif fault == "frozen":
        freeze(container)
    elif fault == "mute":
        mute(container)
    elif fault == "starved":
        starve(container, timeout)
    elif fault == "setting_refused":
        refuse_setting(service, timeout)
    elif fault == "setting_back":
        shutil.copy2(KEPT_ENV, ENV)
    elif fault == "projector_lock":
        hold_projector_lock(timeout)
    elif fault == "disk_full":
        fill_disk()
    else:
        FILLER.unlink()
    return container


def main() -> None:
    """Break it."""
    module = AnsibleModule(
        argument_spec={
            "fault": {
                "type": "str",
                "required": True,
                "choices": [
                    "stopped",
                    "paused",
                    "missing",
                    "frozen",
                    "mute",
                    "starved",
                    "setting_refused",
                    "setting_back",
                    "projector_lock",
                    "disk_full",
                    "disk_free",
                ],
            },
            "service": {"type": "str", "default": "app"},
            "timeout": {"type": "int", "default": 60},
        },
        supports_check_mode=False,
    )
    params = module.params
    try:
        container = inflict(params["fault"], params["service"], params["timeout"])
    except (FaultError, OSError) as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=True, container=container)


if __name__ == "__main__":
    main()
