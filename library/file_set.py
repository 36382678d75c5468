#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Write or remove a set of folders and files in one call."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: file_set
short_description: Write or remove a set of folders and files in one call
version_added: "0.1.0"
description:
  - Does for a whole configuration what one task per file would do, in the time of one task.
  - Each file is replaced by an atomic rename that is on the disk when the module returns. Links are refused.
author: "The whats-agent-runbooks authors (@whats-agent-runbooks)"
options:
  folders:
    description: Folders that are to exist, made in this order.
    type: list
    elements: dict
    default: []
    suboptions:
      path:
        description: Where it is.
        type: path
        required: true
      mode:
        description: Permission bits in octal.
        type: str
        required: true
      owner:
        description: The owner's number.
        type: int
        default: 0
      group:
        description: The group's number.
        type: int
        default: 0
  files:
    description: Files that are to hold exactly this content.
    type: list
    elements: dict
    default: []
    suboptions:
      path:
        description: Where it is.
        type: path
        required: true
      content:
        description: The whole content.
        type: str
        required: true
      mode:
        description: Permission bits in octal.
        type: str
        required: true
      owner:
        description: The owner's number.
        type: int
        default: 0
      group:
        description: The group's number.
        type: int
        default: 0
  secret_files:
    description: As O(files), but the content is never logged nor shown.
    type: list
    elements: dict
    default: []
    suboptions:
      path:
        description: Where it is.
        type: path
        required: true
      content:
        description: The whole content.
        type: str
        required: true
      mode:
        description: Permission bits in octal.
        type: str
        required: true
      owner:
        description: The owner's number.
        type: int
        default: 0
      group:
        description: The group's number.
        type: int
        default: 0
  absent:
    description: Files and folders that are not to be there, whatever is in them. Removed before the rest.
    type: list
    elements: path
    default: []
attributes:
  check_mode:
    description: In check mode nothing is written.
    support: full
  diff_mode:
    description: Shows each difference, but never the content of a file in O(secret_files).
    support: full
"""

EXAMPLES = r"""
- name: Write the configuration of Redis
  file_set:
    folders:
      - {path: /opt/whats_agent/config/redis, mode: "0755"}
    files:
      - path: /opt/whats_agent/config/redis/redis.conf
        content: "{{ lookup('ansible.builtin.template', 'redis/redis.conf.j2') }}"
        mode: "0644"
"""

RETURN = r"""
changed_paths:
  description: What was created, corrected or removed.
  returned: always
  type: list
  elements: str
  sample: [/opt/whats_agent/config/redis/redis.conf]
"""

from pathlib import Path
from typing import Any

from ansible.module_utils.whats_agent.errors import WhatsAgentError
from ansible.module_utils.whats_agent.file_set import File, Folder, settle
from ansible.module_utils.whats_agent.quiet_module import QuietModule as AnsibleModule

COMMON: dict[str, dict[str, Any]] = {
    "path": {"type": "path", "required": True},
    "mode": {"type": "str", "required": True},
    "owner": {"type": "int", "default": 0},
    "group": {"type": "int", "default": 0},
}


def octal(text: str, path: str) -> int:
    """Return permission bits from their octal text."""
    try:
        return int(text, 8)
    except ValueError as error:
        raise WhatsAgentError(f"the mode {text!r} of {path} is not octal", path=path) from error


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "absent": {"type": "list", "elements": "path", "default": []},
            "folders": {"type": "list", "elements": "dict", "default": [], "options": COMMON},
            "files": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {**COMMON, "content": {"type": "str", "required": True}},
            },
            "secret_files": {
                "type": "list",
                "elements": "dict",
                "default": [],
                # The list itself is no secret, its contents are.
                "no_log": False,
                "options": {**COMMON, "content": {"type": "str", "required": True, "no_log": True}},
            },
        },
        supports_check_mode=True,
    )
    try:
        folders = [
            Folder(Path(item["path"]), octal(item["mode"], item["path"]), item["owner"], item["group"])
            for item in module.params["folders"]
        ]
        files = [
            File(
                Path(item["path"]),
                item["content"],
                octal(item["mode"], item["path"]),
                item["owner"],
                item["group"],
                secret=option == "secret_files",
            )
            for option in ("files", "secret_files")
            for item in module.params[option]
        ]
        absent = [Path(path) for path in module.params["absent"]]
        changes = settle(absent, folders, files, write=not module.check_mode)
    except WhatsAgentError as error:
        module.fail_json(msg=error.message, **error.details)
    module.exit_json(
        changed=bool(changes),
        changed_paths=[change.path for change in changes],
        diff=[
            {
                "before_header": f"{change.path} ({change.what})",
                "after_header": f"{change.path} ({change.what})",
                "before": change.before,
                "after": change.after,
            }
            for change in changes
        ],
    )


if __name__ == "__main__":
    main()
