#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Name what is wrong with the agent's containers, with the evidence."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: app_info
short_description: Name what is wrong with the agent's containers, with the evidence
version_added: "0.1.0"
description:
  - Looks at the containers of nginx, app and worker, asks each replica, reads the agent's own view of the parts and how far the
    worker has projected, all at once, and touches nothing.
  - The cause is one of a closed list. The first that hides or causes the others is the one that is named.
author: "The whats-agent-runbooks authors (@whats-agent-runbooks)"
options:
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
  wait:
    description: How many seconds to wait for containers that are only starting.
    type: float
    default: 15
attributes:
  check_mode:
    description: It only looks.
    support: full
  diff_mode:
    description: It changes nothing.
    support: none
"""

EXAMPLES = r"""
- name: Look at the agent
  app_info:
  register: agent

- name: Show the cause
  ansible.builtin.debug:
    msg: "{{ agent.diagnosis.summary.en }}"
"""

RETURN = r"""
diagnosis:
  description: The cause, in the shape that the role C(runbook) takes.
  returned: always
  type: dict
  contains:
    component: {description: Always C(app)., type: str}
    cause: {description: One of the closed list., type: str, sample: hung}
    healthy: {description: Whether nothing has to be mended., type: bool}
    evidence: {description: What shows it., type: list, elements: dict}
    summary: {description: The cause in words., type: dict}
    belongs_to: {description: The playbook that mends it if this one does not., type: str}
    refuse: {description: "Why nothing can be done, or null.", type: dict}
    state: {description: What a consent covers., type: dict}
    facts: {description: Which containers are ill., type: dict}
    looked_at: {description: When it began to look; seconds of the host's boot clock., type: float}
    loses: {description: Always null., type: dict}
observed:
  description: Everything that was seen.
  returned: always
  type: dict
"""

from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.whats_agent import app_causes
from ansible.module_utils.whats_agent.app_observe import Looker
from ansible.module_utils.whats_agent.clock import SYSTEM_CLOCK
from ansible.module_utils.whats_agent.compose import ComposeProject
from ansible.module_utils.whats_agent.docker_host import DockerHost
from ansible.module_utils.whats_agent.errors import WhatsAgentError
from ansible.module_utils.whats_agent.postgres_host import DatabasePlace

PAUSE_S = 0.5


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "stack_dir": {"type": "path", "default": "/opt/whats_agent"},
            "state_dir": {"type": "path", "default": "/var/lib/whats_agent"},
            "project": {"type": "str", "default": "whats_agent"},
            "wait": {"type": "float", "default": 15},
        },
        supports_check_mode=True,
    )
    parameters = module.params
    place = DatabasePlace(Path(parameters["stack_dir"]), Path(parameters["state_dir"]), parameters["project"])
    looker = Looker(place, DockerHost(), ComposeProject(place.stack_dir, place.project))
    deadline = SYSTEM_CLOCK.boottime() + parameters["wait"]
    try:
        looked_at, seen = SYSTEM_CLOCK.boottime(), looker.look()
        while app_causes.starting(seen) and SYSTEM_CLOCK.boottime() < deadline:
            SYSTEM_CLOCK.sleep(PAUSE_S)
            looked_at, seen = SYSTEM_CLOCK.boottime(), looker.look()
    except WhatsAgentError as error:
        module.fail_json(msg=error.message, **error.details)
    diagnosis = {**app_causes.diagnosis(seen, app_causes.find(seen)), "looked_at": looked_at}
    module.exit_json(changed=False, diagnosis=diagnosis, observed=seen.as_dict())


if __name__ == "__main__":
    main()
