#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Name the images of this working copy by their content, and pack what they are built from."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: image_context
short_description: Name a set of images by what they are built from, and pack it
version_added: "0.1.0"
description:
  - Hashes every file of every build context together with O(salt), and returns the first 12 hex digits as the release.
  - With O(archive) also writes one tar archive of all contexts, reproducible byte by byte, for a server to build from.
  - Runs on the controller (C(delegate_to=localhost)), where the project's working copy is.
author: "The whats-agent-runbooks authors (@whats-agent-runbooks)"
options:
  contexts:
    description:
      - Image names, and for each the folders or files whose content is laid over each other in its context.
      - What tools leave behind (C(__pycache__), hidden files, C(*.egg-info)) and Markdown are left out.
    type: dict
    required: true
  extra:
    description:
      - As O(contexts), packed but not hashed, for what the hashed files already pin (the wheels of a lock file).
    type: dict
    default: {}
  salt:
    description: Further strings that decide about the images, such as the base image's name.
    type: list
    elements: str
    default: []
  archive:
    description: Where to write the archive. Without it nothing is written.
    type: path
attributes:
  check_mode:
    description: In check mode nothing is written.
    support: full
  diff_mode:
    description: There is nothing to compare.
    support: none
"""

EXAMPLES = r"""
- name: Name the release by its content
  image_context:
    contexts:
      app: ["{{ playbook_dir }}/../agent"]
      redis: ["{{ playbook_dir }}/../roles/images/files/redis"]
    salt: ["debian:trixie-slim"]
  delegate_to: localhost
  register: release
"""

RETURN = r"""
release:
  description: The release's name.
  returned: always
  type: str
  sample: 3f9c1a07be42
files:
  description: How many files were hashed.
  returned: always
  type: int
  sample: 41
"""

from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.whats_agent.errors import WhatsAgentError
from ansible.module_utils.whats_agent.image_context import (
    collect,
    collect_all,
    release_of,
    write_archive,
)


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "contexts": {"type": "dict", "required": True},
            "extra": {"type": "dict", "default": {}},
            "salt": {"type": "list", "elements": "str", "default": []},
            "archive": {"type": "path"},
        },
        supports_check_mode=True,
    )
    archive = module.params["archive"]
    try:
        files = collect_all(module.params["contexts"])
        release = release_of(files, module.params["salt"])
        if archive and not module.check_mode:
            for name, folders in module.params["extra"].items():
                for folder in folders:
                    files += collect(f"{name}/{Path(folder).name}", Path(folder))
            write_archive(Path(archive), sorted(files))
    except WhatsAgentError as error:
        module.fail_json(msg=error.message, **error.details)
    module.exit_json(changed=bool(archive), release=release, files=len(files))


if __name__ == "__main__":
    main()
