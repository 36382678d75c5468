#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Hold a server's lock for a playbook that is no runbook."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: host_lease
short_description: Hold a server's lock for a playbook that is no runbook
version_added: "0.1.0"
description:
  - A deployment changes what a runbook may be mending, so both take the same lock.
  - Fails, naming the holder, while another run holds it. A lease left behind is taken over.
  - Takes nothing that it would have to wait for in check mode, since a dry run changes nothing.
author: "The whats-agent-runbooks authors (@whats-agent-runbooks)"
options:
  state:
    description:
      - V(held) takes the lock, or renews it when O(run_id) already holds it.
      - V(released) gives it back; a lock that is not ours is left alone.
    type: str
    choices: [held, released]
    default: held
  state_dir:
    description: The folder of the lock.
    type: path
    default: /var/lib/whats_agent
  run_id:
    description: The run that holds it, as an earlier call returned it. Required for V(released).
    type: str
  component:
    description: What the run is about.
    type: str
    default: deployment
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
    description: Seconds without a renewal after which the lease counts as left behind. Longer than the longest task under it.
    type: float
    default: 180
attributes:
  check_mode:
    description: In check mode nothing is taken or given back.
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
"""

from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.whats_agent.errors import WhatsAgentError
from ansible.module_utils.whats_agent.journal import new_run_id
from ansible.module_utils.whats_agent.lock import HostLock


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": ["held", "released"], "default": "held"},
            "state_dir": {"type": "path", "default": "/var/lib/whats_agent"},
            "run_id": {"type": "str"},
            "component": {"type": "str", "default": "deployment"},
            "holder": {
                "type": "dict",
                "options": {name: {"type": "str", "required": True} for name in ("user", "controller", "entry_point")},
            },
            "time_to_live": {"type": "float", "default": 180},
        },
        required_if=[("state", "released", ["run_id"])],
        required_one_of=[("run_id", "holder")],
        supports_check_mode=True,
    )
    params = module.params
    run_id = params["run_id"] or new_run_id()
    lock = HostLock(Path(params["state_dir"]), time_to_live=params["time_to_live"])
    try:
        if not module.check_mode:
            if params["state"] == "released":
                lock.release(run_id)
            elif params["run_id"]:
                lock.renew(run_id)
            else:
                lock.acquire(run_id, params["component"], params["holder"])
    except WhatsAgentError as error:
        module.fail_json(msg=error.message, **error.details)
    # A lock is no state of the server that a deployment is about: taking it is no change.
    module.exit_json(changed=False, run_id=run_id)


if __name__ == "__main__":
    main()
