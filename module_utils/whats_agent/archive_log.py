# SPDX-License-Identifier: GPL-3.0-or-later
"""The message log in the archive: exported and imported by the agent itself, and counted on both sides."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from .archive_place import ArchivePlace, run
from .compose import compose_argv
from .errors import WhatsAgentError

if TYPE_CHECKING:
    from pathlib import Path

    from .docker_host import DockerHost
    from .lock import Heart, Idle

EXPORT_NAME = "message_log.jsonl"
LOG_DIR = "/var/lib/whats_agent/message_log"
SCRATCH_LABEL = "whats_agent.scratch_archive"
_APP = (64010, 64000)  # the agent's uid and gid
_TIMEOUT_S = 3600.0


@dataclass(frozen=True)
class Export:
    """What an export holds. `digest` is the SHA-256 over its records, without header and footer."""

    identity: str
    last_id: int
    records: int
    digest: str

    def as_dict(self) -> dict[str, Any]:
        """Return JSON-able data."""
        return asdict(self)


def read_export(path: Path) -> Export:
    """Read an export's header and footer and sum its records up; one that was cut short is an error."""
    digest = hashlib.sha256()
    header = last = b""
    count = 0
    with path.open("rb") as stream:
        header = stream.readline()
        for line in stream:
            if last:
                digest.update(last)
                count += 1
            last = line
    try:
        head, foot = json.loads(header), json.loads(last)
        if foot["records"] != count:
            raise WhatsAgentError(f"the message log's export says {foot['records']} records and holds {count}")
        return Export(str(head["identity"]), int(head["last_id"]), count, digest.hexdigest())
    except (ValueError, KeyError, TypeError) as error:
        raise WhatsAgentError("the message log's export is cut short") from error


def export(place: ArchivePlace, docker: DockerHost, target: Path) -> Export:
    """Have the agent export its message log into a file: in the running app, else in a container made for it."""
    container = docker.container(place.project, "app")
    if container is not None and container.running:
        argv = ["docker", "exec", container.id, "whats-agent", "log-export"]
    else:
        argv = [*compose_argv(place.stack_dir, place.project), "run", "--rm", "--no-deps", "-T", "app", "log-export"]
    with target.open("wb") as stream:
        os.fchmod(stream.fileno(), 0o600)
        run(argv, "cannot export the message log", stdout=stream)
        stream.flush()
        os.fsync(stream.fileno())
    return read_export(target)


def prove(docker: DockerHost, image: str, source: Path, scratch: Path, heart: Heart | Idle) -> Export:
    """Import an export into a fresh log in scratch, export that one, and return what this second export holds.

    Nothing of the service is touched: a container without a network, an empty folder as its message log.
    """
    scratch.mkdir(mode=0o700)
    log_dir, back = scratch / "log", scratch / "back"
    for folder in (log_dir, back):
        folder.mkdir(mode=0o700)
        os.chown(folder, *_APP)
    os.chown(source, *_APP)
    result = docker.run_once(
        image,
        ["-c", f"whats-agent log-import < /export && whats-agent log-export > /back/{EXPORT_NAME}"],
        entrypoint=["sh"],
        user="{}:{}".format(*_APP),
        volumes={
            str(source): {"bind": "/export", "mode": "ro"},
            str(log_dir): {"bind": LOG_DIR, "mode": "rw"},
            str(back): {"bind": "/back", "mode": "rw"},
        },
        labels={SCRATCH_LABEL: "1"},
        timeout=_TIMEOUT_S,
        on_tick=lambda _container: heart.check(),
        options={
            "read_only": True,
            "cap_drop": ["ALL"],
            "security_opt": ["no-new-privileges"],
            "tmpfs": {"/tmp": "mode=1777"},  # noqa: S108 - in the container
            "mem_limit": "512m",
        },
    )
    if result.exit_code != 0:
        lines = (result.stderr.strip() or "no message").splitlines()
        raise WhatsAgentError(f"the archived message log cannot be imported: {lines[-1]}", rc=result.exit_code)
    return read_export(back / EXPORT_NAME)


def sweep(docker: DockerHost) -> None:
    """Remove the containers that a killed proof left."""
    for container in docker.labelled(SCRATCH_LABEL):
        docker.remove_container(container)


def prune(place: ArchivePlace, docker: DockerHost, up_to: int) -> int:
    """Have the agent remove what is old, in a proven backup, and in PostgreSQL; return how many records it removed."""
    container = docker.require_running(place.project, "worker")
    answer = docker.execute(container.id, ["whats-agent", "log-prune", f"--up-to={up_to}"], timeout=_TIMEOUT_S)
    if answer.exit_code != 0:
        last = (answer.stderr.strip().splitlines() or ["no message"])[-1]
        raise WhatsAgentError(f"the message log cannot be pruned: {last}", rc=answer.exit_code)
    try:
        return int(json.loads(answer.stdout)["removed"])
    except (ValueError, KeyError, TypeError) as error:
        raise WhatsAgentError(
            "the agent's answer to log-prune has another shape", stdout=answer.stdout[:400]
        ) from error
