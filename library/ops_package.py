#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Install on the server what its timers run."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: ops_package
short_description: Install on the server what its timers run
version_added: "0.1.0"
description:
  - Writes the Python package that the modules share, as it came along with this module, into a folder of the server.
  - Timers run it with the system's Python, so that they take the same lock and write the same journal as a playbook.
author: "The whats-agent-runbooks authors (@whats-agent-runbooks)"
options:
  folder:
    description: The folder that is to hold the package C(whats_agent_ops).
    type: path
    default: /usr/local/lib/whats_agent
attributes:
  check_mode:
    description: In check mode nothing is written.
    support: full
  diff_mode:
    description: Shows the names of the files that differ.
    support: full
"""

EXAMPLES = r"""
- name: Install what the timers run
  ops_package:
"""

RETURN = r"""
files:
  description: The files that differed.
  returned: always
  type: list
  elements: str
"""

from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.whats_agent import backup_timer, ops_package
from ansible.module_utils.whats_agent.errors import WhatsAgentError

# What the timers run; importing it brings along all that it needs.
TIMERS = (backup_timer,)


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={"folder": {"type": "path", "default": "/usr/local/lib/whats_agent"}}, supports_check_mode=True
    )
    try:
        files = ops_package.install(Path(module.params["folder"]), write=not module.check_mode)
    except (WhatsAgentError, OSError) as error:
        module.fail_json(msg=str(error))
    listed = "".join(f"{name}\n" for name in files)
    module.exit_json(changed=bool(files), files=files, diff={"before": "", "after": listed})


if __name__ == "__main__":
    main()
