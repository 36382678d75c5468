# SPDX-License-Identifier: GPL-3.0-or-later
"""The stack's compose project, driven by compose's own command line.

A function builds each command and runs nothing; `ComposeProject` runs them; plain functions read what came back.
"""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import WhatsAgentError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

PROJECT = "whats_agent"
# For what compose only reads and asks no engine for. It takes a tenth of a second, and was seen to take more than 20 s on a host
# that was out of breath, as one is during an incident: a restore that had come as far as its last step failed of it.
READ_S = 120
# What compose reports of a failed `up` is long and ends with the cause.
_STDERR_LINES = 12


@dataclass(frozen=True)
class ServiceConfig:
    """What compose makes of one service: image, bind mounts and volumes, networks. Never its environment (secrets).

    `binds` maps a destination to (host path, read only); `volumes` a destination to the volume's real name.
    """

    image: str
    binds: dict[str, tuple[str, bool]] = field(default_factory=dict)
    volumes: dict[str, str] = field(default_factory=dict)
    networks: tuple[str, ...] = ()


def compose_argv(stack_dir: Path, project: str = PROJECT) -> list[str]:
    """Return the beginning of every compose command of the stack."""
    return [
        "docker",
        "compose",
        "--ansi=never",
        "--progress=quiet",
        f"--project-name={project}",
        f"--project-directory={stack_dir}",
        f"--file={stack_dir / 'compose.yml'}",
    ]


def up_argv(stack_dir: Path, services: Sequence[str], *, project: str = PROJECT, wait_s: int = 60) -> list[str]:
    """Return the command that creates or starts services, waits until they are healthy, and touches no other."""
    return [
        *compose_argv(stack_dir, project),
        "up",
        "--detach",
        "--no-deps",
        "--no-build",
        "--wait",
        f"--wait-timeout={wait_s}",
        *services,
    ]


def start_argv(stack_dir: Path, services: Sequence[str], *, project: str = PROJECT) -> list[str]:
    """Return the command that creates or starts services and waits for nothing."""
    return [*compose_argv(stack_dir, project), "up", "--detach", "--no-deps", "--no-build", *services]


def fill_argv(stack_dir: Path, services: Sequence[str], *, project: str = PROJECT) -> list[str]:
    """Return the command that creates the containers that are missing and touches none that is there."""
    return [*compose_argv(stack_dir, project), "up", "--detach", "--no-deps", "--no-build", "--no-recreate", *services]


def hash_argv(stack_dir: Path, project: str = PROJECT) -> list[str]:
    """Return the command that prints each service's configuration hash, as compose labels its containers with."""
    return [*compose_argv(stack_dir, project), "config", "--hash=*"]


def stop_argv(stack_dir: Path, services: Sequence[str], *, project: str = PROJECT, timeout_s: int = 60) -> list[str]:
    """Return the command that stops services and gives them time to end in order."""
    return [*compose_argv(stack_dir, project), "stop", f"--timeout={timeout_s}", *services]


def config_argv(stack_dir: Path, project: str = PROJECT) -> list[str]:
    """Return the command that renders the project as JSON."""
    return [*compose_argv(stack_dir, project), "config", "--format=json"]


def parse_service(config: Mapping[str, Any], service: str) -> ServiceConfig:
    """Read one service out of `compose config --format json`."""
    try:
        found = config["services"][service]
    except KeyError as error:
        raise WhatsAgentError(f"the compose file has no service {service}", service=service) from error
    names = {key: value.get("name", key) for key, value in (config.get("volumes") or {}).items()}
    binds: dict[str, tuple[str, bool]] = {}
    volumes: dict[str, str] = {}
    for mount in found.get("volumes") or []:
        if mount["type"] == "bind":
            binds[mount["target"]] = (mount["source"], bool(mount.get("read_only", False)))
        elif mount["type"] == "volume":
            volumes[mount["target"]] = names.get(mount.get("source", ""), mount.get("source", ""))
    return ServiceConfig(
        image=found.get("image", ""), binds=binds, volumes=volumes, networks=tuple(found.get("networks") or ())
    )


def parse_replicas(config: Mapping[str, Any]) -> dict[str, int]:
    """Read out of `compose config --format json` how many containers each service is to have."""
    return {
        name: int(service.get("scale") or (service.get("deploy") or {}).get("replicas") or 1)
        for name, service in config["services"].items()
        if not service.get("profiles")
    }


class ComposeProject:
    """The compose project that lies in one directory."""

    def __init__(self, stack_dir: Path, project: str = PROJECT) -> None:
        """Name the directory with `compose.yml` and `.env`; nothing is run yet."""
        self.stack_dir = stack_dir
        self.project = project

    def _run(self, argv: Sequence[str], what: str, timeout: float, environment: Mapping[str, str] | None = None) -> str:
        """Run compose and return its standard output; a failure says what was attempted and shows its last lines."""
        try:
            done = subprocess.run(
                list(argv),
                capture_output=True,
                text=True,
                errors="replace",
                timeout=timeout,
                check=False,
                env={**os.environ, **(environment or {})},
            )
        except FileNotFoundError as error:
            raise WhatsAgentError("docker is not installed on this host: run playbooks/deploy.yml") from error
        except subprocess.TimeoutExpired as error:
            raise WhatsAgentError(f"{what}: no end within {timeout:g} s", cmd=list(argv)) from error
        if done.returncode != 0:
            lines = done.stderr.strip().splitlines()[-_STDERR_LINES:]
            raise WhatsAgentError(
                f"{what}: {lines[-1] if lines else 'no message'}",
                cmd=list(argv),
                rc=done.returncode,
                stderr="\n".join(lines),
            )
        return done.stdout

    def service(self, name: str) -> ServiceConfig:
        """Return what compose makes of a service with the `.env` that is in place."""
        output = self._run(config_argv(self.stack_dir, self.project), "cannot read the compose project", timeout=READ_S)
        return parse_service(json.loads(output), name)

    def replicas(self) -> dict[str, int]:
        """Return how many containers each service is to have; those of a profile are left out."""
        output = self._run(config_argv(self.stack_dir, self.project), "cannot read the compose project", timeout=READ_S)
        return parse_replicas(json.loads(output))

    def hashes(self) -> dict[str, str]:
        """Return each service's configuration hash with the `.env` that is in place."""
        output = self._run(hash_argv(self.stack_dir, self.project), "cannot read the compose project", timeout=READ_S)
        pairs = (line.split() for line in output.splitlines())
        return {pair[0]: pair[1] for pair in pairs if len(pair) == 2}

    def fill(self, *services: str) -> None:
        """Create the containers that are missing, with the configuration of now, and leave those that are there alone."""
        self._run(
            fill_argv(self.stack_dir, services, project=self.project),
            f"cannot create {', '.join(services)}",
            timeout=120,
        )

    def services(self) -> list[str]:
        """Return the names of the project's services."""
        argv = [*compose_argv(self.stack_dir, self.project), "config", "--services"]
        return self._run(argv, "cannot read the compose project", timeout=READ_S).split()

    def up(self, *services: str, wait_s: int = 60, environment: Mapping[str, str] | None = None) -> None:
        """Create or start services and wait until they are healthy. `environment` outweighs `.env`."""
        self._run(
            up_argv(self.stack_dir, services, project=self.project, wait_s=wait_s),
            f"cannot start {', '.join(services)}",
            timeout=wait_s + 60,
            environment=environment,
        )

    def start(self, *services: str, environment: Mapping[str, str] | None = None) -> None:
        """Create or start services without waiting for their health. `environment` outweighs `.env`."""
        self._run(
            start_argv(self.stack_dir, services, project=self.project),
            f"cannot start {', '.join(services)}",
            timeout=120,
            environment=environment,
        )

    def stop(self, *services: str, timeout_s: int = 60) -> None:
        """Stop services, leaving their containers."""
        self._run(
            stop_argv(self.stack_dir, services, project=self.project, timeout_s=timeout_s),
            f"cannot stop {', '.join(services)}",
            timeout=timeout_s + 60,
        )
