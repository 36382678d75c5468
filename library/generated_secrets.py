#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Make secrets on a server, once, and return them."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: generated_secrets
short_description: Make secrets on a server, once, and return them
version_added: "0.1.0"
description:
  - Each secret is 43 random characters of C([A-Za-z0-9_-]) in a file of its own, mode 0600. Existing ones are kept.
  - Meant for inventories that have no secrets to fill in. Use C(no_log=true) on the task, since it returns them.
author: "The whats-agent-runbooks authors (@whats-agent-runbooks)"
options:
  folder:
    description: Where the files lie.
    type: path
    required: true
  names:
    description: The secrets' names, which are also the files' names.
    type: list
    elements: str
    required: true
attributes:
  check_mode:
    description: In check mode missing secrets are made up and not kept.
    support: full
  diff_mode:
    description: Secrets are never shown.
    support: none
"""

EXAMPLES = r"""
- name: Make the secrets that are missing
  generated_secrets:
    folder: /var/lib/whats_agent/secrets
    names: [db_password, redis_password]
  no_log: true
  register: made
"""

RETURN = r"""
secrets:
  description: The secrets by name.
  returned: always
  type: dict
created:
  description: The names of those that were made just now.
  returned: always
  type: list
  elements: str
  sample: [db_password]
"""

from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.whats_agent.errors import WhatsAgentError
from ansible.module_utils.whats_agent.secret_store import make_secrets


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "folder": {"type": "path", "required": True},
            # The names say nothing secret, whatever a heuristic makes of them.
            "names": {"type": "list", "elements": "str", "required": True, "no_log": False},
        },
        supports_check_mode=True,
    )
    try:
        secrets, created = make_secrets(
            Path(module.params["folder"]), module.params["names"], write=not module.check_mode
        )
    except WhatsAgentError as error:
        module.fail_json(msg=error.message, **error.details)
    module.exit_json(changed=bool(created), secrets=secrets, created=created)


if __name__ == "__main__":
    main()
