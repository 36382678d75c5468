#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Name what is wrong with the stack's database, with the evidence."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: postgres_info
short_description: Name what is wrong with the stack's database, with the evidence
version_added: "0.1.0"
description:
  - Looks at the container, the volume, the log, the server and the pages on disk in one call, and touches nothing.
  - The cause is one of a closed list. The first that hides or causes the others is the one that is named.
  - Where a restore may be needed, the repository, the old volume and the free space are looked at too, and the refusal is named
    before anything is stopped.
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
  page_budget:
    description:
      - How many seconds the pages on disk may be read for. 0 reads none.
      - Where that is not enough for all, the catalog is read and another part of the rest each time; the healthy evidence says how
        much. Where the server itself has met a bad page within a day, and since its start, all are read.
    type: float
    default: 2
  structure:
    description: Whether to compare tables and indexes by C(pg_amcheck), which reads the whole database.
    type: bool
    default: false
  run_id:
    description: The run whose lease is kept alive meanwhile.
    type: str
  target_time:
    description: A point in time that the operator asks for, with its offset. The cause is then V(wrong_data).
    type: str
  undo:
    description: A restore that the operator asks to undo, by its run, its id, or V(last). The cause is then V(undo_wanted).
    type: str
  remove_volume:
    description:
      - An old volume that the operator asks to remove. The cause is then V(removal_wanted), if the database is healthy or lacks
        nothing but space (C(disk_full)).
      - Beside every other cause it is refused, naming the runbook that comes first.
    type: str
  reserve_mb:
    description: How many megabytes are to stay free beside a restored database.
    type: int
    default: 512
  plan:
    description:
      - Whether to plan the restore that the cause may need. Without it nothing is refused for what the plan would find, and nothing
        said about losses.
      - For looking a second time at a cause whose plan is known; the restore plans anew itself.
    type: bool
    default: true
  repository:
    description: Whether to tell as well how the backup repository stands.
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
  wait:
    description: How many seconds to wait for a database that is only starting.
    type: float
    default: 0
attributes:
  check_mode:
    description: It only looks.
    support: full
  diff_mode:
    description: It changes nothing.
    support: none
"""

EXAMPLES = r"""
- name: Look at the database
  postgres_info:
  register: database

- name: Show the cause
  ansible.builtin.debug:
    msg: "{{ database.diagnosis.summary.en }}"
"""

RETURN = r"""
diagnosis:
  description: The cause, in the shape that the role C(runbook) takes.
  returned: always
  type: dict
  contains:
    component: {description: Always C(database)., type: str}
    cause: {description: One of the closed list., type: str, sample: volume_lost}
    healthy: {description: Whether nothing has to be mended., type: bool}
    evidence: {description: What shows it., type: list, elements: dict}
    summary: {description: The cause in words., type: dict}
    belongs_to: {description: The playbook that mends it if this one does not., type: str}
    refuse: {description: "Why nothing can be done, or null.", type: dict}
    state: {description: What a consent covers., type: dict}
    facts: {description: What the remedies use., type: dict}
    looked_at: {description: When it began to look; seconds of the host's boot clock., type: float}
    loses: {description: "What a restore would cost, or null.", type: dict}
repository:
  description: How the backup repository stands - newest backup and its age, newest proven one, WAL, readiness for a disaster.
  returned: when O(repository=true)
  type: dict
observed:
  description: Everything that was seen.
  returned: always
  type: dict
"""

from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.whats_agent.compose import ComposeProject
from ansible.module_utils.whats_agent.docker_host import DockerHost
from ansible.module_utils.whats_agent.errors import WhatsAgentError
from ansible.module_utils.whats_agent.lock import heartbeat
from ansible.module_utils.whats_agent.postgres_backrest import Backrest
from ansible.module_utils.whats_agent.postgres_backup import standing
from ansible.module_utils.whats_agent.postgres_causes import limits_of
from ansible.module_utils.whats_agent.postgres_diagnosis import Wish, diagnose
from ansible.module_utils.whats_agent.postgres_host import DatabasePlace

ENGINE_TIMEOUT_S = 90
STRUCTURE_TIMEOUT_S = 6 * 3600 + 60  # the engine says nothing until pg_amcheck has something to say


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "stack_dir": {"type": "path", "default": "/opt/whats_agent"},
            "state_dir": {"type": "path", "default": "/var/lib/whats_agent"},
            "project": {"type": "str", "default": "whats_agent"},
            "page_budget": {"type": "float", "default": 2},
            "structure": {"type": "bool", "default": False},
            "run_id": {"type": "str"},
            "target_time": {"type": "str"},
            "undo": {"type": "str"},
            "remove_volume": {"type": "str"},
            "reserve_mb": {"type": "int", "default": 512},
            "plan": {"type": "bool", "default": True},
            "repository": {"type": "bool", "default": False},
            "blocked_after": {"type": "float", "default": 30},
            "slot_limit_mb": {"type": "int", "default": 2048},
            "low_space_mb": {"type": "int", "default": 256},
            "wait": {"type": "float", "default": 0},
        },
        mutually_exclusive=[["target_time", "undo", "remove_volume"]],
        supports_check_mode=True,
    )
    parameters = module.params
    place = DatabasePlace(Path(parameters["stack_dir"]), Path(parameters["state_dir"]), parameters["project"])
    engine_timeout_s = STRUCTURE_TIMEOUT_S if parameters["structure"] else ENGINE_TIMEOUT_S
    backrest = Backrest(place, DockerHost(timeout=engine_timeout_s), ComposeProject(place.stack_dir, place.project))
    wish = Wish(
        target_time=parameters["target_time"] or None,
        undo=parameters["undo"] or None,
        remove_volume=parameters["remove_volume"],
        reserve=parameters["reserve_mb"] * 1024 * 1024,
        page_budget_s=parameters["page_budget"],
        structure=parameters["structure"],
        wait_s=parameters["wait"],
        plan=parameters["plan"],
        limits=limits_of(parameters),
    )
    try:
        # A dry run holds no lease.
        with heartbeat(None if module.check_mode else parameters["run_id"], place.state_dir):
            diagnosis, observed = diagnose(backrest, wish)
        more = {"repository": standing(backrest.info())} if parameters["repository"] else {}
    except WhatsAgentError as error:
        module.fail_json(msg=error.message, **error.details)
    module.exit_json(changed=False, diagnosis=diagnosis, observed=observed.as_dict(), **more)


if __name__ == "__main__":
    main()
