#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Mend what is wrong with a running database, without restoring it."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: postgres_mend
short_description: Mend what is wrong with a running database, without restoring it
version_added: "0.1.0"
description:
  - Looks, does what one remedy stands for, and says what it did. Where nothing is to do, nothing changes.
author: "The whats-agent-runbooks authors (@whats-agent-runbooks)"
options:
  remedy:
    description:
      - V(indexes) rebuilds damaged and invalid indexes, those of O(indexes), and the damaged maps of tables, these by VACUUM; a map
        of free space that it leaves damaged is removed in a server stopped for that. It fails where more is damaged.
      - V(credentials) gives the agent's role the password of C(.env). V(url) has C(.env) lead to the stack's database, and
        V(volume_name) has it name the volume that the container uses. V(outdated) puts the container on the volume of C(.env), and
        aside what was archived meanwhile under the names of that one's own WAL.
      - V(blockers) ends idle sessions that hold a transaction open and block others; V(connections) ends idle sessions.
      - V(processes) lets processes go on that a signal has stopped. V(standby) promotes a standby that follows nobody.
      - V(archiving) gives the repository back to the server's user, puts C(archive.info) or C(backup.info) back, prepares it, and
        proves that WAL reaches it.
      - V(slots) drops inactive replication slots that hold back too much WAL.
        V(receiver) starts the WAL receiver that commits wait for, or frees them.
      - V(collation) rebuilds indexes and accepts the new collation version.
      - V(space) removes scratch volumes, expired backups and what inactive slots hold; it fails where that does not suffice.
    type: str
    choices:
      - indexes
      - credentials
      - url
      - volume_name
      - outdated
      - standby
      - processes
      - blockers
      - connections
      - archiving
      - slots
      - receiver
      - collation
      - space
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
  keep_full:
    description: How many full backups stay.
    type: int
    default: 4
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
  indexes:
    description: Indexes to rebuild whatever their pages say, as C(schema.name), for V(indexes).
    type: list
    elements: str
    default: []
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
- name: Rebuild damaged indexes
  postgres_mend:
    remedy: indexes
"""

RETURN = r"""
steps:
  description: What was done, or would be, in words.
  returned: always
  type: list
  elements: str
  sample: [rebuilt the index public.messages_pkey]
"""

from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.whats_agent.compose import ComposeProject
from ansible.module_utils.whats_agent.docker_host import DockerHost
from ansible.module_utils.whats_agent.errors import WhatsAgentError
from ansible.module_utils.whats_agent.lock import heartbeat
from ansible.module_utils.whats_agent.postgres_backrest import Backrest
from ansible.module_utils.whats_agent.postgres_causes import limits_of
from ansible.module_utils.whats_agent.postgres_host import DatabasePlace
from ansible.module_utils.whats_agent.postgres_mend import REMEDIES
from ansible.module_utils.whats_agent.postgres_mend_sessions import Order

ENGINE_TIMEOUT_S = 3600
CHOICES = list(REMEDIES)


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "remedy": {"type": "str", "choices": CHOICES, "required": True},
            "stack_dir": {"type": "path", "default": "/opt/whats_agent"},
            "state_dir": {"type": "path", "default": "/var/lib/whats_agent"},
            "project": {"type": "str", "default": "whats_agent"},
            "keep_full": {"type": "int", "default": 4},
            "blocked_after": {"type": "float", "default": 30},
            "slot_limit_mb": {"type": "int", "default": 2048},
            "low_space_mb": {"type": "int", "default": 256},
            "indexes": {"type": "list", "elements": "str", "default": []},
            "run_id": {"type": "str"},
        },
        supports_check_mode=True,
    )
    parameters = module.params
    place = DatabasePlace(Path(parameters["stack_dir"]), Path(parameters["state_dir"]), parameters["project"])
    backrest = Backrest(place, DockerHost(timeout=ENGINE_TIMEOUT_S), ComposeProject(place.stack_dir, place.project))
    mend = REMEDIES[parameters["remedy"]]
    order = Order(
        write=not module.check_mode,
        limits=limits_of(parameters),
        keep_full=parameters["keep_full"],
        indexes=tuple(parameters["indexes"]),
    )
    try:
        if module.check_mode:
            steps = mend(backrest, order)
        else:
            with heartbeat(parameters["run_id"], place.state_dir):
                steps = mend(backrest, order)
    except WhatsAgentError as error:
        module.fail_json(msg=error.message, **error.details)
    module.exit_json(changed=bool(steps), steps=steps)


if __name__ == "__main__":
    main()
