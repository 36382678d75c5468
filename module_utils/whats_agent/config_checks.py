# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether configuration files would be accepted: asked of the very programs that read them, in one-shot containers.

The files lie in a scratch folder of the stack's shape; nothing of the running stack is touched.
"""

from __future__ import annotations

import re
import ssl
import subprocess
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from . import config_env, pgbackrest
from .compose import compose_argv
from .config_files import CHAIN, COMPOSE, ENV, KEY, NGINX, PASSPHRASES, PGBACKREST, POSTGRES, REDIS, ConfigFile
from .docker_host import DockerHost
from .errors import WhatsAgentError
from .files import write_atomic

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

# name of a file → what is wrong with it, one sentence each.
Problems = dict[str, list[str]]
SERVICES = ("nginx", "app", "worker", "postgres", "redis")
_SENTINEL = "whats-agent-end"
_NGINX_PLACE = re.compile(r"in /etc/whats_agent/nginx/(?P<file>[A-Za-z0-9_.-]+):(?P<line>\d+)")
_NGINX_PREFIX = re.compile(r"^.*\[emerg\]\s*(?:\d+#\d+:\s*)?")
_TIMEOUT_S = 40
_WRITABLE = ("/tmp", "/var/log/whats_agent", "/var/spool/pgbackrest")  # noqa: S108 - in the container
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def clean_environment() -> dict[str, str]:
    """Return the environment for compose: a variable of ours must never outweigh the one in `.env`."""
    return {"PATH": _PATH, "HOME": "/root"}


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.strip().splitlines() if line.strip()]
    return lines[-1] if lines else "no message"


def check_env(files: Mapping[str, ConfigFile]) -> Problems:
    """Check the settings, without running anything."""
    if ENV not in files:
        return {}
    compose = files[COMPOSE].text if COMPOSE in files else ""
    found = config_env.problems(files[ENV].text, compose)
    return {ENV: found} if found else {}


def check_pair(tree: Path, files: Mapping[str, ConfigFile]) -> Problems:
    """Check that certificate and key can be read and belong together."""
    if CHAIN not in files or KEY not in files:
        return {}
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(tree / CHAIN, tree / KEY)
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            return {CHAIN: ["does not belong to the private key"], KEY: ["does not belong to the certificate"]}
        name = CHAIN if b"-----BEGIN CERTIFICATE-----" not in files[CHAIN].content else _broken_half(files)
        return {name: [f"cannot be read as PEM ({error.reason or 'no PEM'})"]}
    return {}


def _broken_half(files: Mapping[str, ConfigFile]) -> str:
    try:
        ssl.create_default_context(cadata=files[CHAIN].text)
    except (ssl.SSLError, ValueError):
        return CHAIN
    return KEY


def check_compose(tree: Path, files: Mapping[str, ConfigFile]) -> Problems:
    """Have compose read its file. With made-up settings: what is wrong with `.env` is not the compose file's fault."""
    if COMPOSE not in files:
        return {}
    settings = tree / "compose.settings"
    names = {*config_env.references(files[COMPOSE].text), *config_env.REQUIRED}
    write_atomic(settings, "".join(f"{name}=x\n" for name in sorted(names)), mode=0o600, durable=False)
    argv = [*compose_argv(tree), f"--env-file={settings}", "config", "--services"]
    try:
        done = subprocess.run(
            argv, capture_output=True, text=True, errors="replace", timeout=30, check=False, env=clean_environment()
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise WhatsAgentError(f"cannot ask compose about its file: {error}", cmd=argv) from error
    if done.returncode != 0:
        return {COMPOSE: [_last_line(done.stderr).replace(f"{tree}/", "")]}
    lacking = [name for name in SERVICES if name not in done.stdout.split()]
    return {COMPOSE: [f"has no service {', '.join(lacking)}"]} if lacking else {}


class ImageChecks:
    """Checks that run a service's own program in a one-shot container of its image."""

    def __init__(
        self, tree: Path, release: str, repository: Path, connect: Callable[[], DockerHost] = DockerHost
    ) -> None:
        """`tree` holds the files; `release` names the images; `repository` is the backups' folder on the host."""
        self._tree = tree
        self._release = release
        self._repository = repository
        self._connect = connect

    def _run(self, service: str, argv: list[str], mounts: dict[str, str], uid: int, **more: Any) -> tuple[int, str]:
        """Run a program under the uid that the service has; return its exit code and all it said."""
        done = self._connect().run_once(
            f"whats_agent/{service}:{self._release}",
            argv,
            volumes={source: {"bind": target, "mode": "ro"} for source, target in mounts.items()},
            user=f"{uid}:64000",
            timeout=_TIMEOUT_S,
            options={
                "read_only": True,
                "cap_drop": ["ALL"],
                "security_opt": ["no-new-privileges"],
                # By owner: where the image has the folder, Engine 20.10 gives its mode to the mount, whatever is asked for.
                "tmpfs": dict.fromkeys(_WRITABLE, f"uid={uid},gid=64000,mode=0750"),
            },
            **more,
        )
        return done.exit_code, f"{done.stdout}\n{done.stderr}"

    def nginx(self) -> Problems:
        """Have nginx test its configuration, certificates included."""
        mounts = {
            str(self._tree / "config/nginx"): "/etc/whats_agent/nginx",
            str(self._tree / "certs"): "/etc/whats_agent/certs",
        }
        code, said = self._run("nginx", ["check"], mounts, 64013)
        if code == 0:
            return {}
        line = next((line for line in said.splitlines() if "[emerg]" in line), _last_line(said))
        line = _NGINX_PREFIX.sub("", line)
        if "privkey.pem" in line or "SSL_CTX_use_PrivateKey" in line:
            return {KEY: [line]}
        if "fullchain.pem" in line:
            return {CHAIN: [line]}
        place = _NGINX_PLACE.search(line)
        name = f"config/nginx/{place['file']}" if place else NGINX
        return {name: [line]}

    def redis(self) -> Problems:
        """Have Redis read its file. An unknown directive of ours behind it keeps it from starting once it has."""
        argv = ["redis-server", "/etc/whats_agent/redis/redis.conf", f"--{_SENTINEL}", "x"]
        _code, said = self._run("redis", argv, {str(self._tree / "config/redis"): "/etc/whats_agent/redis"}, 64012)
        complaints = [line.split(">>>", 1)[1].strip() for line in said.splitlines() if ">>>" in line]
        ours = [line for line in complaints if _SENTINEL in line]
        others = [line for line in complaints if _SENTINEL not in line]
        if others:
            return {REDIS: [f"Redis does not take {others[0]}"]}
        if not ours:
            return {REDIS: [_last_line(said)]}
        return {}

    def postgres(self) -> Problems:
        """Have PostgreSQL read postgresql.conf; nothing is started, no data is needed."""
        config = "/etc/whats_agent/postgres/postgresql.conf"
        argv = ["postgres", "-C", "max_connections", "-D", "/tmp", "-c", f"config_file={config}"]  # noqa: S108 - in the container
        mounts = {str(self._tree / "config/postgres"): "/etc/whats_agent/postgres"}
        code, said = self._run("postgres", argv, mounts, 64011, entrypoint=[])
        if code == 0:
            return {}
        lines = [line for line in said.splitlines() if re.search(r"LOG:|FATAL:", line) and "auto.conf" not in line]
        return {POSTGRES: [(lines[0] if lines else _last_line(said)).split(":  ", 1)[-1].strip()]}

    def pgbackrest(self) -> Problems:
        """Have pgBackRest open the local repository: its settings are read, and the passphrase is tried."""
        mounts = {
            str(self._tree / "config/pgbackrest"): "/etc/pgbackrest",
            str(self._repository): "/var/lib/pgbackrest",
        }
        argv = [*pgbackrest.info_argv(), "--repo=1"]
        code, said = self._run("postgres", argv, mounts, 64011)
        if code != 0:
            line = next((line for line in said.splitlines() if "ERROR" in line), _last_line(said))
            return {PGBACKREST: [line.split("ERROR:", 1)[-1].strip()]}
        repository = pgbackrest.parse_info(said.strip())
        if repository.status == pgbackrest.STATUS_OTHER:
            return {PASSPHRASES: [str(repository.problem or "the passphrase does not open the repository")]}
        return {}

    def all(self, services: frozenset[str]) -> Problems:
        """Run those that concern these services, at the same time."""
        wanted: dict[str, list[Callable[[], Problems]]] = {
            "nginx": [self.nginx],
            "redis": [self.redis],
            "postgres": [self.postgres, self.pgbackrest],
        }
        checks = [check for service, group in wanted.items() if service in services for check in group]
        found: Problems = {}
        with ThreadPoolExecutor(max_workers=max(1, len(checks))) as pool:
            for result in pool.map(lambda check: check(), checks):
                merge(found, result)
        return found


def merge(into: Problems, more: Mapping[str, list[str]]) -> None:
    """Add problems to others, each once."""
    for name, lines in more.items():
        known = into.setdefault(name, [])
        known += [line for line in lines if line not in known]
