#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Mark moments in the database, and move what a consent was given for."""

from __future__ import annotations

DOCUMENTATION = r"""
module: restore_fault
short_description: Mark moments in the database, and move what a consent was given for
version_added: "0.1.0"
author: whats_agent contributors (@whats-agent)
description:
  - Takes the steps in order. Uses the docker command line and files only, so that it shares no code with what it tries.
  - V(marker) commits a row outside of the agent's tables; which ones are there tells to what moment a database went back.
  - V(timeline_backed_up) only looks, whether WAL is archived and a backup was taken on the timeline that the database is on.
options:
  steps:
    description:
      - What to do. One of V(marker), V(container_recreated), V(timeline_backed_up).
    type: list
    elements: str
    required: true
  name:
    description: The marker's name.
    type: str
    default: ""
attributes:
  check_mode:
    description: Not supported; it is only used by tests.
    support: none
"""

EXAMPLES = r"""
- name: Commit what is to be undone
  restore_fault:
    steps: [marker]
    name: goes
"""

RETURN = r"""
volume:
  description: The data volume as .env names it.
  returned: success
  type: str
markers:
  description: The markers in the database, oldest first; empty while it cannot be asked.
  returned: success
  type: list
at:
  description: A moment right after the last marker was committed, by the database's clock.
  returned: when a marker was written
  type: str
"""

import json  # noqa: E402
import re  # noqa: E402
import subprocess  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

from ansible.module_utils.basic import AnsibleModule  # noqa: E402

STACK = Path("/opt/whats_agent")
REPOSITORY = Path("/var/backups/whats_agent/pgbackrest")
LABEL = "label=com.docker.compose.service=postgres"
SEGMENT = re.compile(r"([0-9A-F]{24})-[0-9a-f]{40}")
MARKERS = "create schema if not exists fault; create table if not exists fault.marker (name text, at timestamptz)"


class FaultError(Exception):
    """A step could not be taken."""


def run(*argv: str) -> str:
    """Run a command; its output, or an error that says what it said."""
    done = subprocess.run(argv, check=False, capture_output=True, text=True)
    if done.returncode != 0:
        raise FaultError(f"{' '.join(argv)}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout.strip()


def setting(name: str) -> str:
    """A value of `.env`."""
    lines = (STACK / ".env").read_text(encoding="utf-8").splitlines()
    return next(line.partition("=")[2] for line in lines if line.startswith(f"{name}="))


class Faults:
    """The steps, each a method of its name."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.at: str | None = None

    def take(self, steps: list[str]) -> None:
        """Take the steps in order; one that is unknown before any of them."""
        unknown = [step for step in steps if step not in STEPS]
        if unknown:
            raise FaultError(f"there is no step {unknown[0]}, only {', '.join(STEPS)}")
        for step in steps:
            getattr(self, step)()

    # Looking ---------------------------------------------------------------------------------------------------------

    def container(self) -> str:
        """The database's container."""
        found = run(
            "docker", "ps", "--all", "--quiet", "--filter", LABEL, "--filter", "label=com.docker.compose.oneoff=False"
        )
        if len(found.split()) != 1:
            raise FaultError(f"expected one postgres container, found {found.split()}")
        return found

    def psql(self, query: str) -> str:
        """Ask the database as its superuser."""
        return run(
            "docker", "exec", self.container(), "psql", "-X", "-q", "-U", "postgres", "-d", "whats_agent", "-Atc", query
        )

    def archive(self) -> dict[str, Path]:
        """The archived segments, by name."""
        files = (REPOSITORY / "archive" / "main").rglob("*")
        return {match[1]: path for path in sorted(files) if (match := SEGMENT.match(path.name))}

    def newest_backup(self) -> dict[str, Any]:
        """The newest backup as pgBackRest describes it."""
        told = run("docker", "exec", self.container(), "pgbackrest", "--stanza=main", "--output=json", "info")
        backup: dict[str, Any] = json.loads(told)[0]["backup"][-1]
        return backup

    def markers(self) -> list[str]:
        """The markers in the database; none while it cannot be asked."""
        try:
            return self.psql("select name from fault.marker order by at").split()
        except FaultError:
            return []

    # Steps -----------------------------------------------------------------------------------------------------------

    def marker(self) -> None:
        """Commit a row, and tell a moment after it and before whatever comes next."""
        self.psql(f"{MARKERS}; insert into fault.marker values ('{self.name}', clock_timestamp())")  # noqa: S608  our own name
        self.at = self.psql("""select to_char(clock_timestamp() at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')""")

    def container_recreated(self) -> None:
        """Replace the database's container by another on the same volume."""
        compose = ("docker", "compose", "--project-directory", str(STACK))
        run(*compose, "up", "--detach", "--wait", "--force-recreate", "--no-deps", "postgres")

    def timeline_backed_up(self) -> None:
        """Fail unless WAL and a backup of the present timeline are in the repository."""
        timeline = self.psql("select pg_walfile_name(pg_current_wal_lsn())")[:8]
        stop = self.newest_backup()["archive"]["stop"]
        if not stop.startswith(timeline):
            raise FaultError(f"the newest backup ends at {stop}, the database is on timeline {timeline}")
        if not any(name.startswith(timeline) for name in self.archive()):
            raise FaultError(f"no segment of timeline {timeline} is archived")


# Those methods that take nothing and only do something.
STEPS = [name for name, value in vars(Faults).items() if getattr(value, "__annotations__", None) == {"return": "None"}]


def main() -> None:
    """Take the steps."""
    module = AnsibleModule(
        argument_spec={
            "steps": {"type": "list", "elements": "str", "required": True},
            "name": {"type": "str", "default": ""},
        },
        supports_check_mode=False,
    )
    params = module.params
    faults = Faults(params["name"])
    volume = setting("DB_VOLUME")
    try:
        faults.take(params["steps"])
        markers = faults.markers()
    except (FaultError, OSError, ValueError) as error:
        module.fail_json(msg=f"cannot take the steps: {error}")
    module.exit_json(changed=bool(params["steps"]), volume=volume, markers=markers, at=faults.at)


if __name__ == "__main__":
    main()
