#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Archive all of the stack that is not the database, and get it back."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: stack_archive
short_description: Archive all of the stack that is not the database, and get it back
version_added: "0.1.0"
description:
  - Keeps settings, configuration, certificates, secrets, run records, the message log, Redis' file and the releases' images in an
    encrypted restic archive, and in a second one off the host where the inventory names one.
  - A snapshot counts once it gave back, in scratch, the same files byte for byte, and a message log that a fresh agent reads.
author: "The whats-agent-runbooks authors (@whats-agent-runbooks)"
options:
  state:
    description:
      - V(ready) makes the archives that are not there. V(taken) takes a snapshot, proves it and copies it off the host.
      - V(listed) only looks. V(extracted) puts parts of a snapshot under O(target), in place of nothing.
      - V(images_loaded) loads a release's images into Docker. V(checked) checks the archives and reads all their data.
      - V(escrowed) asks whether the password in O(escrow) opens the archives.
    type: str
    choices: [ready, taken, listed, extracted, images_loaded, checked, escrowed]
    default: listed
  store:
    description: Which archive to list, or to extract and load from - this host's, or the one off the host.
    type: str
    choices: [first, second]
    default: first
  repository:
    description: Where this host's archive lies.
    type: path
    default: /var/backups/whats_agent/restic
  prune_log:
    description: Whether, after a proven snapshot, the agent drops from its message log what is old, archived, in the newest proven
      database backup and in PostgreSQL.
    type: bool
    default: true
  snapshot:
    description: What to extract from, an id, or V(latest) for the newest proven one.
    type: str
    default: latest
  target:
    description: Where to extract to. Absent or empty, so that nothing else lies between.
    type: path
  include:
    description: Which paths to extract, as they are on the server, a folder with all that is in it. None means all.
    type: list
    elements: str
    default: []
  release:
    description: Whose images to load.
    type: str
  escrow:
    description: A password that is kept elsewhere. It is put into a file that only root reads, for a moment.
    type: str
  stack_dir:
    description: Where the stack lies.
    type: path
    default: /opt/whats_agent
  state_dir:
    description: Where runs keep their state, and the archives their password.
    type: path
    default: /var/lib/whats_agent
  project:
    description: The compose project.
    type: str
    default: whats_agent
  run_id:
    description: The run whose lease is kept alive and whose journal takes the progress.
    type: str
attributes:
  check_mode:
    description: In check mode the archives are looked at, and nothing is made, taken, extracted or loaded.
    support: full
  diff_mode:
    description: Contents are secret and never shown.
    support: none
"""

EXAMPLES = r"""
- name: Archive the stack
  stack_archive:
    state: taken

- name: Get the settings back, beside the ones in place
  stack_archive:
    state: extracted
    target: /var/lib/whats_agent/scratch/recovered
    include: [/opt/whats_agent/.env, /opt/whats_agent/config]

- name: Load the images on a new server
  stack_archive:
    state: images_loaded
    store: second
    release: "{{ extracted.release }}"
"""

RETURN = r"""
steps:
  description: What was done, or would be, in words.
  returned: always
  type: list
  elements: str
away:
  description: Why the second archive could not be reached and was left for later; empty where it was, or where there is none.
  returned: when O(state=ready) or O(state=taken), in check mode only the former
  type: str
snapshot:
  description: The snapshot that was taken, extracted or loaded from.
  returned: when O(state=taken), O(state=extracted) or O(state=images_loaded), and not in check mode
  type: str
snapshots:
  description: The snapshots of the stack, oldest first, each with C(id), C(time), C(release) and C(proven).
  returned: when O(state=listed)
  type: list
  elements: dict
files:
  description: The files that were extracted, by their paths on the server; each lies below O(target).
  returned: when O(state=extracted) and not in check mode
  type: list
  elements: str
release:
  description: The release that was in use when the snapshot was taken.
  returned: when O(state=extracted) and not in check mode
  type: str
taken_at:
  description: When the snapshot was taken, RFC 3339.
  returned: when O(state=extracted) and not in check mode
  type: str
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.whats_agent import archive_images, archive_prune, backup_status, stack_archive
from ansible.module_utils.whats_agent.archive_place import ArchivePlace, require, run, snapshots
from ansible.module_utils.whats_agent.compose import ComposeProject
from ansible.module_utils.whats_agent.docker_host import DockerHost
from ansible.module_utils.whats_agent.errors import WhatsAgentError
from ansible.module_utils.whats_agent.journal import Progress, journal_for
from ansible.module_utils.whats_agent.lock import Heart, Idle, heartbeat
from ansible.module_utils.whats_agent.postgres_backrest import Backrest
from ansible.module_utils.whats_agent.postgres_host import DatabasePlace

if TYPE_CHECKING:
    from ansible.module_utils.whats_agent.restic import Store

ENGINE_TIMEOUT_S = 6 * 3600
PREDICTED = {
    "taken": "archive the stack",
    "extracted": "extract a snapshot",
    "images_loaded": "load a release's images",
}


def store_of(params: dict[str, Any], place: ArchivePlace) -> Store:
    """Return the archive that is to be read."""
    if params["store"] == "first":
        return place.first()
    second = place.second()
    if second is None:
        raise WhatsAgentError("there is no second archive: the inventory names none (backup_second_repository)")
    return second


def look(params: dict[str, Any], place: ArchivePlace) -> dict[str, Any] | None:
    """Return the result of what changes nothing, None for what does."""
    state = params["state"]
    if state == "listed":
        found = snapshots(store_of(params, place), stack_archive.TAG)
        return {"changed": False, "steps": [], "snapshots": list(stack_archive.describe(found))}
    if state == "checked":
        for store in place.stores():
            require(store)
            run(store.check(), f"the archive {store.repository} is damaged", store=store)
        return {"changed": False, "steps": [f"checked {len(place.stores())} archives and read all of them"]}
    if state == "escrowed":
        stack_archive.check_escrow(place, params["escrow"])
        return {"changed": False, "steps": ["the escrowed password opens the archives"]}
    return None


def told(made: stack_archive.Readiness) -> dict[str, Any]:
    """Return a readiness as the module's result."""
    return {"changed": bool(made.steps), "steps": made.steps, "away": made.away}


def predict(params: dict[str, Any], place: ArchivePlace) -> dict[str, Any]:
    """Say what would be done; what could not be done is an error here too."""
    if params["state"] == "ready":
        return told(stack_archive.ready(place, dry=True))
    if params["state"] == "extracted":
        stack_archive.choose(snapshots(store_of(params, place), stack_archive.TAG), params["snapshot"])
    return {"changed": True, "steps": [PREDICTED[params["state"]]]}


def act(params: dict[str, Any], place: ArchivePlace, heart: Heart | Idle) -> dict[str, Any]:
    """Do what is asked for and return the module's result."""
    state = params["state"]
    if state == "ready":
        return told(stack_archive.ready(place))
    if state == "extracted":
        target = Path(params["target"])
        found = stack_archive.extract(store_of(params, place), params["snapshot"], target, params["include"])
        return {"changed": True, "steps": [f"extracted {len(found['files'])} files"], **found}
    if state == "images_loaded":
        loaded = archive_images.load(store_of(params, place), params["release"], heart)
        return {"changed": True, "steps": [f"loaded the images of {params['release']}"], "snapshot": loaded}
    database = DatabasePlace(place.stack_dir, place.state_dir, place.project)
    compose = ComposeProject(place.stack_dir, place.project)
    backrest = Backrest(database, DockerHost(timeout=ENGINE_TIMEOUT_S), compose)
    reporter = Progress(journal_for(params["run_id"], place.state_dir), "archive", unit="parts")
    done = stack_archive.archive(place, backrest.docker, heart=heart, progress=reporter)
    steps = done.steps
    # What lies on this host only is not archived as it was wanted: the message log keeps it until it is.
    if params["prune_log"] and not done.not_copied:
        steps += archive_prune.prune(place, backrest, done.log.last_id)
    ended: dict[str, Any] = {"failed": ("archive", done.not_copied)} if done.not_copied else {"done": "archive"}
    backup_status.write(backrest, place, **ended)
    return {"changed": True, "snapshot": done.snapshot, "steps": steps, "away": done.not_copied}


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "state": {
                "type": "str",
                "choices": ["ready", "taken", "listed", "extracted", "images_loaded", "checked", "escrowed"],
                "default": "listed",
            },
            "store": {"type": "str", "choices": ["first", "second"], "default": "first"},
            "repository": {"type": "path", "default": "/var/backups/whats_agent/restic"},
            "prune_log": {"type": "bool", "default": True},
            "snapshot": {"type": "str", "default": "latest"},
            "target": {"type": "path"},
            "include": {"type": "list", "elements": "str", "default": []},
            "release": {"type": "str"},
            "escrow": {"type": "str", "no_log": True},
            "stack_dir": {"type": "path", "default": "/opt/whats_agent"},
            "state_dir": {"type": "path", "default": "/var/lib/whats_agent"},
            "project": {"type": "str", "default": "whats_agent"},
            "run_id": {"type": "str"},
        },
        required_if=[
            ["state", "extracted", ["target"]],
            ["state", "images_loaded", ["release"]],
            ["state", "escrowed", ["escrow"]],
        ],
        supports_check_mode=True,
    )
    params = module.params
    place = ArchivePlace(
        Path(params["stack_dir"]), Path(params["state_dir"]), params["project"], repository=params["repository"]
    )
    try:
        result = look(params, place)
        if result is None and module.check_mode:
            result = predict(params, place)
        elif result is None:
            with heartbeat(params["run_id"], place.state_dir) as heart:
                result = act(params, place, heart)
    except WhatsAgentError as error:
        module.fail_json(msg=error.message, **error.details)
    except OSError as error:
        module.fail_json(msg=f"cannot read or write {error.filename}: {error.strerror}")
    if result.get("away"):
        module.warn(result["away"])
    module.exit_json(**result)


if __name__ == "__main__":
    main()
