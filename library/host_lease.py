#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Hold a server's lock, and keep a journal, for a playbook that is no runbook."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: host_lease
short_description: Hold a server's lock, and keep a journal, for a playbook that is no runbook
version_added: "0.1.0"
description:
  - A deployment changes what a runbook may be mending, so both take the same lock and write the same kind of journal.
  - Fails, naming the holder, while another run holds it. A lease left behind is taken over, and the run that left it is closed.
  - A dry run takes no lock; the record of it, marked so, is all that it writes.
author: "The whats-agent-runbooks authors (@whats-agent-runbooks)"
options:
  state:
    description:
      - V(held) takes the lock, or renews it when O(run_id) already holds it.
      - V(released) ends the run with its outcome and gives the lock back; O(error) tells that it failed.
      - V(removed) does so and removes O(state_dir) with all that is in it, for a playbook that leaves nothing behind.
    type: str
    choices: [held, released, removed]
    default: held
  state_dir:
    description: The folder of the lock.
    type: path
    default: /var/lib/whats_agent
  run_id:
    description: The run that holds it, as an earlier call returned it. Required for ending it.
    type: str
  host:
    description: The target's name in the inventory, for the journal.
    type: str
    default: ""
  component:
    description: What the run is about.
    type: str
    default: deployment
  playbook:
    description: What the run is called, for the journal.
    type: str
    default: ""
  error:
    description: What stopped the run that O(state=released) ends; empty when nothing did.
    type: str
    default: ""
  error_pt:
    description: The same in Portuguese, where it is told in that language.
    type: str
    default: ""
  changed:
    description:
      - Whether anything was seen to change under the lock. A run that changed nothing ends as C(already_healthy), another
        one as C(recovered).
    type: bool
    default: true
  env_file:
    description: The stack's C(.env); its secret values are hidden wherever they would be recorded or shown.
    type: path
  holder:
    description: Who runs it. Required for taking the lock.
    type: dict
    suboptions:
      user:
        description: The person's account.
        type: str
        required: true
      controller:
        description: The machine it is run from.
        type: str
        required: true
      entry_point:
        description: What it is run through.
        type: str
        required: true
  time_to_live:
    description:
      - Seconds without a renewal after which the lease counts as left behind. Longer than the longest task under it.
      - A renewal with another value holds from then on.
    type: float
    default: 180
attributes:
  check_mode:
    description: Records a dry run, takes no lock and removes nothing.
    support: full
  diff_mode:
    description: There is nothing to compare.
    support: none
"""

EXAMPLES = r"""
- name: Have the server to ourselves
  host_lease:
    holder: {user: ana, controller: laptop, entry_point: ansible-playbook}
  register: lease

- name: Give the server back
  host_lease:
    state: released
    run_id: "{{ lease.run_id }}"
"""

RETURN = r"""
run_id:
  description: The run that holds the lock.
  returned: always
  type: str
  sample: 20261122T100000Z-1a2b3c4d
taken_over:
  description: The run whose holder died and whose lease this run took over.
  returned: when the lock is taken
  type: str
result:
  description: How the run ended - outcome, reason, seconds, next_step and message.
  returned: when the run ends
  type: dict
"""

from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.whats_agent.errors import WhatsAgentError
from ansible.module_utils.whats_agent.job import Job
from ansible.module_utils.whats_agent.run_base import About, Settings


def perform(params: dict[str, Any], *, dry_run: bool) -> dict[str, Any]:
    """Do what the parameters ask of the run, and return what the module returns."""
    env_file = Path(params["env_file"]) if params["env_file"] else None
    settings = Settings(Path(params["state_dir"]), env_file, time_to_live=params["time_to_live"])
    if params["run_id"]:
        job = Job.resume(settings, params["run_id"])
        if params["state"] == "released":
            return {
                "run_id": job.run_id,
                "result": job.close(params["error"], params["error_pt"], changed=params["changed"]),
            }
        if params["state"] == "removed":
            result, removed = job.leave(changed=params["changed"])
            return {"run_id": job.run_id, "result": result, "changed": removed}
        job.renew(time_to_live=params["time_to_live"])
        return {"run_id": job.run_id}
    job = Job.new(settings, About(params["host"], params["component"], params["playbook"], dry_run=dry_run))
    opened = job.open(params["holder"])
    if opened["result"] is not None:
        raise WhatsAgentError(opened["result"]["message"]["en"], run_id=job.run_id, result=opened["result"])
    return {"run_id": job.run_id, "taken_over": opened["taken_over"]}


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": ["held", "released", "removed"], "default": "held"},
            "state_dir": {"type": "path", "default": "/var/lib/whats_agent"},
            "run_id": {"type": "str"},
            "host": {"type": "str", "default": ""},
            "component": {"type": "str", "default": "deployment"},
            "playbook": {"type": "str", "default": ""},
            "error": {"type": "str", "default": ""},
            "error_pt": {"type": "str", "default": ""},
            "changed": {"type": "bool", "default": True},
            "env_file": {"type": "path"},
            "holder": {
                "type": "dict",
                "options": {name: {"type": "str", "required": True} for name in ("user", "controller", "entry_point")},
            },
            "time_to_live": {"type": "float", "default": 180},
        },
        required_if=[("state", "released", ["run_id"]), ("state", "removed", ["run_id"])],
        required_one_of=[("run_id", "holder")],
        supports_check_mode=True,
    )
    try:
        returned = perform(module.params, dry_run=module.check_mode)
    except WhatsAgentError as error:
        module.fail_json(msg=error.message, **error.details)
    # Neither a lock nor a journal is what a deployment is about: taking it is no change.
    module.exit_json(**{"changed": False, **returned})


if __name__ == "__main__":
    main()
