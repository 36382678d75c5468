#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Kill a playbook's controller with SIGKILL, or strike otherwise, at a chosen moment of what it does to a server."""

from __future__ import annotations

DOCUMENTATION = r"""
module: interrupted_playbook
short_description: Run a playbook and kill it, or do something else, when the server has reached a given state
version_added: "0.1.0"
author: whats_agent contributors (@whats-agent)
description:
  - Starts the command in a process group of its own, watches the server, and kills the whole group at once.
  - Fails when the command ends before the moment has come, since then nothing was interrupted.
options:
  argv:
    description: The command to interrupt.
    type: list
    elements: str
    required: true
  watch:
    description: A command that prints the server's state; it is run again and again.
    type: list
    elements: str
    required: true
  pattern:
    description: The regular expression that says in what O(watch) prints that the moment has come.
    type: str
    required: true
  instead:
    description: A command to run at that moment in place of killing; the playbook is then left to end by itself.
    type: list
    elements: str
    default: []
  chdir:
    description: Where to run the command.
    type: path
    required: true
  timeout:
    description: Seconds to wait for the moment, and for the end after O(instead).
    type: int
    default: 300
attributes:
  check_mode:
    description: Not supported; it is only used by tests.
    support: none
"""

EXAMPLES = r"""
- name: Kill a recovery while it restores
  interrupted_playbook:
    argv: [ansible-playbook, -i, inventory, playbooks/recover_db.yml]
    watch: [ssh, server, cat, /var/lib/whats_agent/restore.json]
    pattern: '"step": "restored"'
    chdir: /srv/runbooks
"""

RETURN = r"""
output:
  description: What the command had printed when it was killed.
  returned: always
  type: str
ended:
  description: The command's exit code.
  returned: when O(instead) is given
  type: int
"""

import os  # noqa: E402
import re  # noqa: E402
import signal  # noqa: E402
import subprocess  # noqa: E402
import tempfile  # noqa: E402
import time  # noqa: E402

from ansible.module_utils.basic import AnsibleModule  # noqa: E402

POLL_SECONDS = 0.1


def main() -> None:
    """Start, watch, kill."""
    module = AnsibleModule(
        argument_spec={
            "argv": {"type": "list", "elements": "str", "required": True},
            "watch": {"type": "list", "elements": "str", "required": True},
            "pattern": {"type": "str", "required": True},
            "instead": {"type": "list", "elements": "str", "default": []},
            "chdir": {"type": "path", "required": True},
            "timeout": {"type": "int", "default": 300},
        },
        supports_check_mode=False,
    )
    params = module.params
    pattern = re.compile(params["pattern"])
    deadline = time.monotonic() + params["timeout"]
    with tempfile.TemporaryFile("w+") as output:

        def printed() -> str:
            output.seek(0)
            return output.read()

        process = subprocess.Popen(
            params["argv"], cwd=params["chdir"], stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
        while True:
            seen = subprocess.run(params["watch"], check=False, capture_output=True, text=True)
            if process.poll() is not None:
                module.fail_json(msg=f"it ended with {process.returncode} before it could be killed", output=printed())
            if pattern.search(seen.stdout):
                break
            if time.monotonic() > deadline:
                os.killpg(process.pid, signal.SIGKILL)
                module.fail_json(msg=f"the moment never came: {seen.stdout}{seen.stderr}", output=printed())
            time.sleep(POLL_SECONDS)
        if params["instead"]:
            subprocess.run(params["instead"], check=True, capture_output=True)
            try:
                process.wait(params["timeout"])
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                module.fail_json(msg="it did not end by itself", output=printed())
            module.exit_json(changed=True, ended=process.returncode, output=printed())
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        module.exit_json(changed=True, output=printed())


if __name__ == "__main__":
    main()
