#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Name what is wrong with the stack's Redis, with the evidence."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: redis_memory_info
short_description: Name what is wrong with the stack's Redis, with the evidence
version_added: "0.1.0"
description:
  - Looks at the container, its volume and its log, and over the container's own address at memory, policy, keys and dumps, and
    touches nothing. The password is read from C(.env) on the target.
  - Keys are counted by SCAN, for a second and a half at most. Only where memory is nearly full and keys have been evicted, it
    watches for a second how they come and go.
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
  remove_foreign:
    description: Whether the operator asks for keys outside the agent's prefixes to be removed. The cause is then V(foreign_keys).
    type: bool
    default: false
  wait:
    description: How many seconds to wait for a Redis that is only loading its dump.
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
- name: Look at Redis
  redis_memory_info:
  register: redis_seen

- name: Show the cause
  ansible.builtin.debug:
    msg: "{{ redis_seen.diagnosis.summary.en }}"
"""

RETURN = r"""
diagnosis:
  description: The cause, in the shape that the role C(runbook) takes.
  returned: always
  type: dict
  contains:
    component: {description: Always C(redis)., type: str}
    cause: {description: One of the closed list., type: str, sample: memory_full}
    healthy: {description: Whether nothing has to be mended., type: bool}
    evidence: {description: What shows it., type: list, elements: dict}
    summary: {description: The cause in words., type: dict}
    belongs_to: {description: The playbook that mends it if this one does not., type: str}
    refuse: {description: "Why nothing can be done, or null.", type: dict}
    state: {description: What a consent covers., type: dict}
    facts: {description: What the remedies use., type: dict}
    looked_at: {description: When it began to look; seconds of the host's boot clock., type: float}
    loses: {description: "What removing foreign keys would lose, or null.", type: dict}
observed:
  description: Everything that was seen.
  returned: always
  type: dict
"""

from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.whats_agent import redis_causes
from ansible.module_utils.whats_agent.clock import SYSTEM_CLOCK
from ansible.module_utils.whats_agent.docker_host import DockerHost
from ansible.module_utils.whats_agent.errors import WhatsAgentError
from ansible.module_utils.whats_agent.redis_host import RedisPlace
from ansible.module_utils.whats_agent.redis_observe import observe

PAUSE_S = 0.5


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "stack_dir": {"type": "path", "default": "/opt/whats_agent"},
            "state_dir": {"type": "path", "default": "/var/lib/whats_agent"},
            "project": {"type": "str", "default": "whats_agent"},
            "remove_foreign": {"type": "bool", "default": False},
            "wait": {"type": "float", "default": 15},
        },
        supports_check_mode=True,
    )
    parameters = module.params
    place = RedisPlace(Path(parameters["stack_dir"]), Path(parameters["state_dir"]), parameters["project"])
    docker = DockerHost()
    deadline = SYSTEM_CLOCK.boottime() + parameters["wait"]
    try:
        looked_at, seen = SYSTEM_CLOCK.boottime(), observe(place, docker)
        while seen.refused == "loading" and SYSTEM_CLOCK.boottime() < deadline:
            SYSTEM_CLOCK.sleep(PAUSE_S)
            looked_at, seen = SYSTEM_CLOCK.boottime(), observe(place, docker)
    except WhatsAgentError as error:
        module.fail_json(msg=error.message, **error.details)
    finding = redis_causes.find(seen, remove_foreign=parameters["remove_foreign"])
    diagnosis = {**redis_causes.diagnosis(seen, finding), "looked_at": looked_at}
    module.exit_json(changed=False, diagnosis=diagnosis, observed=seen.as_dict())


if __name__ == "__main__":
    main()
