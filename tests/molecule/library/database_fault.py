#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Break the stack's database for real."""

from __future__ import annotations

DOCUMENTATION = r"""
module: database_fault
short_description: Break the stack's database for real
version_added: "0.1.0"
author: whats_agent contributors (@whats-agent)
description:
  - Does to the database what happens to databases. Uses the docker command line only.
  - V(container_stopped) stops the container in order, V(container_killed) kills its process, V(container_paused) freezes
    it, V(crash_loop) leaves it too little memory to start, V(volume_lost) removes container and data, V(page_corrupt)
    overwrites half of a table's first page with noise and lets PostgreSQL run on.
options:
  fault:
    description: What to do to it.
    type: str
    required: true
    choices: [container_stopped, container_killed, container_paused, crash_loop, volume_lost, page_corrupt]
  table:
    description: Whose page is overwritten.
    type: str
    default: messages
  timeout:
    description: Seconds until the fault must show.
    type: int
    default: 90
attributes:
  check_mode:
    description: Not supported; it is only used by tests.
    support: none
"""

EXAMPLES = r"""
- name: Lose the data volume
  database_fault:
    fault: volume_lost
"""

RETURN = r"""
volume:
  description: The data volume as it was before.
  returned: success
  type: str
"""

import json  # noqa: E402
import os  # noqa: E402
import subprocess  # noqa: E402
import time  # noqa: E402
from collections.abc import Callable  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

from ansible.module_utils.basic import AnsibleModule  # noqa: E402

PAGE_BYTES = 8192
LABEL = "label=com.docker.compose.service=postgres"
DATA = "/var/lib/postgresql/data"
# Enough for the container itself to be made (about 11 MB), not for PostgreSQL.
TOO_LITTLE_MEMORY = "14m"


class FaultError(Exception):
    """The database could not be broken as wanted."""


def docker(*argv: str) -> str:
    """Run docker; its output, or an error that says what it said."""
    done = subprocess.run(["docker", *argv], check=False, capture_output=True, text=True)
    if done.returncode != 0:
        raise FaultError(f"docker {' '.join(argv)}: {done.stderr.strip()}")
    return done.stdout.strip()


def inspect_postgres() -> dict[str, Any]:
    """The one postgres container as docker describes it."""
    found = docker("ps", "--all", "--quiet", "--filter", LABEL, "--filter", "label=com.docker.compose.oneoff=False")
    if len(found.split()) != 1:
        raise FaultError(f"expected one postgres container, found {found.split()}")
    container: dict[str, Any] = json.loads(docker("inspect", found))[0]
    return container


def wait_until(what: str, holds: Callable[[], bool], timeout: float) -> None:
    """Wait until a condition holds."""
    deadline = time.monotonic() + timeout
    while not holds():
        if time.monotonic() > deadline:
            raise FaultError(f"{what}: not within {timeout:.0f} s")
        time.sleep(0.2)


def starve(container: str, timeout: float) -> None:
    """Take the container's memory away, so that each start of it is killed, and wait until it has died a few times."""
    docker("stop", container)
    docker("update", "--memory", TOO_LITTLE_MEMORY, "--memory-swap", TOO_LITTLE_MEMORY, container)
    # The start itself may already fail for want of memory; that it keeps dying is what is waited for.
    subprocess.run(["docker", "start", container], check=False, capture_output=True)
    wait_until("a crash loop", lambda: int(inspect_postgres()["RestartCount"]) >= 3, timeout)


def overwrite_page(container: str, source: Path, table: str, timeout: float) -> None:
    """Put noise into the first page of a table on disk, in a cleanly stopped cluster, and start it again."""
    psql = ("exec", container, "psql", "-X", "-U", "postgres", "-d", "whats_agent", "-At", "-c")
    docker(*psql, "checkpoint")
    file = source / docker(*psql, f"select pg_relation_filepath('{table}')")
    if file.stat().st_size < PAGE_BYTES:
        raise FaultError(f"{table} has no page yet")
    docker("stop", container)
    with file.open("r+b") as stream:
        stream.seek(PAGE_BYTES // 4)
        stream.write(os.urandom(PAGE_BYTES // 2))
        os.fsync(stream.fileno())
    docker("start", container)
    ready = ["docker", "exec", container, "pg_isready", "--quiet"]
    wait_until("a start", lambda: subprocess.run(ready, check=False, capture_output=True).returncode == 0, timeout)


def inflict(fault: str, container: str, volume: str, source: Path, params: dict[str, Any]) -> None:
    """Do it."""
    if fault == "container_stopped":
        docker("stop", container)
    elif fault == "container_killed":
        docker("kill", "--signal", "KILL", container)
        wait_until("a dead container", lambda: inspect_postgres()["State"]["Status"] == "exited", params["timeout"])
    elif fault == "container_paused":
        docker("pause", container)
    elif fault == "crash_loop":
        starve(container, params["timeout"])
    elif fault == "volume_lost":
        docker("rm", "--force", container)
        docker("volume", "rm", volume)
    elif fault == "page_corrupt":
        overwrite_page(container, source, params["table"], params["timeout"])


def main() -> None:
    """Break it."""
    module = AnsibleModule(
        argument_spec={
            "fault": {
                "type": "str",
                "required": True,
                "choices": [
                    "container_stopped",
                    "container_killed",
                    "container_paused",
                    "crash_loop",
                    "volume_lost",
                    "page_corrupt",
                ],
            },
            "table": {"type": "str", "default": "messages"},
            "timeout": {"type": "int", "default": 90},
        },
        supports_check_mode=False,
    )
    params = module.params
    try:
        found = inspect_postgres()
        mount = next(mount for mount in found["Mounts"] if mount["Destination"] == DATA)
        inflict(params["fault"], found["Id"], mount["Name"], Path(mount["Source"]), params)
    except FaultError as error:
        module.fail_json(msg=f"cannot break the database: {error}")
    module.exit_json(changed=True, volume=mount["Name"])


if __name__ == "__main__":
    main()
