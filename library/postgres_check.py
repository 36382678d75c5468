#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Verify that the stack's database serves and is sound."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: postgres_check
short_description: Verify that the stack's database serves and is sound
version_added: "0.1.0"
description:
  - Logs in as the agent does, counts the rows of its tables over that plain connection, and checks every page on disk.
  - Checks that the container runs on the volume that C(.env) names, that it takes writes, and that WAL reaches the repository.
author: "The whats-agent-runbooks authors (@whats-agent-runbooks)"
options:
  wait:
    description: How many seconds to wait until the agent's login works.
    type: float
    default: 30
  archiving:
    description: Whether to switch a WAL segment and wait for it in the repository.
    type: bool
    default: true
  structure:
    description: Whether to check heaps against indexes with pg_amcheck, which reads everything.
    type: bool
    default: false
  blocked_after:
    description: How many seconds a session may be idle in a transaction while others wait for it.
    type: float
    default: 30
  slot_limit_mb:
    description: How many megabytes of WAL an inactive replication slot may hold back.
    type: int
    default: 2048
  low_space_mb:
    description: How many megabytes must be free under the database.
    type: int
    default: 256
  stack_dir:
    description: Where the stack lies.
    type: path
    default: /opt/whats_agent
  state_dir:
    description: Where runs keep their state.
    type: path
    default: /var/lib/whats_agent
  project:
    description: The compose project.
    type: str
    default: whats_agent
  run_id:
    description: The run whose lease is kept alive meanwhile.
    type: str
attributes:
  check_mode:
    description: In check mode no WAL segment is switched; all else only looks anyway.
    support: full
  diff_mode:
    description: It changes nothing.
    support: none
"""

EXAMPLES = r"""
- name: Verify the database from outside
  postgres_check:
    structure: true
  register: checked
"""

RETURN = r"""
verification:
  description: C(ok), the C(checks) with name, verdict and detail, and the C(rows) of each table.
  returned: always
  type: dict
"""

from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.whats_agent import postgres_verify
from ansible.module_utils.whats_agent.compose import ComposeProject
from ansible.module_utils.whats_agent.docker_host import DockerHost
from ansible.module_utils.whats_agent.errors import WhatsAgentError
from ansible.module_utils.whats_agent.lock import heartbeat
from ansible.module_utils.whats_agent.postgres_backrest import Backrest
from ansible.module_utils.whats_agent.postgres_causes import limits_of
from ansible.module_utils.whats_agent.postgres_host import DatabasePlace
from ansible.module_utils.whats_agent.postgres_integrity import Check

ENGINE_TIMEOUT_S = 3600


def look(place: DatabasePlace, parameters: dict[str, Any], *, archiving: bool) -> dict[str, Any]:
    """Look at the database; one that cannot be asked has failed its first check."""
    backrest = Backrest(place, DockerHost(timeout=ENGINE_TIMEOUT_S), ComposeProject(place.stack_dir, place.project))
    try:
        checks, rows = postgres_verify.verify(
            backrest,
            wait_s=parameters["wait"],
            archiving=archiving,
            structure=parameters["structure"],
            limits=limits_of(parameters),
        )
    except WhatsAgentError as error:
        checks, rows = [Check("serving", False, error.message)], {}
    return postgres_verify.as_result(checks, rows)


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "wait": {"type": "float", "default": 30},
            "archiving": {"type": "bool", "default": True},
            "structure": {"type": "bool", "default": False},
            "blocked_after": {"type": "float", "default": 30},
            "slot_limit_mb": {"type": "int", "default": 2048},
            "low_space_mb": {"type": "int", "default": 256},
            "stack_dir": {"type": "path", "default": "/opt/whats_agent"},
            "state_dir": {"type": "path", "default": "/var/lib/whats_agent"},
            "project": {"type": "str", "default": "whats_agent"},
            "run_id": {"type": "str"},
        },
        supports_check_mode=True,
    )
    parameters = module.params
    place = DatabasePlace(Path(parameters["stack_dir"]), Path(parameters["state_dir"]), parameters["project"])
    try:
        with heartbeat(None if module.check_mode else parameters["run_id"], place.state_dir):
            verification = look(place, parameters, archiving=parameters["archiving"] and not module.check_mode)
    except WhatsAgentError as error:
        # A lease that is lost says nothing about the database: it ends the run, and is no check of the verification.
        module.fail_json(msg=error.message, **error.details)
    module.exit_json(changed=False, verification=verification)


if __name__ == "__main__":
    main()
