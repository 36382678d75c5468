# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether the containers run with the configuration that lies in the files."""

from __future__ import annotations

import hashlib
import json
import re
import socket
import ssl
import subprocess
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .compose import compose_argv
from .config_checks import clean_environment
from .config_files import CHAIN, NGINX, ConfigFile, service_of
from .errors import WhatsAgentError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .docker_host import ContainerState, DockerHost

HASH_LABEL = "com.docker.compose.config-hash"
_NGINX_HASH = re.compile(r'return 200 "([0-9a-f]+)\\n"')
_DOCKER_TIME = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d+))?")
# Services that read their mounted files only when they start.
_READ_AT_START = frozenset(["postgres", "redis"])
_LATE_NS = 1_000_000_000  # file and container are stamped by two clocks of one host, at worst a second apart


@dataclass(frozen=True)
class Wanted:
    """What compose makes of the files: each service's hash, how many containers it has, and nginx' ports on the host."""

    hashes: dict[str, str]
    replicas: dict[str, int]
    local_port: int
    tls_port: int


@dataclass(frozen=True)
class Drift:
    """A service whose containers do not run with what lies in the files. `how`: recreate, restart or reload."""

    service: str
    how: str
    why: str


def compose_output(stack_dir: Path, project: str, arguments: Sequence[str], timeout: float = 30) -> str:
    """Run compose with nothing but `.env` for its variables; a failure shows what it said last."""
    argv = [*compose_argv(stack_dir, project), *arguments]
    try:
        done = subprocess.run(
            argv,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout,
            check=False,
            env=clean_environment(),
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise WhatsAgentError(f"docker compose {arguments[0]}: {error}", cmd=argv) from error
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise WhatsAgentError(f"docker compose {arguments[0]} failed: {last}", cmd=argv, rc=done.returncode)
    return done.stdout


def read_wanted(stack_dir: Path, project: str) -> Wanted:
    """Ask compose what the files in place make of each service."""
    questions = (["config", "--hash=*"], ["config", "--format=json"])
    with ThreadPoolExecutor(max_workers=len(questions)) as pool:
        lines, document = pool.map(lambda arguments: compose_output(stack_dir, project, arguments), questions)
    hashes = {line.split()[0]: line.split()[1] for line in lines.splitlines() if line.strip()}
    services = json.loads(document)["services"]
    return Wanted(
        hashes=hashes,
        replicas={name: _replicas(services[name]) for name in hashes if name in services},
        local_port=_published(services, 8000),
        tls_port=_published(services, 8443),
    )


def _replicas(service: Mapping[str, Any]) -> int:
    deploy = service.get("deploy") or {}
    return int(service.get("scale", deploy.get("replicas", 1)))


def _published(services: Mapping[str, Any], target: int) -> int:
    for port in services.get("nginx", {}).get("ports") or []:
        if int(port.get("target", 0)) == target:
            return int(port["published"])
    raise WhatsAgentError(f"the compose file publishes no port for nginx' {target}")


def container_ns(stamp: str) -> int:
    """Return Docker's time stamp as nanoseconds since the epoch; 0 for none."""
    match = _DOCKER_TIME.match(stamp)
    if match is None:
        return 0
    whole = datetime.strptime(match[1], "%Y-%m-%dT%H:%M:%S").replace(tzinfo=UTC)
    return int(whole.timestamp()) * 1_000_000_000 + int((match[2] or "0").ljust(9, "0")[:9])


def of_containers(wanted: Wanted, containers: Sequence[ContainerState], files: Mapping[str, ConfigFile]) -> list[Drift]:
    """Compare what runs with what is wanted. Pure. Services without any container are not configuration's matter."""
    found = []
    for service, digest in wanted.hashes.items():
        mine = [state for state in containers if state.service == service]
        if not mine:
            continue
        other = [state for state in mine if state.labels.get(HASH_LABEL) != digest]
        if other:
            found.append(Drift(service, "recreate", f"{len(other)} of {len(mine)} made from other settings"))
        elif len(mine) > wanted.replicas.get(service, 1):
            found.append(Drift(service, "recreate", f"{len(mine)} containers instead of {wanted.replicas[service]}"))
        elif service in _READ_AT_START:
            found += _stale(service, mine, files)
    return found


def _stale(service: str, containers: Sequence[ContainerState], files: Mapping[str, ConfigFile]) -> list[Drift]:
    """Compare when the process started with when the files it read then were written; pgBackRest reads its own each time."""
    started = min(container_ns(state.started_at) for state in containers)
    mine = [f for f in files.values() if service_of(f.name) == service and not f.name.startswith("config/pgbackrest/")]
    newer = [file.name for file in mine if (file.changed_ns or 0) > started + _LATE_NS]
    return [Drift(service, "restart", f"started before {', '.join(newer)} was written")] if newer else []


def of_mounts(stack_dir: Path, docker: DockerHost, containers: Sequence[ContainerState]) -> list[Drift]:
    """Find services that have a folder mounted which is not the one at its path: it was removed and made anew meanwhile."""
    found = []
    for state in containers:
        folders = {target: source for target, source in state.mounts.items() if _is_configuration(stack_dir, source)}
        if not state.running or not folders:
            continue
        lost = [
            source for target, source in folders.items() if not _is_same(docker.main_process(state.id), target, source)
        ]
        if lost:
            found.append(Drift(state.service, "restart", f"has another folder mounted than is now {', '.join(lost)}"))
    return found


def _is_configuration(stack_dir: Path, source: str) -> bool:
    return any(source.startswith(f"{stack_dir / name}") for name in ("config", "certs"))


def _is_same(pid: int, target: str, source: str) -> bool:
    """Compare what a process sees at a path with what the host has; one that has ended meanwhile is not judged."""
    root = Path(f"/proc/{pid}/root")
    try:
        return (root / target.lstrip("/")).samefile(source)
    except FileNotFoundError:
        return not root.exists() and Path(source).exists()


def of_nginx(wanted: Wanted, files: Mapping[str, ConfigFile]) -> list[Drift]:
    """Ask the running nginx which configuration and which certificate it has. One that does not answer is not asked."""
    match = _NGINX_HASH.search(files[NGINX].text)
    running = running_nginx(wanted.local_port)
    if running is None:
        return []
    if match is not None and running != match[1]:
        return [Drift("nginx", "reload", f"runs with the configuration {running}, the file is {match[1]}")]
    served = served_certificate(wanted.tls_port)
    if served is not None and served != fingerprint(files[CHAIN].text):
        return [Drift("nginx", "reload", "serves another certificate than the file holds")]
    return []


def running_nginx(port: int) -> str | None:
    """Return the hash of the configuration that nginx runs with, or None when it does not say."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/nginx_configuration", timeout=5) as answer:
            return str(answer.read(64).decode("ascii", "replace").strip())
    except (urllib.error.URLError, OSError):
        return None


def served_certificate(port: int) -> str | None:
    """Return the SHA-256 of the certificate that is served, or None when nobody serves one."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE  # it is compared byte by byte
    try:
        with (
            socket.create_connection(("127.0.0.1", port), timeout=5) as plain,
            context.wrap_socket(plain) as secured,
        ):
            return hashlib.sha256(secured.getpeercert(binary_form=True) or b"").hexdigest()
    except OSError:
        return None


def fingerprint(chain: str) -> str:
    """Return the SHA-256 of the first certificate of a chain; an unreadable one is nobody's."""
    end = "-----END CERTIFICATE-----"
    try:
        return hashlib.sha256(ssl.PEM_cert_to_DER_cert(chain.strip().split(end)[0] + end)).hexdigest()
    except ValueError:
        return ""
