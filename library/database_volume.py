#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Choose the volume that a deployment gives to PostgreSQL, and create the very first one."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: database_volume
short_description: Choose the volume for PostgreSQL, and create the very first one
version_added: "0.1.0"
description:
  - Keeps the volume that C(.env) names.
  - Creates one only where neither C(.env), nor a labelled volume, nor a backup shows that there ever was a database.
  - Fails, naming the playbook that helps, where a database may have been lost.
  - A first deployment that was interrupted is known by a note on the server and goes on where it stopped.
author: "The whats-agent-runbooks authors (@whats-agent-runbooks)"
options:
  state:
    description:
      - V(chosen) decides, and creates the first volume.
      - V(served) says that the database in the volume is complete, which removes the note of a first deployment.
    type: str
    choices: [chosen, served]
    default: chosen
  env_file:
    description: The stack's C(.env).
    type: path
    required: true
  repository:
    description: The folder of the local backup repository.
    type: path
    required: true
  note:
    description: The file that marks a first deployment as unfinished.
    type: path
    required: true
attributes:
  check_mode:
    description: In check mode the decision is made and nothing is created.
    support: full
  diff_mode:
    description: Shows the volume's name before and after.
    support: full
"""

EXAMPLES = r"""
- name: Choose the database volume
  database_volume:
    env_file: /opt/whats_agent/.env
    repository: /var/backups/whats_agent/pgbackrest
    note: /var/lib/whats_agent/first_deployment.json
  register: volume

- name: Note that the database is complete
  database_volume:
    state: served
    env_file: /opt/whats_agent/.env
    repository: /var/backups/whats_agent/pgbackrest
    note: /var/lib/whats_agent/first_deployment.json
"""

RETURN = r"""
volume:
  description: The volume's name.
  returned: when O(state=chosen)
  type: str
  sample: whats_agent_pgdata_20261122T100000Z
initialise:
  description: Whether a new database is to be made in it.
  returned: when O(state=chosen)
  type: bool
"""

from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.whats_agent.clock import SYSTEM_CLOCK
from ansible.module_utils.whats_agent.docker_host import DockerHost
from ansible.module_utils.whats_agent.env_file import read_env
from ansible.module_utils.whats_agent.errors import WhatsAgentError
from ansible.module_utils.whats_agent.files import ensure_directory, read_json, write_json
from ansible.module_utils.whats_agent.first_volume import (
    PGDATA_LABEL,
    PGDATA_PREFIX,
    PGDATA_ROLE,
    Decision,
    Seen,
    decide,
)


def has_backups(repository: Path) -> bool:
    """Tell whether a pgBackRest repository holds anything."""
    return any(True for part in ("backup", "archive") for _ in repository.joinpath(part).glob("*/*"))


def choose(host: DockerHost, env_file: Path, repository: Path, note: Path) -> tuple[Decision, str]:
    """Look at the server; return what to do and the volume that was configured before."""
    has_env = env_file.is_file()
    configured = read_env(env_file).get("DB_VOLUME", "") if has_env else ""
    noted = read_json(note)
    seen = Seen(
        has_env=has_env,
        configured=configured,
        noted=str(noted["volume"]) if noted else "",
        volumes=[
            volume.name
            for volume in host.volumes(f"{PGDATA_LABEL}={PGDATA_ROLE}")
            if volume.name.startswith(PGDATA_PREFIX)
        ],
        has_backups=has_backups(repository),
    )
    return decide(seen, f"{PGDATA_PREFIX}{SYSTEM_CLOCK.stamp()}"), configured


def create(host: DockerHost, decision: Decision, note: Path) -> None:
    """Create the first volume. The note comes before it: an interruption leaves no volume of unknown origin."""
    ensure_directory(note.parent)
    write_json(note, {"volume": decision.volume})
    host.create_volume(decision.volume, {PGDATA_LABEL: PGDATA_ROLE})


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": ["chosen", "served"], "default": "chosen"},
            "env_file": {"type": "path", "required": True},
            "repository": {"type": "path", "required": True},
            "note": {"type": "path", "required": True},
        },
        supports_check_mode=True,
    )
    env_file, repository, note = (Path(module.params[name]) for name in ("env_file", "repository", "note"))
    try:
        if module.params["state"] == "served":
            unfinished = note.exists()
            if unfinished and not module.check_mode:
                note.unlink()
            module.exit_json(changed=unfinished)
        host = DockerHost()
        decision, before = choose(host, env_file, repository, note)
        if decision.create and not module.check_mode:
            create(host, decision, note)
    except WhatsAgentError as error:
        module.fail_json(msg=error.message, **error.details)
    except OSError as error:
        module.fail_json(msg=f"cannot read or write {error.filename}: {error.strerror}")
    module.exit_json(
        changed=decision.create,
        volume=decision.volume,
        initialise=decision.initialise,
        diff={"before": {"volume": before}, "after": {"volume": decision.volume}},
    )


if __name__ == "__main__":
    main()
