#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Make way for a network of fixed addresses, and refuse a subnet that is somebody else's."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: stack_network
short_description: Make way for the stack's network of fixed addresses
version_added: "0.1.0"
description:
  - Refuses a subnet that the server already reaches by another way.
  - Removes the network when it is there with another subnet, so that compose makes it anew. Containers of O(projects) on it are
    stopped in order and removed, since compose does not notice that a container it made has lost a network; others are detached.
author: "The whats-agent-runbooks authors (@whats-agent-runbooks)"
options:
  name:
    description: The network's name.
    type: str
    required: true
  subnet:
    description: The subnet it is to have, as C(address/prefix).
    type: str
    required: true
  ip_range:
    description: The part of it from which containers without a fixed address get theirs.
    type: str
    required: true
  projects:
    description: The compose projects whose containers are made anew by what follows.
    type: list
    elements: str
    default: [whats_agent, whats_agent_doubles]
attributes:
  check_mode:
    description: In check mode the decision is made and nothing is removed.
    support: full
  diff_mode:
    description: Shows the subnet before and after.
    support: full
"""

EXAMPLES = r"""
- name: Make way for the network
  stack_network:
    name: whats_agent_frontend
    subnet: 10.213.64.0/24
    ip_range: 10.213.64.128/25
"""

RETURN = r"""
outdated:
  description: Whether the network is, or in check mode was, there with another subnet.
  returned: always
  type: bool
detached:
  description: The containers that are, or would be, removed or detached.
  returned: always
  type: list
  elements: str
  sample: [whats_agent-nginx-1]
"""

import ipaddress
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.whats_agent.docker_host import DockerHost
from ansible.module_utils.whats_agent.errors import WhatsAgentError
from ansible.module_utils.whats_agent.stack_network import must_go, parse_network, parse_routes

ROUTES = Path("/proc/net/route")
STOP_SECONDS = 40  # as long as compose gives the slowest of them


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "name": {"type": "str", "required": True},
            "subnet": {"type": "str", "required": True},
            "ip_range": {"type": "str", "required": True},
            "projects": {"type": "list", "elements": "str", "default": ["whats_agent", "whats_agent_doubles"]},
        },
        supports_check_mode=True,
    )
    name = module.params["name"]
    try:
        wanted, ip_range = (ipaddress.IPv4Network(module.params[option]) for option in ("subnet", "ip_range"))
        host = DockerHost(timeout=STOP_SECONDS + 20)
        attributes = host.network(name)
        present = parse_network(attributes) if attributes is not None else None
        remove = must_go(wanted, ip_range, present, parse_routes(ROUTES.read_text(encoding="ascii")))
        attached = list(present.attached) if present and remove else []
        projects = module.params["projects"] if attached else []
        ours = {container.name for project in projects for container in host.containers(project)}
        foreign = [container for container in attached if container not in ours]
        if remove and not module.check_mode:
            for container in attached:
                if container in ours:
                    host.stop_container(container, STOP_SECONDS)
                    host.remove_container(container)
            host.remove_network(name, foreign)
    except WhatsAgentError as error:
        module.fail_json(msg=error.message, **error.details)
    except (OSError, ValueError) as error:
        module.fail_json(msg=f"cannot tell whether {module.params['subnet']} is free: {error}")
    if foreign:
        module.warn(f"not ours, to be connected to {name} again: {', '.join(foreign)}")
    module.exit_json(
        changed=remove,
        outdated=remove,
        detached=attached,
        diff={"before": {"subnet": present.subnet if present else ""}, "after": {"subnet": str(wanted)}},
    )


if __name__ == "__main__":
    main()
