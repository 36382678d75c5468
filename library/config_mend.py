#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Mend the stack's configuration: one remedy, checked before anything is put in place."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: config_mend
short_description: Mend the stack's configuration
version_added: "0.1.0"
description:
  - Looks again, as C(config_audit) does, and applies one remedy to what is broken then.
  - The whole configuration that would result is checked in scratch before the first file is replaced. Each file is replaced by an
    atomic rename; what it replaces is kept aside, readable by root only.
  - Only services that run with another configuration are recreated, restarted or reloaded; replicas of the agent one at a time.
author: "The whats-agent-runbooks authors (@whats-agent-runbooks)"
options:
  remedy:
    description:
      - V(attributes) gives files and folders their owner and mode.
      - V(render) puts what O(rendered) says in place of broken files, V(restore_copy) what the last good copy says.
      - All three then do V(apply), since what was changed beside them or could not read a file would stay otherwise.
      - V(apply) brings services to the files.
      - V(keep) keeps a copy of the configuration, which has to be sound and in use.
    type: str
    choices: [attributes, render, restore_copy, apply, keep]
    required: true
  deadline:
    description: How many seconds a service may take to become healthy.
    type: int
    default: 90
  run_id:
    description: The run whose lease is kept alive, and under whose name replaced files are kept aside.
    type: str
  stack_dir:
    description: Where the stack lies.
    type: path
    default: /opt/whats_agent
  state_dir:
    description: Where runs keep their state.
    type: path
    default: /var/lib/whats_agent
  copies_dir:
    description: Where the last good copies lie, encrypted.
    type: path
    default: /var/backups/whats_agent/config
  repository:
    description: The backup repository on this server.
    type: path
    default: /var/backups/whats_agent/pgbackrest
  project:
    description: The compose project.
    type: str
    default: whats_agent
  passphrase:
    description: The backups' passphrase, which opens the copies. Without it the one the server made for itself is used, if any.
    type: str
  volume:
    description: The database's volume, as the operator names it where nothing on the server tells.
    type: str
    default: ""
  rendered:
    description:
      - What the controller would write. The content may hold C(@@volume@@), C(@@release@@) and C(@@secret:NAME@@), which stand for
        what only the server knows.
      - Without this it is not said where the content of broken files could come from.
    type: list
    elements: dict
    suboptions:
      path:
        description: Where it would be written; what is outside of O(stack_dir) is left out.
        type: path
        required: true
      content:
        description: The whole content.
        type: str
        required: true
      mode:
        description: Permission bits in octal.
        type: str
      owner:
        description: The owner's number.
        type: int
      group:
        description: The group's number.
        type: int
  lacks:
    description: Why the controller cannot give everything, one sentence each.
    type: list
    elements: str
    default: []
  makes_certificate:
    description: Whether the inventory has the server sign its own certificate, so that a lost one can be made anew.
    type: bool
    default: false
attributes:
  check_mode:
    description: Takes the same decisions and makes the same checks; nothing is put in place and no service is touched.
    support: full
  diff_mode:
    description: Shows which files and services are concerned, never their content.
    support: full
"""

EXAMPLES = r"""
- name: Keep a copy of the configuration that was just verified
  config_mend:
    remedy: keep
"""

RETURN = r"""
placed:
  description: The files that were put in place, or given their attributes.
  returned: success
  type: list
  elements: str
  sample: [.env]
services:
  description: What was done to services, a phrase each.
  returned: success
  type: list
  elements: str
  sample: [nginx reloaded]
aside:
  description: Where what was replaced is kept; null when there was nothing.
  returned: success
  type: str
"""

from typing import Any

from ansible.module_utils.whats_agent import config_mend, config_observe
from ansible.module_utils.whats_agent.config_apply import Applier
from ansible.module_utils.whats_agent.config_observe import ConfigPlace
from ansible.module_utils.whats_agent.config_parameters import ARGUMENTS, place_of, rendering_of
from ansible.module_utils.whats_agent.docker_host import DockerHost
from ansible.module_utils.whats_agent.errors import WhatsAgentError
from ansible.module_utils.whats_agent.lock import heartbeat
from ansible.module_utils.whats_agent.quiet_module import QuietModule as AnsibleModule

ENGINE_TIMEOUT_S = 90


def mend(parameters: dict[str, Any], place: ConfigPlace, *, write: bool) -> dict[str, Any]:
    """Look again and apply the remedy; return what was done."""
    docker = DockerHost(timeout=ENGINE_TIMEOUT_S)
    store = place.store(parameters["passphrase"])
    remedy, run_id = parameters["remedy"], parameters["run_id"] or ""
    if remedy == "keep":
        kept = config_mend.keep_copy(place, docker, store, write=write)
        return {"placed": ["last good copy"] if kept else [], "services": [], "aside": None}
    seen = config_observe.observe(
        place, docker, store, rendered=rendering_of(parameters), named_volume=parameters["volume"]
    )
    if seen.engine_error is not None:
        raise WhatsAgentError(seen.engine_error)
    with heartbeat(run_id if write else None, place.state_dir) as heart:
        placed: list[str] = []
        aside = None
        touched: frozenset[str] = frozenset()
        if remedy in ("render", "restore_copy") and seen.broken:
            new = config_mend.contents(seen, remedy)
            done = config_mend.put_in_place(place, docker, seen, new, run_id=run_id, write=write)
            placed, aside, touched = list(done.names), done.aside, done.touched
        if remedy != "apply":
            mended = config_mend.mend_attributes(place, seen, write=write)
            placed += [name for name in mended if name not in placed]
            touched |= config_mend.readers(mended)
        services = [f"{entry.service} would be brought to the files" for entry in seen.drift]
        if write:
            applier = Applier(place, docker, heart, parameters["deadline"])
            services = applier.apply(touched, restoring=seen.unfinished is not None)
    return {"placed": placed, "services": services, "aside": aside}


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "remedy": {
                "type": "str",
                "choices": ["attributes", "render", "restore_copy", "apply", "keep"],
                "required": True,
            },
            "deadline": {"type": "int", "default": 90},
            "run_id": {"type": "str"},
            **ARGUMENTS,
        },
        supports_check_mode=True,
    )
    try:
        result = mend(module.params, place_of(module.params), write=not module.check_mode)
    except WhatsAgentError as error:
        module.fail_json(msg=error.message, **error.details)
    except OSError as error:
        module.fail_json(msg=f"cannot read or write {error.filename}: {error.strerror}")
    changes = [*result["placed"], *result["services"]]
    after = "".join(f"{change}\n" for change in changes)
    module.exit_json(changed=bool(changes), diff={"before": "", "after": after}, **result)


if __name__ == "__main__":
    main()
