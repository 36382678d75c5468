# SPDX-License-Identifier: GPL-3.0-or-later
"""Thin, typed helpers over the Docker SDK (Debian's python3-docker), for modules and timers alike.

Containers of a stack are found by compose's labels, never by a guessed name. Every error is a `WhatsAgentError`.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from .clock import SYSTEM_CLOCK, Clock
from .errors import WhatsAgentError

if TYPE_CHECKING:
    from docker import DockerClient

PROJECT_LABEL = "com.docker.compose.project"
SERVICE_LABEL = "com.docker.compose.service"
ONE_OFF_LABEL = "com.docker.compose.oneoff"
ENGINE_SOCKET = "unix:///var/run/docker.sock"
EXIT_TIMED_OUT = 124  # what coreutils' timeout answers
EXIT_KILLED = 137  # … and what it answers when the command had to be killed


@dataclass(frozen=True)
class ContainerState:
    """What `docker inspect` says about one container, reduced to what diagnosis needs.

    `status` is one of created, running, paused, restarting, removing, exited, dead; `health` one of starting, healthy,
    unhealthy or None without a health check; `addresses` maps network to IP; `mounts` maps destination to volume name
    or path; `memory_limit` is bytes, 0 without a limit.
    """

    id: str
    name: str
    project: str
    service: str
    image: str
    image_id: str
    status: str
    exit_code: int
    oom_killed: bool
    restart_count: int
    health: str | None
    error: str
    started_at: str
    finished_at: str
    labels: dict[str, str] = field(default_factory=dict)
    addresses: dict[str, str] = field(default_factory=dict)
    mounts: dict[str, str] = field(default_factory=dict)
    memory_limit: int = 0

    @property
    def running(self) -> bool:
        """Whether its main process runs and is not frozen."""
        return self.status == "running"

    def as_dict(self) -> dict[str, Any]:
        """Return the fields as JSON-able data."""
        return asdict(self)


@dataclass(frozen=True)
class Process:
    """A process of a container: its id on the host, what `ps` says of its state (`T` is stopped by a signal), its command."""

    pid: int
    state: str
    command: str


@dataclass(frozen=True)
class Volume:
    """A named volume: where it lies, its labels, when it was made (RFC 3339)."""

    name: str
    mountpoint: str
    labels: dict[str, str]
    created_at: str


@dataclass(frozen=True)
class ExecResult:
    """What a command in a container answered. `stdout` and `stderr` are decoded, undecodable bytes replaced."""

    exit_code: int
    stdout: str
    stderr: str


def parse_container(attributes: Mapping[str, Any]) -> ContainerState:
    """Turn the engine's inspect document into a `ContainerState`."""
    state = attributes["State"]
    labels = dict(attributes["Config"].get("Labels") or {})
    networks = (attributes.get("NetworkSettings") or {}).get("Networks") or {}
    health = (state.get("Health") or {}).get("Status")
    return ContainerState(
        id=attributes["Id"],
        name=attributes["Name"].lstrip("/"),
        project=labels.get(PROJECT_LABEL, ""),
        service=labels.get(SERVICE_LABEL, ""),
        image=attributes["Config"].get("Image", ""),
        image_id=attributes.get("Image", ""),
        status=state["Status"],
        exit_code=int(state.get("ExitCode", 0)),
        oom_killed=bool(state.get("OOMKilled", False)),
        restart_count=int(attributes.get("RestartCount", 0)),
        health=None if health in (None, "none") else health,
        error=state.get("Error", ""),
        started_at=state.get("StartedAt", ""),
        finished_at=state.get("FinishedAt", ""),
        labels=labels,
        addresses={name: end["IPAddress"] for name, end in networks.items() if end.get("IPAddress")},
        mounts={m["Destination"]: m.get("Name") or m.get("Source", "") for m in attributes.get("Mounts") or []},
        memory_limit=int((attributes.get("HostConfig") or {}).get("Memory") or 0),
    )


def parse_processes(answer: Mapping[str, Any]) -> list[Process]:
    """Turn the engine's `top` document, asked for `pid,stat,comm`, into processes."""
    return [Process(int(pid), state, command) for pid, state, command in answer.get("Processes") or []]


def parse_volume(attributes: Mapping[str, Any]) -> Volume:
    """Turn the engine's volume document into a `Volume`."""
    return Volume(
        name=attributes["Name"],
        mountpoint=attributes.get("Mountpoint", ""),
        labels=dict(attributes.get("Labels") or {}),
        created_at=attributes.get("CreatedAt", ""),
    )


# Two threads that import parts of one package for the first time, at the same time, may see each other's half of it: one then fails
# (seen: KeyError: 'docker').
_IMPORTING = threading.RLock()


def _sdk(name: str) -> Any:
    """Import a part of the Docker SDK where it is first needed: the package must load on hosts that lack it."""
    try:
        with _IMPORTING:
            return importlib.import_module(name)
    except ImportError as error:
        raise WhatsAgentError("the Docker SDK is missing: apt-get install python3-docker") from error


def _is_missing(error: WhatsAgentError) -> bool:
    """Tell whether the engine answered that there is no such thing."""
    return isinstance(error.__cause__, _sdk("docker.errors").NotFound)


@contextlib.contextmanager
def explained(what: str) -> Iterator[None]:
    """Turn the SDK's errors into one that says what was attempted.

    What streams reads the socket itself, past the layers that name their errors: these are the operating system's (as those of
    requests are), urllib3's, or of the SDK's reader.
    """
    failures = (
        _sdk("docker.errors").DockerException,
        _sdk("docker.utils.socket").SocketError,
        _sdk("urllib3.exceptions").HTTPError,
        OSError,
    )
    try:
        yield
    except failures as error:
        reason = getattr(error, "explanation", None) or str(error)
        raise WhatsAgentError(f"{what}: {reason}", operation=what) from error


def exit_code_of(answer: Mapping[str, Any], command: str, container: str) -> int:
    """Return the exit code of a command in a container. The engine knows none of one whose container ended before it."""
    code = answer.get("ExitCode")
    if code is None:
        raise WhatsAgentError(
            f"the engine does not know how {command} ended in the container {container}: "
            "the container ended before it, or the engine did",
            pt=f"o Docker não sabe como {command} terminou no contêiner {container}: o contêiner terminou antes, ou o Docker",
        )
    return int(code)


def parse_writers(entries: Sequence[Mapping[str, Any]], volume: str) -> dict[str, str]:
    """Return which of the listed containers have a volume mounted writable: id to name."""
    return {
        str(entry["Id"]): str((entry.get("Names") or [entry["Id"]])[0]).lstrip("/")
        for entry in entries
        if any(mount.get("Name") == volume and mount.get("RW") for mount in entry.get("Mounts") or [])
    }


def _text(raw: bytes | None) -> str:
    return (raw or b"").decode("utf-8", "replace")


class DockerHost:
    """One Docker engine, reached over its local socket."""

    def __init__(self, client: DockerClient | None = None, *, timeout: int = 30, clock: Clock = SYSTEM_CLOCK) -> None:
        """Connect lazily to the local engine; `client` is a ready `docker.DockerClient`, `timeout` seconds per call."""
        self._client = client
        self._connecting = threading.RLock()
        self._timeout = timeout
        self._clock = clock

    @property
    def client(self) -> DockerClient:
        """Return the SDK's client; a missing SDK or an engine that does not answer is one clear error.

        Only this class calls it: whoever else did would have to explain its errors.
        """
        with self._connecting:
            if self._client is None:
                with explained(f"cannot reach the Docker engine at {ENGINE_SOCKET}"):
                    self._client = _sdk("docker").DockerClient(base_url=ENGINE_SOCKET, timeout=self._timeout)
            return self._client

    # Containers ------------------------------------------------------------------------------------------------------

    def containers(self, project: str, service: str | None = None, *, one_off: bool = False) -> list[ContainerState]:
        """Return a compose project's containers in any state, newest last; one-off runs only when asked for."""
        labels = [f"{PROJECT_LABEL}={project}"]
        if service is not None:
            labels.append(f"{SERVICE_LABEL}={service}")
        found = []
        with explained(f"cannot list the containers of {project}"):
            for entry in self.client.api.containers(all=True, filters={"label": labels}):
                is_one_off = (entry.get("Labels") or {}).get(ONE_OFF_LABEL, "False") == "True"
                if is_one_off != one_off:
                    continue
                state = self.inspect_if_present(entry["Id"])
                if state is not None:
                    found.append((entry["Created"], state))
        return [state for _created, state in sorted(found, key=lambda pair: (pair[0], pair[1].name))]

    def container(self, project: str, service: str) -> ContainerState | None:
        """Return the newest container of a service, or None."""
        found = self.containers(project, service)
        return found[-1] if found else None

    def require_running(self, project: str, service: str) -> ContainerState:
        """Return the newest running container of a service, or fail saying what state it is in."""
        found = self.containers(project, service)
        running = [state for state in found if state.running]
        if running:
            return running[-1]
        state = f"{found[-1].status}, exit code {found[-1].exit_code}" if found else "absent"
        raise WhatsAgentError(
            f"the service {service} of {project} is not running ({state})", service=service, state=state
        )

    def inspect_if_present(self, container: str) -> ContainerState | None:
        """Return one container by id or name, or None when it is gone."""
        try:
            with explained(f"cannot inspect the container {container}"):
                return parse_container(self.client.api.inspect_container(container))
        except WhatsAgentError as error:
            if _is_missing(error):
                return None
            raise

    def labelled(self, label: str) -> list[str]:
        """Return the ids of the containers, in any state, that carry a label (`name` or `name=value`)."""
        with explained(f"cannot list the containers with the label {label}"):
            return [str(entry["Id"]) for entry in self.client.api.containers(all=True, filters={"label": [label]})]

    def writers(self, volume: str) -> dict[str, str]:
        """Return the running containers that may write to a volume: id to name."""
        with explained(f"cannot list the containers that use the volume {volume}"):
            return parse_writers(self.client.api.containers(filters={"volume": volume}), volume)

    def main_process(self, container: str) -> int:
        """Return the host's process id of a container's main process, 0 when it does not run or is gone by now."""
        try:
            with explained(f"cannot inspect the container {container}"):
                return int(self.client.api.inspect_container(container)["State"].get("Pid") or 0)
        except WhatsAgentError as error:
            if _is_missing(error):
                return 0
            raise

    def logs(self, container: str, tail: int = 50) -> str:
        """Return the last lines a container wrote to stdout and stderr."""
        with explained(f"cannot read the log of {container}"):
            raw: bytes = self.client.api.logs(container, stdout=True, stderr=True, tail=tail)
        return raw.decode("utf-8", "replace")

    def processes(self, container: str) -> list[Process]:
        """Return the processes of a running container, with their ids on the host."""
        with explained(f"cannot list the processes of {container}"):
            return parse_processes(self.client.api.top(container, ps_args="-o pid,stat,comm"))

    def wake(self, container: str) -> None:
        """Let a container's processes go on that a signal stopped; asked for anew, since an id may have a new owner."""
        for process in self.processes(container):
            if process.state.startswith("T"):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process.pid, signal.SIGCONT)

    def environment(self, container: str) -> dict[str, str]:
        """Return the variables a container was created with. They hold secrets: compare them, never show them."""
        with explained(f"cannot inspect the container {container}"):
            entries = self.client.api.inspect_container(container)["Config"].get("Env") or []
        return dict(entry.split("=", 1) for entry in entries if "=" in entry)

    def start(self, container: str) -> None:
        """Start a container that does not run."""
        with explained(f"cannot start {container}"):
            self.client.api.start(container)

    def unpause(self, container: str) -> None:
        """Let a paused container go on."""
        with explained(f"cannot unpause {container}"):
            self.client.api.unpause(container)

    def restart(self, container: str, *, grace: int) -> None:
        """Stop a container, killing it after `grace` seconds, and start it again."""
        with explained(f"cannot restart {container}"):
            self.client.api.restart(container, timeout=grace)

    def stop(self, container: str, *, grace: int) -> None:
        """Stop a container, killing it after `grace` seconds."""
        with explained(f"cannot stop {container}"):
            self.client.api.stop(container, timeout=grace)

    def signal(self, container: str, name: str) -> None:
        """Send a signal, such as HUP, to a container's main process."""
        with explained(f"cannot send {name} to {container}"):
            self.client.api.kill(container, name)

    def stream(self, container: str, argv: Sequence[str], on_line: Callable[[str], None], *, timeout: float) -> int:
        """Run a long command in a running container, hand over its lines as they come, and return its exit code.

        `timeout` (seconds) is kept in the container, as `execute` has it kept; the exit code tells.
        """
        command = ["timeout", "--kill-after=30", str(timeout), *argv]
        rest = ""
        with explained(f"cannot run {argv[0]} in the container {container}"):
            api = self.client.api
            handle = api.exec_create(container, command)["Id"]
            for chunk in api.exec_start(handle, stream=True):
                *whole, rest = (rest + _text(chunk)).split("\n")
                for line in whole:
                    on_line(line)
            answer = api.exec_inspect(handle)
        if rest:
            on_line(rest)
        return exit_code_of(answer, argv[0], container)

    def execute(
        self,
        container: str,
        argv: Sequence[str],
        *,
        user: str = "",
        environment: Mapping[str, str] | None = None,
        timeout: float | None = None,
    ) -> ExecResult:
        """Run a command inside a running container and return what it answered, whatever its exit code.

        `timeout` (seconds) is kept by coreutils' `timeout` in the container, so that the command itself ends; running
        into it is an error.
        """
        command = list(argv)
        if timeout is not None:
            command = ["timeout", "--kill-after=5", str(timeout), *command]
        with explained(f"cannot run {argv[0]} in the container {container}"):
            api = self.client.api
            handle = api.exec_create(container, command, user=user, environment=dict(environment or {}))["Id"]
            stdout, stderr = api.exec_start(handle, demux=True)
            answer = api.exec_inspect(handle)
        exit_code = exit_code_of(answer, argv[0], container)
        if timeout is not None and exit_code in (EXIT_TIMED_OUT, EXIT_KILLED):
            raise WhatsAgentError(f"{argv[0]} did not end within {timeout:g} s in {container}", cmd=list(argv))
        return ExecResult(exit_code, _text(stdout), _text(stderr))

    def create_container(
        self,
        image: str,
        argv: Sequence[str],
        *,
        volumes: Mapping[str, Mapping[str, str]] | None = None,
        network: str = "none",
        user: str | None = None,
        environment: Mapping[str, str] | None = None,
        labels: Mapping[str, str] | None = None,
        entrypoint: Sequence[str] | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> str:
        """Create a container of an image and return its id; it does not run yet.

        `volumes` is the SDK's shape: `{name or path: {"bind": destination, "mode": "ro"}}`. `options` go to the SDK's
        `containers.create` as they are (tmpfs, mem_limit, …).
        """
        with explained(f"cannot start {argv[0] if argv else image} in a container of {image}"):
            container = self.client.containers.create(
                image,
                list(argv),
                volumes={name: dict(spec) for name, spec in (volumes or {}).items()},
                network_mode=network,
                user=user,
                environment=dict(environment or {}),
                labels=dict(labels or {}),
                entrypoint=None if entrypoint is None else list(entrypoint),
                **dict(options or {}),
            )
        return str(container.id)

    def run_once(
        self,
        image: str,
        argv: Sequence[str],
        *,
        timeout: float = 60,
        on_tick: Callable[[str], None] | None = None,
        **container_options: Any,
    ) -> ExecResult:
        """Run a command in a fresh container of an image, and remove the container whatever happens.

        `on_tick(container id)` is called about once a second while it runs: the place for lock checks and progress; what it
        raises stops the container. All else is as `create_container` has it.
        """
        container = self.create_container(image, argv, **container_options)
        try:
            with explained(f"cannot run {argv[0] if argv else image} in a container of {image}"):
                api = self.client.api
                api.start(container)
                exit_code = self._wait(container, timeout, on_tick)
                stdout = _text(api.logs(container, stdout=True, stderr=False))
                stderr = _text(api.logs(container, stdout=False, stderr=True))
        finally:
            self.remove_container(container)
        return ExecResult(exit_code, stdout, stderr)

    def _wait(self, container: str, timeout: float, on_tick: Callable[[str], None] | None) -> int:
        """Wait until a container has ended and return its exit code."""
        began = last_tick = self._clock.boottime()
        deadline = began + timeout
        while True:
            state = self.client.api.inspect_container(container)["State"]
            if state["Status"] in ("exited", "dead"):
                return int(state["ExitCode"])
            now = self._clock.boottime()
            if now >= deadline:
                raise WhatsAgentError(f"the container {container} did not end within {timeout:g} s", timeout=timeout)
            if on_tick is not None and now - last_tick >= 1:
                on_tick(container)
                last_tick = now
            # Of what is over soon, a recovery waits for every one in turn.
            self._clock.sleep(0.1 if now - began < 30 else 0.5)

    def stop_container(self, container: str, seconds: int) -> None:
        """End a container in order; killed when it takes longer."""
        with explained(f"cannot stop the container {container}"):
            self.client.api.stop(container, timeout=seconds)

    def remove_container(self, container: str) -> bool:
        """Stop and remove a container with its anonymous volumes; return whether it was there."""
        try:
            with explained(f"cannot remove the container {container}"):
                self.client.api.remove_container(container, force=True, v=True)
        except WhatsAgentError as error:
            if _is_missing(error):
                return False
            raise
        return True

    # Volumes and images ----------------------------------------------------------------------------------------------

    def volume(self, name: str) -> Volume | None:
        """Return a volume by name, or None."""
        try:
            with explained(f"cannot inspect the volume {name}"):
                return parse_volume(self.client.api.inspect_volume(name))
        except WhatsAgentError as error:
            if _is_missing(error):
                return None
            raise

    def volumes(self, *labels: str) -> list[Volume]:
        """Return the volumes that carry all these labels (`name` or `name=value`), oldest first."""
        with explained("cannot list the volumes"):
            found = self.client.api.volumes(filters={"label": list(labels)})["Volumes"] or []
        return sorted((parse_volume(entry) for entry in found), key=lambda volume: (volume.created_at, volume.name))

    def create_volume(self, name: str, labels: Mapping[str, str]) -> Volume:
        """Create a volume; one of that name already there is an error, since its content is unknown."""
        if self.volume(name) is not None:
            raise WhatsAgentError(f"the volume {name} already exists", volume=name)
        with explained(f"cannot create the volume {name}"):
            return parse_volume(self.client.api.create_volume(name, labels=dict(labels)))

    def remove_volume(self, name: str) -> None:
        """Remove a volume; the engine refuses one that is in use."""
        with explained(f"cannot remove the volume {name}"):
            self.client.api.remove_volume(name)

    def image_id(self, reference: str) -> str | None:
        """Return the id of an image that is present on this host, or None."""
        try:
            with explained(f"cannot inspect the image {reference}"):
                return str(self.client.images.get(reference).id)
        except WhatsAgentError as error:
            if _is_missing(error):
                return None
            raise

    def image_names(self) -> list[str]:
        """Return the names, tags included, of all images on this host."""
        with explained("cannot list the images"):
            return [name for image in self.client.api.images() for name in image.get("RepoTags") or []]

    def build(self, name: str, options: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
        """Build an image and yield the engine's events; `options` go to the SDK's `build` as they are."""
        with explained(f"cannot build {name}"):
            yield from self.client.api.build(tag=name, decode=True, rm=True, **options)

    def load(self, archive: Iterator[bytes], what: str) -> Iterator[Mapping[str, Any]]:
        """Load an archive of images and yield the engine's events; `what` names it in an error."""
        with explained(f"cannot {what}"):
            api: Any = self.client.api  # the stubs leave this call untyped
            yield from api.load_image(archive, quiet=False)

    def root(self) -> str:
        """Return the folder in which the engine keeps what is its own, the volumes among it."""
        with explained("cannot ask the engine where it keeps volumes"):
            return str(self.client.info()["DockerRootDir"])

    # Networks --------------------------------------------------------------------------------------------------------

    def network(self, name: str) -> dict[str, Any] | None:
        """Return the engine's document about a network, or None."""
        try:
            with explained(f"cannot inspect the network {name}"):
                return dict(self.client.api.inspect_network(name))
        except WhatsAgentError as error:
            if _is_missing(error):
                return None
            raise

    def remove_network(self, name: str, attached: Sequence[str]) -> None:
        """Detach these containers from a network, running or not, and remove it."""
        for container in attached:
            with explained(f"cannot detach {container} from the network {name}"):
                self.client.api.disconnect_container_from_network(container, name, force=True)
        with explained(f"cannot remove the network {name}"):
            self.client.api.remove_network(name)
