#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Mend the stack's Redis, its memory above all."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: redis_memory
short_description: Mend the stack's Redis, its memory above all
version_added: "0.1.0"
description:
  - Looks, does what one remedy stands for, and says what it did. It reaches Redis over the container's own address with the
    password of C(.env), which is read on the target and never an argument.
  - Nothing here empties the instance. Cache keys go by SCAN and UNLINK; the agent's state stays.
  - Where nothing is to do, nothing changes.
author: "The whats-agent-runbooks authors (@whats-agent-runbooks)"
options:
  remedy:
    description:
      - V(start) unpauses, wakes, starts or creates the container; V(restart) and V(recreate) do that.
      - V(set_aside) moves a dump that cannot be loaded aside in its volume, keeps it, and starts without it.
      - V(apply_password) has Redis and the agent use the password of C(.env).
      - V(configure) sets memory limit and eviction policy to the configured ones, as far as they fit the container's limit.
      - V(restore_limit) does that, too, and undoes a memory limit below the configured one, which V(configure) leaves alone.
      - V(evict_cache) removes the cache keys; V(set_ttl) gives those without a time to live one.
      - V(remove_foreign) removes keys outside the agent's prefixes that have no time to live.
      - V(mend_persistence) gives Redis its folder back and has it write a dump.
    type: str
    choices:
      [
        start, restart, recreate, set_aside, apply_password, configure, restore_limit, evict_cache, set_ttl, remove_foreign,
        mend_persistence
      ]
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
  cache_ttl:
    description: The time to live, in seconds, that V(remedy=set_ttl) gives.
    type: int
    default: 86400
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
- name: Remove the cache keys
  redis_memory:
    remedy: evict_cache
"""

RETURN = r"""
steps:
  description: What was done, or would be, in words.
  returned: always
  type: list
  elements: str
  sample: [remove 1200 cache keys]
"""

from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.whats_agent.compose import ComposeProject
from ansible.module_utils.whats_agent.docker_host import DockerHost
from ansible.module_utils.whats_agent.errors import WhatsAgentError
from ansible.module_utils.whats_agent.lock import heartbeat
from ansible.module_utils.whats_agent.redis_host import RedisPlace
from ansible.module_utils.whats_agent.redis_mend import REMEDIES, Mender

ENGINE_TIMEOUT_S = 90


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "remedy": {"type": "str", "choices": list(REMEDIES), "required": True},
            "stack_dir": {"type": "path", "default": "/opt/whats_agent"},
            "state_dir": {"type": "path", "default": "/var/lib/whats_agent"},
            "project": {"type": "str", "default": "whats_agent"},
            "cache_ttl": {"type": "int", "default": 86400},
            "run_id": {"type": "str"},
        },
        supports_check_mode=True,
    )
    parameters = module.params
    place = RedisPlace(Path(parameters["stack_dir"]), Path(parameters["state_dir"]), parameters["project"])
    docker, compose = DockerHost(timeout=ENGINE_TIMEOUT_S), ComposeProject(place.stack_dir, place.project)
    mend = REMEDIES[parameters["remedy"]]
    try:
        with heartbeat(None if module.check_mode else parameters["run_id"], place.state_dir) as heart:
            mender = Mender(place, docker, compose, heart.check, parameters["cache_ttl"])
            steps = mend(mender, write=not module.check_mode)
    except WhatsAgentError as error:
        module.fail_json(msg=error.message, **error.details)
    except OSError as error:
        module.fail_json(msg=f"cannot read or write {error.filename}: {error.strerror}")
    module.exit_json(changed=bool(steps), steps=steps)


if __name__ == "__main__":
    main()
