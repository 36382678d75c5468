#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Check that Redis serves, by its own command line and as the agent sees it."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: redis_check
short_description: Check that Redis serves, by its own command line and as the agent sees it
version_added: "0.1.0"
description:
  - Writes a key that may vanish and reads it back by the command line in the container, holds the memory used against its limit,
    and asks the agent's health through nginx, until all is well or the time is up. Where memory is nearly full and keys have been
    evicted, it watches for a second whether they go as fast as they come.
  - What is not well is reported and not an error of the module.
author: "The whats-agent-runbooks authors (@whats-agent-runbooks)"
options:
  wait:
    description: Seconds until all must be well.
    type: float
    default: 30
  port:
    description: Port of the host's own plain listener.
    type: int
    default: 8000
  room:
    description:
      - Whether room was made in the memory. Then it is watched in any case, and has to last; all must be well twice in a row.
    type: bool
    default: false
  project:
    description: The compose project.
    type: str
    default: whats_agent
  state_dir:
    description: Where runs keep their state.
    type: path
    default: /var/lib/whats_agent
  run_id:
    description: The run whose lease is kept alive meanwhile.
    type: str
attributes:
  check_mode:
    description: Writes nothing; RV(ok) is then null.
    support: full
  diff_mode:
    description: It changes nothing.
    support: none
"""

EXAMPLES = r"""
- name: Check Redis
  redis_check:
    wait: 60
  register: redis_checked
"""

RETURN = r"""
ok:
  description: Whether all is well; null in check mode.
  returned: always
  type: bool
checks:
  description: Name, verdict and detail of each check.
  returned: always
  type: list
  elements: dict
  sample: [{"name": "agent", "ok": true, "detail": "up"}]
"""

from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.whats_agent.docker_host import DockerHost
from ansible.module_utils.whats_agent.errors import WhatsAgentError
from ansible.module_utils.whats_agent.lock import heartbeat
from ansible.module_utils.whats_agent.redis_check import wait_for_checks


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "wait": {"type": "float", "default": 30},
            "port": {"type": "int", "default": 8000},
            "room": {"type": "bool", "default": False},
            "project": {"type": "str", "default": "whats_agent"},
            "state_dir": {"type": "path", "default": "/var/lib/whats_agent"},
            "run_id": {"type": "str"},
        },
        supports_check_mode=True,
    )
    parameters = module.params
    if module.check_mode:
        module.exit_json(changed=False, ok=None, checks=[])
    try:
        with heartbeat(parameters["run_id"], Path(parameters["state_dir"])):
            checks = wait_for_checks(
                DockerHost(), parameters["project"], parameters["port"], parameters["wait"], room=parameters["room"]
            )
    except WhatsAgentError as error:
        module.fail_json(msg=error.message, **error.details)
    module.exit_json(changed=False, ok=all(check["ok"] for check in checks), checks=checks)


if __name__ == "__main__":
    main()
