#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Back up the stack's database with pgBackRest, and prove backups."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: postgres_backup
short_description: Back up the stack's database with pgBackRest, and prove backups
version_added: "0.1.0"
description:
  - Takes full, differential and incremental backups of the running database into the configured repositories.
  - A backup that holds damaged pages is a failure here, although pgBackRest calls it a success.
  - Old backups expire only while a proven one stays.
  - With O(prove=true) the backup is restored in scratch, checked, and marked as proven or disproven, from each repository.
author: "The whats-agent-runbooks authors (@whats-agent-runbooks)"
options:
  state:
    description:
      - V(ready) prepares the repository, proves that WAL reaches it, and takes the first full backup. Then it changes nothing.
      - V(taken) takes a backup now.
      - V(proven) takes none and proves one - what the nightly round would prove first.
      - V(rehearsed) restores, in scratch, what a recovery would restore, measures RTO and RPO, and fails past the targets.
      - V(escrowed) asks whether the secrets in O(escrow) open the repository.
    type: str
    choices: [ready, taken, proven, rehearsed, escrowed]
    default: taken
  type:
    description: Which backup to take. One that lacks a full backup to stand on becomes a full one.
    type: str
    choices: [full, diff, incr]
    default: incr
  prove:
    description: Whether to prove the backup after it was taken.
    type: bool
    default: false
  rto_target:
    description: How many seconds a rehearsed recovery may take, from its beginning to a checked database.
    type: float
    default: 300
  rpo_target:
    description: For how many seconds what was written may not be in the repository yet.
    type: float
    default: 120
  escrow:
    description: The content of an escrowed C(secrets.conf). It is put into a file that only the server's user reads, for a moment.
    type: str
  keep_full:
    description: How many full backups retention keeps.
    type: int
    default: 4
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
    description: The run whose lease is kept alive and whose journal takes the progress.
    type: str
attributes:
  check_mode:
    description: In check mode the repository is looked at, and what would be done is returned as C(steps).
    support: full
  diff_mode:
    description: There is nothing to show but the backup's label.
    support: none
"""

EXAMPLES = r"""
- name: Make sure that backups work
  postgres_backup:
    state: ready

- name: Take a full backup and prove it
  postgres_backup:
    type: full
    prove: true
"""

RETURN = r"""
backup:
  description: The backup that was taken.
  returned: always, null where none was
  type: dict
  contains:
    label: {description: Its name in the repository., type: str}
    type: {description: "full, diff or incr.", type: str}
    size: {description: The database's bytes., type: int}
    proven: {description: Whether it was restored in scratch and found right., type: bool}
steps:
  description: What was done, or would be, in words.
  returned: always
  type: list
  elements: str
proof:
  description: The checks and the seconds of the proof, RTO and RPO included; of the first repository's where there were several.
  returned: when a backup was proven
  type: dict
rehearsal:
  description: RTO and RPO as measured, their targets, and what was missed.
  returned: when O(state=rehearsed)
  type: dict
away:
  description: Which repositories could not be reached, and so hold nothing of this, and why; empty where all could be.
  returned: when something was done
  type: str
repository:
  description: How the repository stands afterwards.
  returned: always
  type: dict
"""

from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.whats_agent import (
    backup_status,
    env_file,
    postgres_backup,
    postgres_escrow,
    postgres_proof,
    postgres_proof_round,
)
from ansible.module_utils.whats_agent.archive_place import ArchivePlace
from ansible.module_utils.whats_agent.compose import ComposeProject
from ansible.module_utils.whats_agent.docker_host import DockerHost
from ansible.module_utils.whats_agent.errors import WhatsAgentError
from ansible.module_utils.whats_agent.journal import Progress, journal_for
from ansible.module_utils.whats_agent.lock import Heart, Idle, heartbeat
from ansible.module_utils.whats_agent.pgbackrest import Backup, away, candidates
from ansible.module_utils.whats_agent.postgres_backrest import Backrest
from ansible.module_utils.whats_agent.postgres_choice import choose
from ansible.module_utils.whats_agent.postgres_host import DatabasePlace

ENGINE_TIMEOUT_S = 6 * 3600  # a backup may be silent for long


def predicted(backrest: Backrest, state: str, kind: str) -> dict[str, Any]:
    """Say what would be done."""
    if backrest.docker.container(backrest.place.project, backrest.place.service) is None:
        return {"changed": True, "steps": ["there is no database yet: prepare the repository, take a full backup"]}
    repository = backrest.info()
    if state == "ready":
        filled = {backup.repo for backup in candidates(repository)}
        missing = set(backrest.repositories()) - filled - set(away(repository))
        return {"changed": bool(missing), "steps": ["take the first full backup"] if missing else []}
    steps = {
        "taken": f"take a {kind} backup",
        "proven": "prove a backup",
        "rehearsed": "restore the best backup in scratch and measure",
        "escrowed": "ask whether the escrowed secrets open the repository",
    }
    return {"changed": state in ("taken", "proven", "rehearsed"), "steps": [steps[state]]}


def act(module: AnsibleModule, backrest: Backrest, heart: Heart | Idle) -> dict[str, Any]:
    """Do what is asked for and return the module's result."""
    journal = journal_for(module.params["run_id"], backrest.place.state_dir)

    def progress(step: str) -> Progress:
        return Progress(journal, step)

    keep_full = module.params["keep_full"]
    outcome = postgres_backup.Outcome()
    if module.params["state"] == "ready":
        outcome = postgres_backup.make_ready(backrest, keep_full=keep_full, progress=progress)
    elif module.params["state"] == "taken":
        outcome = postgres_backup.take(backrest, module.params["type"], keep_full=keep_full, progress=progress)
    result: dict[str, Any] = {}
    if module.params["state"] == "escrowed":
        postgres_escrow.check(backrest, module.params["escrow"])
        outcome.steps.append("the escrowed secrets open the repository")
    elif module.params["state"] == "rehearsed":
        result = rehearse(module, backrest, heart, progress)
        outcome.changed = True
    elif module.params["state"] == "proven" or module.params["prove"]:
        targets = outcome.taken or postgres_proof_round.due_now(backrest, keep_full)[:1]
        for target in targets:
            proved = proof(backrest, target, heart, progress)
            result.setdefault("proof", proved)
            outcome.changed = True
            outcome.steps.append(f"proved backup {target.label} of repository {target.repo}")
        if targets:
            postgres_backup.expire(backrest, keep_full, outcome)
        else:
            outcome.steps.append("what a recovery would stand on is proven already")
    for warning in outcome.warnings:
        module.warn(warning)
    return {**result, **outcome.as_dict(), "changed": outcome.changed}


def rehearse(module: AnsibleModule, backrest: Backrest, heart: Heart | Idle, progress: Any) -> dict[str, Any]:
    """Restore in scratch what a recovery would, and measure it against the targets."""
    rpo = postgres_proof.unarchived_seconds(backrest)
    best = choose(backrest.info(), backrest.archived(), ())
    database = env_file.read_env(backrest.place.env_path)["DB_NAME"]
    proved = postgres_proof.prove(backrest, best, heart=heart, progress=progress, dbname=database)
    targets = {"rto_target_s": module.params["rto_target"], "rpo_target_s": module.params["rpo_target"]}
    measured = postgres_proof.rehearsal(proved, rpo, **targets)
    if measured["missed"]:
        raise WhatsAgentError(f"the rehearsal failed: {'; '.join(measured['missed'])}", **measured)
    return {"rehearsal": measured, "proof": proved.as_dict()}


def proof(backrest: Backrest, backup: Backup, heart: Heart | Idle, progress: Any) -> dict[str, Any]:
    """Prove a backup; one that fails is an error."""
    database = env_file.read_env(backrest.place.env_path)["DB_NAME"]
    proved = postgres_proof.prove(backrest, backup, heart=heart, progress=progress, dbname=database)
    if not proved.ok:
        failed = [check for check in proved.checks if not check["ok"]]
        raise WhatsAgentError(f"backup {backup.label} failed its proof: {failed[0]['detail']}", **proved.as_dict())
    return proved.as_dict()


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "state": {
                "type": "str",
                "choices": ["ready", "taken", "proven", "rehearsed", "escrowed"],
                "default": "taken",
            },
            "type": {"type": "str", "choices": ["full", "diff", "incr"], "default": "incr"},
            "prove": {"type": "bool", "default": False},
            "rto_target": {"type": "float", "default": 300},
            "rpo_target": {"type": "float", "default": 120},
            "escrow": {"type": "str", "no_log": True},
            "keep_full": {"type": "int", "default": 4},
            "stack_dir": {"type": "path", "default": "/opt/whats_agent"},
            "state_dir": {"type": "path", "default": "/var/lib/whats_agent"},
            "project": {"type": "str", "default": "whats_agent"},
            "run_id": {"type": "str"},
        },
        required_if=[["state", "escrowed", ["escrow"]]],
        supports_check_mode=True,
    )
    place = DatabasePlace(Path(module.params["stack_dir"]), Path(module.params["state_dir"]), module.params["project"])
    backrest = Backrest(place, DockerHost(timeout=ENGINE_TIMEOUT_S), ComposeProject(place.stack_dir, place.project))
    try:
        if module.check_mode:
            module.exit_json(
                **predicted(backrest, module.params["state"], module.params["type"]), backup=None, repository={}
            )
        with heartbeat(module.params["run_id"], place.state_dir) as heart:
            result = act(module, backrest, heart)
        kinds = {"taken": module.params["type"], "proven": "prove"}
        archive = ArchivePlace(place.stack_dir, place.state_dir, place.project)
        kind = kinds.get(module.params["state"])
        # What is ready already is no news: a timer writes how things stand every few minutes.
        if kind and result["away"]:
            backup_status.write(backrest, archive, failed=(kind, result["away"]))
        elif result["changed"] or module.params["state"] != "ready":
            backup_status.write(backrest, archive, done=kind)
        result["repository"] = postgres_backup.standing(backrest.info())
    except WhatsAgentError as error:
        module.fail_json(msg=error.message, **error.details)
    if result["away"]:
        module.warn(result["away"])
    module.exit_json(**result)


if __name__ == "__main__":
    main()
