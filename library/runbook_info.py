#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ansible module: look at a host as an operator asks about it."""

from __future__ import annotations

DOCUMENTATION = r"""
module: runbook_info
short_description: Look at a host's lock, breakers, mutes, runs, health, alerts and backups
version_added: 0.1.0
description:
  - Answers what an operator asks about a host, in one call. Looks only.
  - A part that cannot be seen says why under C(problem) and does not hide the others.
options:
  parts:
    description: What to look at.
    type: list
    elements: str
    choices: [lock, breakers, mutes, runs, decisions, containers, health, alerts, backup]
    default: [lock, breakers, mutes, runs]
  run_id:
    description: A run whose events to return.
    type: str
  after:
    description: How many of the run's events are known already and left out.
    type: int
    default: 0
  limit:
    description: The most entries of a list.
    type: int
    default: 10
  state_dir:
    description: Where the target keeps lock, journals and breakers.
    type: path
    default: /var/lib/whats_agent
  project:
    description: The compose project.
    type: str
    default: whats_agent
  url:
    description: The host's own plain listener.
    type: str
    default: http://127.0.0.1:8000
  breaker_threshold:
    description: Failed recoveries in a row after which a breaker counts as open.
    type: int
    default: 3
attributes:
  check_mode:
    description: Looks only.
    support: full
author:
  - whats_agent runbooks (@whats-agent)
"""

EXAMPLES = r"""
- name: See who holds the host and how the last runs ended
  runbook_info:
    parts: [lock, runs]
    limit: 5
  register: seen
"""

RETURN = r"""
seen:
  description: The parts, by name.
  returned: success
  type: dict
now:
  description: The host's own time, to which the times in the parts belong.
  returned: success
  type: str
  sample: "2026-01-31T12:00:00.123Z"
events:
  description: The run's events, in order.
  returned: when O(run_id) is given
  type: list
  elements: dict
"""

from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.whats_agent.clock import SYSTEM_CLOCK
from ansible.module_utils.whats_agent.errors import WhatsAgentError
from ansible.module_utils.whats_agent.host_view import PARTS, HostView

ARGUMENT_SPEC: dict[str, dict[str, Any]] = {
    "parts": {
        "type": "list",
        "elements": "str",
        "choices": list(PARTS),
        "default": ["lock", "breakers", "mutes", "runs"],
    },
    "run_id": {"type": "str"},
    "after": {"type": "int", "default": 0},
    "limit": {"type": "int", "default": 10},
    "state_dir": {"type": "path", "default": "/var/lib/whats_agent"},
    "project": {"type": "str", "default": "whats_agent"},
    "url": {"type": "str", "default": "http://127.0.0.1:8000"},
    "breaker_threshold": {"type": "int", "default": 3},
}


def main() -> None:
    """Parse, look, exit."""
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    params = module.params
    if urlsplit(params["url"]).scheme not in ("http", "https"):
        module.fail_json(msg=f"url must be http or https, not {params['url']}")
    view = HostView(
        Path(params["state_dir"]),
        project=params["project"],
        url=params["url"],
        limit=params["limit"],
        threshold=params["breaker_threshold"],
    )
    found: dict[str, Any] = {}
    try:
        if params["run_id"]:
            found["events"] = view.events(params["run_id"], params["after"])
        found["seen"] = view.look(params["parts"])
    except WhatsAgentError as error:
        module.fail_json(msg=error.message, **error.details)
    module.exit_json(changed=False, now=SYSTEM_CLOCK.rfc3339(), **found)


if __name__ == "__main__":
    main()
