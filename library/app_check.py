#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Check that every container of the agent is there and well by its own check."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: app_check
short_description: Check that every container of the agent is there and well by its own check
version_added: "0.1.0"
description:
  - Counts the containers of each service against the compose file and runs each one's own check inside it, until all are well or
    the time is up. What is not well is reported and not an error of the module.
author: "The whats-agent-runbooks authors (@whats-agent-runbooks)"
options:
  wait:
    description: Seconds until all must be well.
    type: float
    default: 30
  stack_dir:
    description: Where the stack lies.
    type: path
    default: /opt/whats_agent
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
    description: It only looks.
    support: full
  diff_mode:
    description: It changes nothing.
    support: none
"""

EXAMPLES = r"""
- name: Check the agent's containers
  app_check:
    wait: 60
  register: agent
"""

RETURN = r"""
ok:
  description: Whether all are well.
  returned: always
  type: bool
checks:
  description: Name, verdict and detail of each container, and of each service's number of them.
  returned: always
  type: list
  elements: dict
  sample: [{"name": "whats_agent-app-1", "ok": true, "detail": "well"}]
"""

from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.whats_agent.app_check import wait_for_checks
from ansible.module_utils.whats_agent.compose import ComposeProject
from ansible.module_utils.whats_agent.docker_host import DockerHost
from ansible.module_utils.whats_agent.errors import WhatsAgentError
from ansible.module_utils.whats_agent.lock import heartbeat


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "wait": {"type": "float", "default": 30},
            "stack_dir": {"type": "path", "default": "/opt/whats_agent"},
            "project": {"type": "str", "default": "whats_agent"},
            "state_dir": {"type": "path", "default": "/var/lib/whats_agent"},
            "run_id": {"type": "str"},
        },
        supports_check_mode=True,
    )
    parameters = module.params
    try:
        wanted = ComposeProject(Path(parameters["stack_dir"]), parameters["project"]).replicas()
        with heartbeat(None if module.check_mode else parameters["run_id"], Path(parameters["state_dir"])):
            checks = wait_for_checks(DockerHost(), parameters["project"], wanted, parameters["wait"])
    except WhatsAgentError as error:
        module.fail_json(msg=error.message, **error.details)
    module.exit_json(changed=False, ok=all(check["ok"] for check in checks), checks=checks)


if __name__ == "__main__":
    main()
