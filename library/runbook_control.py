#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ansible module: take a person's decision about lock, breaker or mute."""

from __future__ import annotations

DOCUMENTATION = r"""
module: runbook_control
short_description: Break a lock, close or open a breaker, mute or unmute a component, or note why nothing was done
version_added: 0.1.0
description:
  - Takes a decision that only a person may take, and writes it with its reason into C(control.jsonl) beside the run journals.
options:
  action:
    description:
      - V(break_lock) removes the lease of the run that O(run_id) names.
      - V(close_breaker) forgets a component's failed recoveries, so that runs may act again.
      - V(open_breaker) forbids runs to act on a component.
      - V(mute) holds back alerts and unattended runs of a component for O(seconds). Runs that people start are not held back.
      - V(unmute) ends a mute.
      - V(note) only writes down why something unattended, such as C(oncall watch), acted on a component or did not.
    type: str
    required: true
    choices: [break_lock, close_breaker, open_breaker, mute, unmute, note]
  component:
    description: The component. Required for all but V(break_lock).
    type: str
  run_id:
    description: The run whose lease is broken. Required for V(break_lock).
    type: str
  seconds:
    description: How long a mute lasts, at most seven days. Required for V(mute).
    type: float
  why:
    description: The reason, for those who read it later.
    type: str
    required: true
  by:
    description: Who decides.
    type: dict
    required: true
    suboptions:
      user:
        description: The person's account.
        type: str
        required: true
      controller:
        description: The machine it is decided from.
        type: str
        required: true
      entry_point:
        description: What it is done through.
        type: str
        required: true
  state_dir:
    description: Where the target keeps lock, journals and breakers.
    type: path
    default: /var/lib/whats_agent
  breaker_threshold:
    description: How many failures make a breaker open.
    type: int
    default: 3
attributes:
  check_mode:
    description: Says what would change and writes nothing.
    support: full
author:
  - whats_agent runbooks (@whats-agent)
"""

EXAMPLES = r"""
- name: Let runs act on the database again
  runbook_control:
    action: close_breaker
    component: database
    why: the disk was replaced
    by:
      user: ana
      controller: laptop
      entry_point: oncall
"""

RETURN = r"""
mute:
  description: The mute as it is now.
  returned: when O(action=mute)
  type: dict
"""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.whats_agent.control import Control
from ansible.module_utils.whats_agent.errors import WhatsAgentError

ARGUMENT_SPEC: dict[str, dict[str, Any]] = {
    "action": {
        "type": "str",
        "required": True,
        "choices": ["break_lock", "close_breaker", "open_breaker", "mute", "unmute", "note"],
    },
    "component": {"type": "str"},
    "run_id": {"type": "str"},
    "seconds": {"type": "float"},
    "why": {"type": "str", "required": True},
    "by": {
        "type": "dict",
        "required": True,
        "options": {
            "user": {"type": "str", "required": True},
            "controller": {"type": "str", "required": True},
            "entry_point": {"type": "str", "required": True},
        },
    },
    "state_dir": {"type": "path", "default": "/var/lib/whats_agent"},
    "breaker_threshold": {"type": "int", "default": 3},
}

REQUIRED_IF = [
    ("action", "break_lock", ["run_id"]),
    ("action", "close_breaker", ["component"]),
    ("action", "open_breaker", ["component"]),
    ("action", "mute", ["component", "seconds"]),
    ("action", "unmute", ["component"]),
    ("action", "note", ["component"]),
]


def perform(control: Control, params: dict[str, Any]) -> dict[str, Any]:
    """Take the decision and return what the module returns."""
    action, component, why = params["action"], params["component"], params["why"]
    if action == "break_lock":
        return {"changed": control.break_lock(params["run_id"], why)}
    if action == "close_breaker":
        return {"changed": control.close_breaker(component, why)}
    if action == "open_breaker":
        return {"changed": control.open_breaker(component, why, params["breaker_threshold"])}
    if action == "mute":
        return {"changed": True, "mute": asdict(control.mute(component, params["seconds"], why))}
    if action == "note":
        control.note(component, why)
        return {"changed": False}
    return {"changed": control.unmute(component, why)}


def main() -> None:
    """Parse, decide, exit."""
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, required_if=REQUIRED_IF, supports_check_mode=True)
    params = module.params
    try:
        result = perform(Control(Path(params["state_dir"]), params["by"], dry_run=module.check_mode), params)
    except WhatsAgentError as error:
        module.fail_json(msg=error.message, **error.details)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
