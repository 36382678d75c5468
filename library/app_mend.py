#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Mend the agent's containers, one at a time."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: app_mend
short_description: Mend the agent's containers, one at a time
version_added: "0.1.0"
description:
  - Looks, does what one remedy stands for with each container that is ill, and says what it did. The next container is touched
    once this one is well, so that a replica that answers goes on answering.
  - Where nothing is to do, nothing changes.
author: "The whats-agent-runbooks authors (@whats-agent-runbooks)"
options:
  remedy:
    description:
      - V(start) unpauses, starts or creates what stands still, and lets processes go on that a signal stopped.
      - V(restart) stops each in order and starts it again; what does not answer is not waited for.
      - V(recreate) replaces each by a new container with the settings of C(.env).
      - V(release) ends the sessions that keep the worker from projecting.
    type: str
    choices: [start, restart, recreate, release]
    required: true
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
  deadline:
    description: How many seconds a container may take until it is well.
    type: float
    default: 45
  run_id:
    description: The run whose lease is kept alive meanwhile.
    type: str
attributes:
  check_mode:
    description: In check mode what would be done is returned as C(steps).
    support: full
  diff_mode:
    description: The steps say what changes.
    support: none
"""

EXAMPLES = r"""
- name: Restart what does not answer
  app_mend:
    remedy: restart
"""

RETURN = r"""
steps:
  description: What was done, or would be, in words.
  returned: always
  type: list
  elements: str
  sample: [restart whats_agent-app-1]
"""

from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.whats_agent.app_mend import REMEDIES, Mender, steps_of
from ansible.module_utils.whats_agent.app_observe import Looker
from ansible.module_utils.whats_agent.compose import ComposeProject
from ansible.module_utils.whats_agent.docker_host import DockerHost
from ansible.module_utils.whats_agent.env_file import read_env
from ansible.module_utils.whats_agent.errors import WhatsAgentError
from ansible.module_utils.whats_agent.lock import heartbeat
from ansible.module_utils.whats_agent.postgres_host import DatabasePlace

ENGINE_TIMEOUT_S = 90


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "remedy": {"type": "str", "choices": list(REMEDIES), "required": True},
            "stack_dir": {"type": "path", "default": "/opt/whats_agent"},
            "state_dir": {"type": "path", "default": "/var/lib/whats_agent"},
            "project": {"type": "str", "default": "whats_agent"},
            "deadline": {"type": "float", "default": 45},
            "run_id": {"type": "str"},
        },
        supports_check_mode=True,
    )
    parameters = module.params
    place = DatabasePlace(Path(parameters["stack_dir"]), Path(parameters["state_dir"]), parameters["project"])
    looker = Looker(place, DockerHost(timeout=ENGINE_TIMEOUT_S), ComposeProject(place.stack_dir, place.project))
    try:
        steps = steps_of(looker.look(), parameters["remedy"])
        if not module.check_mode:
            with heartbeat(parameters["run_id"], place.state_dir) as heart:
                mender = Mender(looker, heart.check, deadline_s=parameters["deadline"])
                mender.apply(steps, read_env(place.env_path)["DB_NAME"])
    except WhatsAgentError as error:
        module.fail_json(msg=error.message, **error.details)
    module.exit_json(changed=bool(steps), steps=[step.describe() for step in steps])


if __name__ == "__main__":
    main()
