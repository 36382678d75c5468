# SPDX-License-Identifier: GPL-3.0-or-later
"""Look at the stack's Redis from all sides and touch nothing. `redis_causes` decides what it means."""

from __future__ import annotations

import os
import re
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from . import env_file
from .app_observe import ANSWER_S, patience
from .clock import SYSTEM_CLOCK, Clock
from .container_view import ContainerView, view
from .errors import WhatsAgentError
from .postgres_host import free_bytes
from .redact import secrets_of
from .redis_host import DATA_DIR, ENV_NAMES, SERVICE, RedisPlace, Wanted, read_configuration, redis_at
from .redis_keys import Census, take_census
from .redis_storm import Turnover, sample, turnover

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from .docker_host import ContainerState, DockerHost

AGAIN_S = 0.5
STORM_WINDOW_S = 1.0
CLIENTS_SHOWN = 5
# What connections say without any work: our own questions and health checks.
NO_WORK = ("NULL", "auth", "client", "hello", "info", "ping")
AGENT_SERVICES = ("app", "worker")

# What Redis says at its start when it cannot load what lies on its volume.
DAMAGED = re.compile(
    r"Wrong signature trying to load DB|Short read or OOM loading DB|Wrong RDB checksum|Internal error in RDB reading"
    r"|Can't handle RDB format version|Bad file format reading the append only file|Unexpected end of file reading the append only"
    r"|Unknown RDB|Terminating server after rdb file reading failure"
    r"|Fatal error loading the DB|Error reading the RDB|AOF .*(?:corrupt|invalid)",
    re.IGNORECASE,
)
CONFIG_REFUSED = re.compile(
    r"FATAL CONFIG FILE ERROR|Bad directive|Fatal error, can't open config|REDIS_PASSWORD is not set"
)
DISK_FULL = re.compile(r"No space left on device")


@dataclass(frozen=True)
class Server:
    """What a running Redis says of itself, in bytes. `turnover` is how keys came and went, where it was watched; `clients` are
    those that were at work then.
    """

    used: int
    maxmemory: int
    policy: str
    rss: int
    evicted: int
    turnover: Turnover | None
    dump_ok: bool
    dump_running: bool
    append_ok: bool
    census: Census
    clients: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Return JSON-able data."""
        return asdict(self)


@dataclass(frozen=True)
class Observed:
    """Everything one look saw; None where a part could not be looked at.

    `refused` is how Redis turned the connection away: password, timeout, loading, error. `strangers` are containers that were
    made with another password than `.env` has now.
    """

    env_error: str | None = None
    engine_error: str | None = None
    configuration_error: str | None = None
    wanted: Wanted | None = None
    url_host: str = ""
    container: ContainerView | None = None
    mountpoint: str | None = None
    files: tuple[str, ...] = ()
    free: int | None = None
    log: tuple[str, ...] = ()
    connection_error: str | None = None
    refused: str | None = None
    server: Server | None = None
    strangers: tuple[str, ...] = field(default=())

    def as_dict(self) -> dict[str, Any]:
        """Return JSON-able data."""
        return asdict(self)


def observe(place: RedisPlace, docker: DockerHost, clock: Clock = SYSTEM_CLOCK) -> Observed:
    """Look at everything, as far as it can be looked at."""
    try:
        env = env_file.read_env(place.env_path)
        env_file.require(env, ENV_NAMES, str(place.env_path))
    except WhatsAgentError as error:
        return Observed(env_error=error.message)
    seen: dict[str, Any] = {"url_host": urlsplit(env["REDIS_URL"]).hostname or ""}
    try:
        seen["wanted"] = read_configuration(place.configuration_path)
    except WhatsAgentError as error:
        seen["configuration_error"] = error.message
    try:
        return _look(place, docker, env, seen, clock)
    except WhatsAgentError:
        # A container may go away while it is looked at; what is still there then is what counts.
        clock.sleep(AGAIN_S)
    try:
        return _look(place, docker, env, seen, clock)
    except WhatsAgentError as error:
        return Observed(**seen, engine_error=error.message)


def _look(place: RedisPlace, docker: DockerHost, env: dict[str, str], known: dict[str, Any], clock: Clock) -> Observed:
    seen = dict(known)
    state = docker.container(place.project, SERVICE)
    everyone = docker.containers(place.project)
    seen["strangers"] = _strangers(docker, everyone, state, env["REDIS_PASSWORD"])
    if state is None:
        return Observed(**seen)
    secrets = tuple(secrets_of(env))
    seen["container"] = looked = view(docker, state, secrets)
    seen["log"] = looked.log
    seen.update(_volume(docker, state))
    address = next(iter(state.addresses.values()), None)
    if looked.fault is None and address is not None:
        names = {where: s.name for s in everyone for where in s.addresses.values()}
        seen.update(_inside(address, env["REDIS_PASSWORD"], names, clock))
    return Observed(**seen)


def _strangers(
    docker: DockerHost, everyone: Iterable[ContainerState], state: ContainerState | None, password: str
) -> tuple[str, ...]:
    """Return the containers that were made with another password. Only their names leave this function."""
    states = [s for s in everyone if s.service in AGENT_SERVICES]
    if state is not None:
        states.insert(0, state)
    return tuple(s.name for s in states if docker.environment(s.id).get("REDIS_PASSWORD") != password)


def _volume(docker: DockerHost, state: ContainerState) -> dict[str, Any]:
    volume = docker.volume(state.mounts[DATA_DIR]) if DATA_DIR in state.mounts else None
    if volume is None or not Path(volume.mountpoint).is_dir():
        return {}
    path = Path(volume.mountpoint)
    return {
        "mountpoint": str(path),
        "files": tuple(sorted(entry.name for entry in path.iterdir())),
        "free": free_bytes(path),
    }


def _inside(address: str, password: str, names: Mapping[str, str], clock: Clock) -> dict[str, Any]:
    try:
        timeout_s = ANSWER_S * patience(os.getloadavg()[0], os.cpu_count() or 1)
        with redis_at(address, password, timeout_s=timeout_s) as client:
            return {"server": look_inside(client, names, clock)}
    except WhatsAgentError as error:
        return {"connection_error": error.message, "refused": str(error.details.get("refused", "error"))}


def look_inside(client: Any, names: Mapping[str, str] | None = None, clock: Clock = SYSTEM_CLOCK) -> Server:
    """Ask a running Redis. Only where memory is nearly full and keys have been evicted, watch for a moment how they come and go.

    `names` maps the addresses of the stack's containers to their names.
    """
    info = client.info()
    first = sample(info, clock.boottime())
    pace: Turnover | None = None
    clients: tuple[str, ...] = ()
    if first.nearly_full and first.evicted:
        clock.sleep(STORM_WINDOW_S)
        # Before the census, whose own questions count as reads.
        info = client.info()
        pace = turnover(first, sample(info, clock.boottime()))
        clients = at_work(client.client_list(), names or {})
    return Server(
        used=int(info["used_memory"]),
        maxmemory=int(info["maxmemory"]),
        policy=str(info["maxmemory_policy"]),
        rss=int(info["used_memory_rss"]),
        evicted=int(info["evicted_keys"]),
        turnover=pace,
        dump_ok=info.get("rdb_last_bgsave_status", "ok") == "ok",
        dump_running=bool(info.get("rdb_bgsave_in_progress", 0)),
        append_ok=info.get("aof_last_write_status", "ok") == "ok",
        census=take_census(client, clock=clock),
        clients=clients,
    )


def at_work(listed: Iterable[Mapping[str, Any]], names: Mapping[str, str]) -> tuple[str, ...]:
    """Return who sent a command within the last moments: the container or address and the command, without ourselves. Pure.

    A loopback address is a program inside the redis container.
    """
    seen: dict[str, None] = {}
    for client in listed:
        command = str(client.get("cmd", ""))
        if int(client.get("idle", 0)) > STORM_WINDOW_S or command.partition("|")[0] in NO_WORK:
            continue
        address = str(client.get("addr", "")).rpartition(":")[0].strip("[]")
        inside = address in ("127.0.0.1", "::1")
        seen[f"{'inside the redis container' if inside else names.get(address, address)} ({command})"] = None
    return tuple(sorted(seen))[:CLIENTS_SHOWN]
