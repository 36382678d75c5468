# SPDX-License-Identifier: GPL-3.0-or-later
"""Containers of one test session under one random prefix: started, broken, looked into, removed."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import cast

import docker
import docker.errors
from docker.models.containers import Container
from docker.models.networks import Network
from docker.models.volumes import Volume
from docker.types import Mount

from tests.integration.agent.waiting import eventually

LABEL = "whats_agent.test_session"


@dataclass(frozen=True)
class Spec:
    """What a container is made of; ``volumes``, ``binds`` and ``read_only_paths`` map a volume or a host's path to a place.

    ``tmpfs`` maps a place to mount options: over a folder of the image a tmpfs belongs to root unless they say whose it is.
    """

    name: str
    image: str
    command: Sequence[str] | None = None
    environment: dict[str, str] = field(default_factory=dict)
    volumes: dict[str, str] = field(default_factory=dict)
    read_only_paths: dict[str, str] = field(default_factory=dict)
    binds: dict[str, str] = field(default_factory=dict)
    read_only: bool = True
    tmpfs: dict[str, str] = field(default_factory=dict)
    shm_size: str | None = None
    entrypoint: Sequence[str] | None = None


class Service:
    """One container that may be killed and started again."""

    def __init__(self, container: Container, name: str) -> None:
        self.container = container
        self.name = name
        self.disturbed = False
        """Whether a test did something to it since the stack was last made whole."""

    def start(self) -> None:
        self.disturbed = True
        self.container.start()

    def stop(self) -> None:
        """As an orderly shutdown does it."""
        self.disturbed = True
        self.container.stop(timeout=10)

    def kill(self) -> None:
        """``kill -9`` of everything in the container."""
        self.disturbed = True
        if self.is_running():
            self.container.kill("SIGKILL")
            self.container.wait()

    def pause(self) -> None:
        self.disturbed = True
        self.container.pause()

    def unpause(self) -> None:
        self.container.unpause()

    def state(self) -> str:
        self.container.reload()
        return str(self.container.status)

    def is_running(self) -> bool:
        return self.state() == "running"

    def address(self) -> str:
        """The address on the session's network; changes with a restart."""
        self.container.reload()
        networks: dict[str, dict[str, str]] = self.container.attrs["NetworkSettings"]["Networks"]
        (network,) = networks.values()
        return network["IPAddress"]

    def run(self, command: Sequence[str], user: str = "") -> str:
        """Standard output of a command run inside; fails the test when it fails."""
        result = self.container.exec_run(list(command), user=user, demux=True)
        out, err = ((part or b"").decode(errors="replace") for part in cast("tuple[bytes, bytes]", result.output))
        assert result.exit_code == 0, f"{command} in {self.name}: exit {result.exit_code}: {out} {err}"
        return out

    def process_ids(self) -> dict[int, str]:
        """Host process id → command line of everything in the container."""
        table = self.container.top(ps_args="-eo pid,args")
        return {int(row[0]): row[1] for row in table["Processes"] or []}

    def logs(self, lines: int = 80) -> str:
        return self.container.logs(tail=lines).decode(errors="replace")


class Session:
    """Everything one pytest session puts on the engine; ``remove`` takes all of it away and nothing else."""

    def __init__(self, client: docker.DockerClient) -> None:
        self.client = client
        self.prefix = f"whats-agent-test-{secrets.token_hex(4)}"
        self._labels = {LABEL: self.prefix}
        self.services: dict[str, Service] = {}
        self._volumes: list[Volume] = []
        self.network: Network = client.networks.create(self.prefix, driver="bridge", labels=self._labels)

    def volume(self, name: str, options: dict[str, str] | None = None) -> str:
        """Make a volume and return its full name; ``options`` as ``docker volume create --opt``."""
        full = f"{self.prefix}-{name}"
        made = self.client.volumes.create(full, driver="local", driver_opts=options or {}, labels=self._labels)
        self._volumes.append(made)
        return full

    def _mounts(self, spec: Spec) -> list[Mount]:
        volumes = [Mount(target=target, source=source, type="volume") for source, target in spec.volumes.items()]
        binds = [
            Mount(target=target, source=source, type="bind", read_only=read_only)
            for paths, read_only in ((spec.binds, False), (spec.read_only_paths, True))
            for source, target in paths.items()
        ]
        return volumes + binds

    def _create(self, spec: Spec, full_name: str) -> Container:
        endpoint = self.client.api.create_endpoint_config(aliases=[spec.name])
        return self.client.containers.create(
            spec.image,
            command=list(spec.command) if spec.command is not None else None,
            entrypoint=list(spec.entrypoint) if spec.entrypoint is not None else None,
            name=full_name,
            hostname=spec.name,
            environment=spec.environment,
            mounts=self._mounts(spec),
            read_only=spec.read_only,
            tmpfs={"/tmp": "mode=1777", **spec.tmpfs},  # noqa: S108 - inside the container
            shm_size=spec.shm_size,
            cap_drop=["ALL"],
            init=True,
            labels=self._labels,
            network=self.network.name,
            networking_config={str(self.network.name): endpoint},
        )

    def service(self, spec: Spec) -> Service:
        """Create (and not yet start) a long-running container, reachable inside as ``spec.name``."""
        service = Service(self._create(spec, f"{self.prefix}-{spec.name}"), spec.name)
        self.services[spec.name] = service
        return service

    def discard(self, service: Service) -> None:
        """Remove one service for good."""
        service.container.remove(force=True, v=True)
        del self.services[service.name]

    def run_once(self, spec: Spec) -> str:
        """Run a container to its end and return what it printed; fails the test when it exits other than 0."""
        container = self._create(spec, f"{self.prefix}-{spec.name}-{secrets.token_hex(3)}")
        try:
            container.start()
            code = container.wait(timeout=180)["StatusCode"]
            output = container.logs().decode(errors="replace")
            assert code == 0, f"{spec.name} {spec.command}: exit {code}:\n{output}"
            return str(output)
        finally:
            container.remove(force=True, v=True)

    def report(self) -> str:
        """State and last lines of every container, for a failed test."""
        parts = [f"===== {name} ({service.state()})\n{service.logs()}" for name, service in self.services.items()]
        return "\n".join(parts)

    def remove(self) -> None:
        for service in self.services.values():
            service.container.remove(force=True, v=True)
        for volume in self._volumes:
            volume.remove(force=True)
        eventually(self._network_is_empty, "containers to leave the network", limit=20)
        self.network.remove()

    def _network_is_empty(self) -> bool:
        self.network.reload()
        return not self.network.containers
