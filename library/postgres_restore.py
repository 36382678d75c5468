#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Restore the stack's database into a fresh volume and put it into service."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: postgres_restore
short_description: Restore the stack's database into a fresh volume and put it into service
version_added: "0.1.0"
description:
  - Fills a fresh volume from a backup while the writers and the server are being stopped, replays the archive and the WAL that the
    old volume had not archived, and verifies the result as a read-only standby.
  - Then switches C(DB_VOLUME) in C(.env) by one rename, promotes and lets the writers in.
  - With the service back it proves archiving, checks what was put off (of a proven backup, what takes long), rebuilds indexes
    that do not fit their tables, and takes a full backup. What fails of that fails the call and not the service; a rerun goes on
    with it, except where the database is not sound - that closes the restore, without a backup.
  - The old volume is at most read, and stays.
  - A backup that cannot be restored, or is not sound, is marked so and the next one is tried.
  - Killed at any point, it goes on where it stopped when it is called again, with the same wish or with none.
  - Another wish takes the place of an unfinished restore, except from the switch of volumes until archiving is proven.
  - Refuses before anything is stopped where the repository, the passphrase, the space or the wanted time do not fit.
author: "The whats-agent-runbooks authors (@whats-agent-runbooks)"
options:
  state:
    description:
      - V(restored) begins or resumes a restore.
      - V(abandoned) closes one that was begun and is not needed any more, and lets the writers in again.
    type: str
    choices: [restored, abandoned]
    default: restored
  target_time:
    description: The point in time to go back to, with its offset from UTC. Without it every commit comes back that can be found.
    type: str
  undo:
    description:
      - A finished restore to go back behind, by its run, its id, or V(last).
      - The volume that it replaced is copied, brought to its own end on a timeline of its own, and put into service.
    type: str
  plan:
    description:
      - The plan of this restore as C(postgres_info) returned it in C(diagnosis.facts.plan), so that the repository is not looked
        through twice within seconds.
      - One that is older than 30 s, or was made for another volume or time, is made anew.
    type: dict
  backup:
    description: Whether to take the new full backup within this call.
    type: bool
    default: true
  reserve_mb:
    description: How many megabytes are to stay free beside the restored database.
    type: int
    default: 512
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
    description: The run whose lease is kept alive and whose journal takes the steps and the progress.
    type: str
attributes:
  check_mode:
    description: In check mode the restore is planned, or refused, and nothing is touched.
    support: full
  diff_mode:
    description: Shows the volume before and after.
    support: full
"""

EXAMPLES = r"""
- name: Restore everything that was committed
  postgres_restore:
    run_id: "{{ runbook_run_id }}"

- name: Go back to yesterday noon
  postgres_restore:
    target_time: "2026-11-21T12:00:00-03:00"
"""

RETURN = r"""
restore:
  description: The restore's state file.
  returned: when O(state=restored) and not in check mode
  type: dict
  contains:
    backup: {description: The backup that was restored., type: str}
    old_volume: {description: The volume that was in use before and is kept., type: str}
    new_volume: {description: The volume in use now., type: str}
    seconds: {description: The seconds each step took., type: dict}
    checks: {description: What was checked before promotion., type: list}
plan:
  description:
    - What a restore would use, need and cost.
    - Where an unfinished one is finished, which (C(finishes)), from which step on, and what it was begun for.
  returned: when O(state=restored) in check mode
  type: dict
"""

from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.whats_agent import env_file
from ansible.module_utils.whats_agent.compose import ComposeProject
from ansible.module_utils.whats_agent.docker_host import DockerHost
from ansible.module_utils.whats_agent.errors import WhatsAgentError
from ansible.module_utils.whats_agent.journal import Progress, journal_for
from ansible.module_utils.whats_agent.lock import Idle, heartbeat
from ansible.module_utils.whats_agent.postgres_backrest import Backrest
from ansible.module_utils.whats_agent.postgres_host import DatabasePlace
from ansible.module_utils.whats_agent.postgres_restore import Options, Restore

ENGINE_TIMEOUT_S = 6 * 3600


def restore(module: AnsibleModule, backrest: Backrest, options: Options) -> dict[str, Any]:
    """Restore, or in check mode plan it, and return the module's result."""
    place = backrest.place
    journal = journal_for(module.params["run_id"], place.state_dir)

    def progress(step: str) -> Progress:
        return Progress(journal, step)

    def note(step: str, details: dict[str, Any]) -> None:
        if journal is not None:
            journal.write("progress", step=step, **details)

    if module.params["state"] == "abandoned":
        closing = Restore(place, backrest, options=options, heart=Idle(), progress=progress, note=note)
        return {"changed": True if module.check_mode else closing.abandon()}
    volume = env_file.read_env(place.env_path).get("DB_VOLUME", "")
    if module.check_mode:
        planned = Restore(place, backrest, options=options, heart=Idle(), progress=progress, note=note)
        return {"changed": True, "plan": planned.foresee()}
    with heartbeat(module.params["run_id"], place.state_dir) as heart:
        state = Restore(place, backrest, options=options, heart=heart, progress=progress, note=note).run()
    after = {"DB_VOLUME": state["new_volume"]}
    return {"changed": True, "restore": state, "diff": {"before": {"DB_VOLUME": volume}, "after": after}}


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": ["restored", "abandoned"], "default": "restored"},
            "target_time": {"type": "str"},
            "undo": {"type": "str"},
            "plan": {"type": "dict"},
            "backup": {"type": "bool", "default": True},
            "reserve_mb": {"type": "int", "default": 512},
            "stack_dir": {"type": "path", "default": "/opt/whats_agent"},
            "state_dir": {"type": "path", "default": "/var/lib/whats_agent"},
            "project": {"type": "str", "default": "whats_agent"},
            "run_id": {"type": "str"},
        },
        mutually_exclusive=[["target_time", "undo"]],
        supports_check_mode=True,
    )
    parameters = module.params
    place = DatabasePlace(Path(parameters["stack_dir"]), Path(parameters["state_dir"]), parameters["project"])
    backrest = Backrest(place, DockerHost(timeout=ENGINE_TIMEOUT_S), ComposeProject(place.stack_dir, place.project))
    options = Options(
        target_time=parameters["target_time"] or None,
        undo=parameters["undo"] or None,
        plan=parameters["plan"],
        reserve=parameters["reserve_mb"] * 1024 * 1024,
        backup_after=parameters["backup"],
        run_id=parameters["run_id"] or "",
    )
    try:
        result = restore(module, backrest, options)
    except WhatsAgentError as error:
        module.fail_json(msg=error.message, **error.details)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
