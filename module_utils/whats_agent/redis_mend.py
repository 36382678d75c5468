# SPDX-License-Identifier: GPL-3.0-or-later
"""Mend the stack's Redis. Each remedy looks, and with `write` does what it says; without, it only says it.

Nothing here empties the instance: the agent's state stays, cache keys go by SCAN and UNLINK, and a file that cannot be loaded is
moved aside and kept.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import stat
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import env_file
from .app_check import own_check
from .clock import SYSTEM_CLOCK
from .errors import WhatsAgentError
from .files import sync_directory
from .redis_host import DATA_DIR, GID, SERVICE, UID, RedisPlace, Wanted, fits, read_configuration, redis_at
from .redis_keys import give_cache_ttl, take_census, unlink_cache, unlink_foreign
from .redis_observe import AGENT_SERVICES

if TYPE_CHECKING:
    from .compose import ComposeProject
    from .docker_host import ContainerState, DockerHost

HUNG_GRACE_S = 3
ORDERLY_GRACE_S = 20  # compose's own
READY_S = 30.0
DUMP_S = 60.0
_PAUSE_S = 0.2
# What Redis may be unable to load: the dump, or the folder of the append-only files.
_LOADED = re.compile(r"^(dump\.rdb|appendonlydir|appendonly\.aof)$")


class Mender:
    """What the remedies share. `beat` is called while they work and raises once another run holds the host."""

    def __init__(
        self, place: RedisPlace, docker: DockerHost, compose: ComposeProject, beat: Callable[[], None], cache_ttl: int
    ) -> None:
        """Name where the stack lies; `cache_ttl` is seconds."""
        self.place = place
        self.docker = docker
        self.compose = compose
        self.beat = beat
        self.cache_ttl = cache_ttl

    @property
    def password(self) -> str:
        """Return the password of `.env`."""
        return env_file.read_env(self.place.env_path)["REDIS_PASSWORD"]

    def container(self) -> ContainerState:
        """Return the redis container, whatever its state."""
        found = self.docker.container(self.place.project, SERVICE)
        if found is None:
            raise WhatsAgentError(
                "there is no redis container any more: somebody else is at work on this server",
                pt="não há mais contêiner redis: outra pessoa está trabalhando neste servidor",
            )
        return found

    @contextlib.contextmanager
    def client(self) -> Any:
        """Yield a client of the running Redis."""
        container = self.docker.require_running(self.place.project, SERVICE)
        with redis_at(next(iter(container.addresses.values())), self.password, timeout_s=10) as client:
            yield client

    def wait_ready(self) -> None:
        """Wait until Redis answers to the password of `.env`; running out of time is verification's matter."""
        deadline = SYSTEM_CLOCK.boottime() + READY_S
        while SYSTEM_CLOCK.boottime() < deadline:
            try:
                with self.client() as client:
                    client.ping()
            except WhatsAgentError:
                self.beat()
                SYSTEM_CLOCK.sleep(_PAUSE_S)
            else:
                return


def start(mender: Mender, *, write: bool) -> list[str]:
    """Start, unpause, wake or create the container."""
    found = mender.docker.container(mender.place.project, SERVICE)
    if found is None:
        if write:
            mender.compose.fill(SERVICE)
            mender.wait_ready()
        return ["create the redis container"]
    if found.status == "paused":
        step = "unpause"
    elif not found.running:
        step = "start"
    elif any(process.state.startswith("T") for process in mender.docker.processes(found.id)):
        step = "wake"
    else:
        return []
    if write:
        if step == "unpause":
            mender.docker.unpause(found.id)
        elif step == "start":
            mender.docker.start(found.id)
        else:
            mender.docker.wake(found.id)
        mender.wait_ready()
    return [f"{step} {found.name}"]


def restart(mender: Mender, *, write: bool) -> list[str]:
    """Stop Redis, without waiting for what does not answer, and start it again."""
    found = mender.container()
    if write:
        mender.docker.restart(found.id, grace=HUNG_GRACE_S)
        mender.wait_ready()
    return [f"restart {found.name}"]


def recreate(mender: Mender, *, write: bool) -> list[str]:
    """Replace the container, on the same volume, with the settings and limits of the compose file."""
    found = mender.docker.container(mender.place.project, SERVICE)
    if write:
        if found is not None:
            if found.running:
                mender.docker.stop(found.id, grace=ORDERLY_GRACE_S)
            mender.docker.remove_container(found.id)
        mender.compose.fill(SERVICE)
        mender.wait_ready()
    return [f"replace {found.name if found else 'the redis container'}"]


def set_aside(mender: Mender, *, write: bool) -> list[str]:
    """Move what Redis cannot load aside within its volume, keep it, and start without it."""
    found = mender.container()
    volume = mender.docker.volume(found.mounts.get(DATA_DIR, ""))
    if volume is None:
        raise WhatsAgentError(
            "the redis container has no volume at /var/lib/redis: run playbooks/deploy.yml",
            pt="o contêiner redis não tem volume em /var/lib/redis: execute playbooks/deploy.yml",
        )
    folder = Path(volume.mountpoint)
    damaged = sorted(entry.name for entry in folder.iterdir() if _LOADED.match(entry.name))
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    steps = [f"move {name} to {name}.damaged-{stamp}" for name in damaged]
    if write:
        mender.docker.stop(found.id, grace=HUNG_GRACE_S)
        for name in damaged:
            (folder / name).rename(folder / f"{name}.damaged-{stamp}")
        sync_directory(folder)
        mender.docker.start(found.id)
        mender.wait_ready()
    return [*steps, f"start {found.name}"]


def apply_password(mender: Mender, *, write: bool) -> list[str]:
    """Have Redis and the agent use the password of `.env`: replace what was made with another, one container at a time."""
    password = mender.password
    strange = [
        state
        for service in (SERVICE, *AGENT_SERVICES)
        for state in mender.docker.containers(mender.place.project, service)
        if mender.docker.environment(state.id).get("REDIS_PASSWORD") != password
    ]
    if not any(state.service == SERVICE for state in strange):
        # Made with the right one: it was changed while it ran, and a restart brings it back.
        found = mender.container()
        steps = [f"restart {found.name}"]
        if write:
            mender.docker.restart(found.id, grace=ORDERLY_GRACE_S)
            mender.wait_ready()
    else:
        steps = recreate(mender, write=write)
    for state in (s for s in strange if s.service != SERVICE):
        steps.append(f"replace {state.name}")
        if write:
            mender.beat()
            mender.docker.stop(state.id, grace=40)
            mender.docker.remove_container(state.id)
            mender.compose.fill(state.service)
            _wait_well(mender, state.service)
    return steps


def _wait_well(mender: Mender, service: str) -> None:
    deadline = SYSTEM_CLOCK.boottime() + READY_S
    while SYSTEM_CLOCK.boottime() < deadline:
        if not any(own_check(mender.docker, s) for s in mender.docker.containers(mender.place.project, service)):
            return
        mender.beat()
        SYSTEM_CLOCK.sleep(_PAUSE_S)


def configure(mender: Mender, *, write: bool) -> list[str]:
    """Set memory limit and policy of the running Redis to the configured ones, as far as they fit the container."""
    return _set(mender, write=write, lowered=False)


def restore_limit(mender: Mender, *, write: bool) -> list[str]:
    """Give the running Redis the memory that is configured, where somebody gave it less."""
    return _set(mender, write=write, lowered=True)


def _set(mender: Mender, *, write: bool, lowered: bool) -> list[str]:
    found = mender.docker.require_running(mender.place.project, SERVICE)
    wanted = read_configuration(mender.place.configuration_path).for_limit(found.memory_limit)
    with mender.client() as client:
        info = client.info("memory")
        changes = differences(info, wanted, found.memory_limit, lowered=lowered)
        if write:
            for name, (_before, after) in changes.items():
                client.config_set(name, after)
    return [f"set {name} from {before} to {after}" for name, (before, after) in changes.items()]


def differences(
    info: dict[str, Any], wanted: Wanted, limit: int, *, lowered: bool = False
) -> dict[str, tuple[str, str]]:
    """Return what to set: name → (before, after). Pure.

    A limit set by hand that fits the container is left alone; with `lowered`, only one that is not below the configured.
    """
    changes: dict[str, tuple[str, str]] = {}
    if info["maxmemory_policy"] != wanted.policy:
        changes["maxmemory-policy"] = (str(info["maxmemory_policy"]), wanted.policy)
    maxmemory = int(info["maxmemory"])
    if not fits(maxmemory, limit) or (lowered and 0 < maxmemory < wanted.maxmemory):
        changes["maxmemory"] = (str(info["maxmemory"]), str(wanted.maxmemory))
    return changes


def evict_cache(mender: Mender, *, write: bool) -> list[str]:
    """Remove the cache keys, and only them."""
    with mender.client() as client:
        count = unlink_cache(client, mender.beat) if write else take_census(client).cache.keys
    return [f"remove {count} cache keys"] if count else []


def set_ttl(mender: Mender, *, write: bool) -> list[str]:
    """Give cache keys without a time to live one."""
    with mender.client() as client:
        count = (
            give_cache_ttl(client, mender.cache_ttl, mender.beat) if write else take_census(client).cache.without_ttl
        )
    return [f"give {count} cache keys a time to live of {mender.cache_ttl} s"] if count else []


def remove_foreign(mender: Mender, *, write: bool) -> list[str]:
    """Remove keys outside the agent's prefixes that have no time to live. The run has the operator's consent."""
    with mender.client() as client:
        count = unlink_foreign(client, mender.beat) if write else take_census(client).foreign.without_ttl
    return [f"remove {count} keys that are not the agent's"] if count else []


def mend_persistence(mender: Mender, *, write: bool) -> list[str]:
    """Give Redis its folder back and prove that it can write a dump."""
    found = mender.container()
    volume = mender.docker.volume(found.mounts.get(DATA_DIR, ""))
    steps = []
    if volume is not None:
        folder = Path(volume.mountpoint)
        steps += give_back(folder, UID, GID, write=write)
    steps.append("write a dump")
    if write:
        with mender.client() as client:
            _dump(mender, client)
    return steps


def give_back(folder: Path, uid: int, gid: int, *, write: bool) -> list[str]:
    """Give a folder and what lies in it to a user who has to write there; return what differed, in words.

    What was moved aside stays as it is, and no link is followed: who can write there could point it anywhere.
    """
    steps = []
    for path in (folder, *sorted(entry for entry in folder.iterdir() if ".damaged-" not in entry.name)):
        try:
            opened = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        except OSError as error:
            # A link; or a dump that was being written, whose name is there for a moment only.
            if error.errno in (errno.ELOOP, errno.ENOENT):
                continue
            raise
        try:
            status = os.fstat(opened)
            bits = 0o700 if stat.S_ISDIR(status.st_mode) else 0o600
            if status.st_uid == uid and status.st_mode & bits == bits:
                continue
            if write:
                os.fchown(opened, uid, gid)
                os.fchmod(opened, (status.st_mode & 0o777) | bits)
            steps.append(f"give {path} back to Redis")
        finally:
            os.close(opened)
    return steps


def _dump(mender: Mender, client: Any) -> None:
    if not client.info("persistence")["rdb_bgsave_in_progress"]:
        client.bgsave()
    deadline = SYSTEM_CLOCK.boottime() + DUMP_S
    while True:
        info = client.info("persistence")
        if not info["rdb_bgsave_in_progress"]:
            break
        if SYSTEM_CLOCK.boottime() >= deadline:
            raise WhatsAgentError(
                f"Redis has not written its dump within {DUMP_S:g} s", pt=f"o Redis não gravou seu dump em {DUMP_S:g} s"
            )
        mender.beat()
        SYSTEM_CLOCK.sleep(_PAUSE_S)
    if info["rdb_last_bgsave_status"] != "ok":
        raise WhatsAgentError(
            "Redis still cannot write its dump: docker logs of the redis container tell why",
            pt="o Redis ainda não consegue gravar seu dump: docker logs do contêiner redis diz por quê",
        )


REMEDIES: dict[str, Callable[..., list[str]]] = {
    "start": start,
    "restart": restart,
    "recreate": recreate,
    "set_aside": set_aside,
    "apply_password": apply_password,
    "configure": configure,
    "restore_limit": restore_limit,
    "evict_cache": evict_cache,
    "set_ttl": set_ttl,
    "remove_foreign": remove_foreign,
    "mend_persistence": mend_persistence,
}
