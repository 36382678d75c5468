#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""List the database's volumes, and remove an old one."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: postgres_volume
short_description: List the database's volumes, and remove an old one
version_added: "0.1.0"
description:
  - Every restore leaves the volume that it replaced. This lists them, with the reason why one must stay.
  - Never removes the volume in use, one that an unfinished restore needs, or any while no backup is proven.
author: "The whats-agent-runbooks authors (@whats-agent-runbooks)"
options:
  state:
    description: V(listed) only looks; V(absent) removes O(name).
    type: str
    choices: [listed, absent]
    default: listed
  name:
    description: The volume to remove.
    type: str
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
attributes:
  check_mode:
    description: In check mode it is only judged whether the volume may go.
    support: full
  diff_mode:
    description: Shows the volumes before and after.
    support: full
"""

EXAMPLES = r"""
- name: List the volumes
  postgres_volume:
  register: volumes

- name: Remove the one of before the restore
  postgres_volume:
    state: absent
    name: whats_agent_pgdata_20261122T100000Z
"""

RETURN = r"""
volumes:
  description: Name, creation, bytes, and why it must stay (null if it may go).
  returned: always
  type: list
  elements: dict
"""

from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.whats_agent import postgres_volumes
from ansible.module_utils.whats_agent.compose import ComposeProject
from ansible.module_utils.whats_agent.docker_host import DockerHost
from ansible.module_utils.whats_agent.errors import WhatsAgentError
from ansible.module_utils.whats_agent.postgres_backrest import Backrest
from ansible.module_utils.whats_agent.postgres_host import DatabasePlace


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": ["listed", "absent"], "default": "listed"},
            "name": {"type": "str"},
            "stack_dir": {"type": "path", "default": "/opt/whats_agent"},
            "state_dir": {"type": "path", "default": "/var/lib/whats_agent"},
            "project": {"type": "str", "default": "whats_agent"},
        },
        required_if=[["state", "absent", ["name"]]],
        supports_check_mode=True,
    )
    parameters = module.params
    place = DatabasePlace(Path(parameters["stack_dir"]), Path(parameters["state_dir"]), parameters["project"])
    backrest = Backrest(place, DockerHost(timeout=600), ComposeProject(place.stack_dir, place.project))
    try:
        before = postgres_volumes.data_volumes(backrest)
        gone = None
        if parameters["state"] == "absent" and any(volume.name == parameters["name"] for volume in before):
            gone = postgres_volumes.find_removable(before, parameters["name"])
            if not module.check_mode:
                postgres_volumes.remove(backrest, gone.name)
    except WhatsAgentError as error:
        module.fail_json(msg=error.message, **error.details)
    after = [volume for volume in before if volume != gone]
    module.exit_json(
        changed=gone is not None,
        volumes=[volume.as_dict() for volume in after],
        diff={
            "before": "".join(f"{volume.name}\n" for volume in before),
            "after": "".join(f"{volume.name}\n" for volume in after),
        },
    )


if __name__ == "__main__":
    main()
