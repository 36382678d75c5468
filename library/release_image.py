#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Build an image of a release, or load all of them from an archive, telling how far it is."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: release_image
short_description: Build an image of a release, or load all of them from an archive, telling how far it is
version_added: "0.1.0"
description:
  - Writes its progress to the journal of the run it belongs to - steps of a build, bytes of an archive - and keeps that run's
    lease alive meanwhile.
  - An image that is there already is not built anew. Nothing is pulled.
author: "The whats-agent-runbooks authors (@whats-agent-runbooks)"
options:
  state:
    description: V(built) builds O(name) from O(path); V(loaded) loads what O(archive) holds.
    type: str
    choices: [built, loaded]
    required: true
  name:
    description: The image with its tag. Required for V(built).
    type: str
  path:
    description: The folder that is built from. Required for V(built).
    type: path
  build_args:
    description: Values of the Dockerfile's C(ARG).
    type: dict
    default: {}
  labels:
    description: The image's labels.
    type: dict
    default: {}
  archive:
    description: What C(docker save) wrote. Required for V(loaded).
    type: path
  timeout:
    description: Seconds that the engine may be silent.
    type: int
    default: 900
  run_id:
    description: The run whose journal the progress is written to and whose lease is kept alive. Without one neither happens.
    type: str
  state_dir:
    description: Where the target keeps lock and journals.
    type: path
    default: /var/lib/whats_agent
attributes:
  check_mode:
    description: Says whether an image would be built. That an archive would be loaded is always predicted.
    support: full
  diff_mode:
    description: There is nothing to compare.
    support: none
"""

EXAMPLES = r"""
- name: Build the image of nginx
  release_image:
    state: built
    name: whats_agent/nginx:0350b385dc46
    path: /var/cache/whats_agent/build/0350b385dc46/nginx
    build_args: {BASE_IMAGE: "whats_agent/base:trixie"}

- name: Load the images of a release
  release_image:
    state: loaded
    archive: /var/cache/whats_agent/images/0350b385dc46.tar
"""

RETURN = r"""
images:
  description: What was built or loaded; in check mode, what would be built.
  returned: always
  type: list
  elements: str
  sample: [whats_agent/nginx:0350b385dc46]
"""

from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.whats_agent import release_image
from ansible.module_utils.whats_agent.docker_host import DockerHost
from ansible.module_utils.whats_agent.errors import WhatsAgentError
from ansible.module_utils.whats_agent.journal import Progress, journal_for
from ansible.module_utils.whats_agent.lock import heartbeat


def perform(docker: DockerHost, params: dict[str, Any]) -> list[str]:
    """Build or load, and return the images."""
    state_dir = Path(params["state_dir"])
    journal = journal_for(params["run_id"], state_dir)
    with heartbeat(params["run_id"], state_dir) as heart:
        if params["state"] == "built":
            options = {
                "path": params["path"],
                "buildargs": {name: str(value) for name, value in params["build_args"].items()},
                "labels": {name: str(value) for name, value in params["labels"].items()},
            }
            progress = Progress(journal, f"build {params['name']}", unit="steps")
            release_image.build(docker, params["name"], options, progress, heart)
            return [params["name"]]
        return release_image.load(
            docker,
            Path(params["archive"]),
            Progress(journal, "send the images to the engine"),
            Progress(journal, "load the images"),
            heart,
        )


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": ["built", "loaded"], "required": True},
            "name": {"type": "str"},
            "path": {"type": "path"},
            "build_args": {"type": "dict", "default": {}},
            "labels": {"type": "dict", "default": {}},
            "archive": {"type": "path"},
            "timeout": {"type": "int", "default": 900},
            "run_id": {"type": "str"},
            "state_dir": {"type": "path", "default": "/var/lib/whats_agent"},
        },
        required_if=[("state", "built", ["name", "path"]), ("state", "loaded", ["archive"])],
        supports_check_mode=True,
    )
    params = module.params
    docker = DockerHost(timeout=params["timeout"])
    try:
        needed = params["state"] == "loaded" or not release_image.is_there(docker, params["name"])
        images = [params["name"]] if needed and params["name"] else []
        if needed and not module.check_mode:
            images = perform(docker, params)
    except WhatsAgentError as error:
        module.fail_json(msg=error.message, **error.details)
    except OSError as error:
        module.fail_json(msg=f"cannot read {error.filename}: {error.strerror}")
    module.exit_json(changed=needed, images=images)


if __name__ == "__main__":
    main()
