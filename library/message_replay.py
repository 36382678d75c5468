#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ansible module: wait until the message log is replayed into PostgreSQL."""

from __future__ import annotations

DOCUMENTATION = r"""
module: message_replay
short_description: Wait until every acknowledged message is in PostgreSQL, and count them
version_added: 0.1.0
description:
  - Asks the worker, by C(whats-agent replay-status) in its container, how far the message log is projected into PostgreSQL, and
    waits until nothing is left.
  - What was acknowledged before the call is what counts; messages that arrive meanwhile do not prolong the wait.
  - Looks only.
options:
  project:
    description: The compose project.
    type: str
    default: whats_agent
  service:
    description: The service whose container is asked.
    type: str
    default: worker
  timeout:
    description: Seconds to wait. Zero looks once.
    type: float
    default: 60
  state_dir:
    description: Where runs keep their state.
    type: path
    default: /var/lib/whats_agent
  run_id:
    description: The run whose lease is kept alive meanwhile.
    type: str
attributes:
  check_mode:
    description: Looks once and does not wait.
    support: full
author:
  - whats_agent runbooks (@whats-agent)
"""

EXAMPLES = r"""
- name: Wait until no acknowledged message is missing
  message_replay:
    timeout: 120
  register: replay
"""

RETURN = r"""
ok:
  description: Whether all that was acknowledged before the call is projected.
  returned: success
  type: bool
status:
  description: The last answer - log_last_id, projected_id, lag, queued, in_flight.
  returned: when the worker answered
  type: dict
target_id:
  description: The message log's last id at the first answer.
  returned: when the worker answered
  type: int
problem:
  description: Why the worker did not answer, the last time it did not.
  returned: success
  type: str
seconds:
  description: How long it took.
  returned: success
  type: float
"""

from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.whats_agent.docker_host import DockerHost
from ansible.module_utils.whats_agent.errors import WhatsAgentError
from ansible.module_utils.whats_agent.lock import heartbeat
from ansible.module_utils.whats_agent.replay import wait_for_replay

ARGUMENT_SPEC: dict[str, dict[str, Any]] = {
    "project": {"type": "str", "default": "whats_agent"},
    "service": {"type": "str", "default": "worker"},
    "timeout": {"type": "float", "default": 60},
    "state_dir": {"type": "path", "default": "/var/lib/whats_agent"},
    "run_id": {"type": "str"},
}


def main() -> None:
    """Parse, wait, exit."""
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    params = module.params
    timeout = 0 if module.check_mode else params["timeout"]
    try:
        with heartbeat(None if module.check_mode else params["run_id"], Path(params["state_dir"])):
            replay = wait_for_replay(DockerHost(), params["project"], params["service"], timeout=timeout)
    except WhatsAgentError as error:
        module.fail_json(msg=error.message, **error.details)
    module.exit_json(changed=False, **replay.as_dict())


if __name__ == "__main__":
    main()
