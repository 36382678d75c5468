# SPDX-License-Identifier: GPL-3.0-or-later
"""Look at the agent from all sides at once and touch nothing. `app_causes` decides what it means."""

from __future__ import annotations

import http.client
import json
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import env_file
from .clock import SYSTEM_CLOCK, Clock
from .container_view import ContainerView, view
from .errors import WhatsAgentError
from .postgres_host import DatabasePlace, database, free_bytes
from .redact import secrets_of

if TYPE_CHECKING:
    from .compose import ComposeProject
    from .docker_host import ContainerState, DockerHost

# Webhooks first: what stands in front of them is mended before what answers them.
SERVICES = ("nginx", "app", "worker")
ENV_NAMES = ("RELEASE", "DB_NAME", "META_APP_SECRET", "REDIS_PASSWORD")
LOG_VOLUME_PATH = "/var/lib/whats_agent/message_log"
APP_PORT = 8000
ANSWER_S = 3.0  # an agent that answers at all does so within milliseconds, unless its host is overloaded
LOAD_A_CPU = 4.0
MOST_PATIENT = 4.0
HEALTH_S = 8.0  # … its view of the other parts may have to wait for them
AGAIN_S = 0.5
PROJECTION_S = 5.0  # how long a projection that lags is given to move
PROJECTOR_LOCK = 7_264_102  # the advisory lock that the agent's projector holds (agent: projection/projector.py)
PROJECTOR = "whats_agent projector"


@dataclass(frozen=True)
class Answer:
    """What one HTTP question was answered: a status, or why there was none."""

    status: int | None
    error: str = ""

    @property
    def ok(self) -> bool:
        """Whether anything answered."""
        return self.status is not None


@dataclass(frozen=True)
class Holder:
    """A session that keeps the projector from working."""

    pid: int
    application: str
    user: str
    how: str


@dataclass(frozen=True)
class Observed:
    """Everything one look saw; None where a part could not be looked at.

    `wanted` is containers by service; `answers` by container name; `parts` the agent's own view of everything; `moved`
    tells whether the projection moved, or had nothing to do, while it was watched.
    """

    env_error: str | None = None
    engine_error: str | None = None
    wanted: dict[str, int] = field(default_factory=dict)
    image_missing: str | None = None
    containers: tuple[ContainerView, ...] = ()
    outdated: tuple[str, ...] = ()
    answers: dict[str, Answer] = field(default_factory=dict)
    front: Answer | None = None
    parts: dict[str, Any] | None = None
    moved: bool | None = None
    holders: tuple[Holder, ...] = ()
    holders_error: str | None = None
    log_free: int | None = None

    def of(self, service: str) -> list[ContainerView]:
        """Return a service's containers."""
        return [container for container in self.containers if container.service == service]

    def as_dict(self) -> dict[str, Any]:
        """Return JSON-able data."""
        return asdict(self)


def patience(load: float, cpus: int) -> float:
    """Return by how much longer to wait for an answer on a host with this load: a slow host must not look like a hung agent."""
    return min(MOST_PATIENT, max(1.0, load / max(cpus, 1) / LOAD_A_CPU))


def ask(address: str, port: int, path: str, timeout: float) -> tuple[Answer, bytes]:
    """Ask one HTTP question within `timeout` seconds; no answer is an `Answer` too."""
    connection = http.client.HTTPConnection(address, port, timeout=timeout)
    try:
        connection.request("GET", path, headers={"Host": "localhost"})
        response = connection.getresponse()
        return Answer(response.status), response.read()
    except TimeoutError:
        return Answer(None, f"no answer within {timeout:g} s"), b""
    except (OSError, http.client.HTTPException) as error:
        return Answer(None, f"{type(error).__name__}: {error}"), b""
    finally:
        connection.close()


def ask_replica(address: str, answer_s: float) -> tuple[Answer, dict[str, Any] | None]:
    """Ask a replica for any answer, and one that gives it for its view of the parts, which may take longer."""
    answer, _body = ask(address, APP_PORT, "/", answer_s)
    if not answer.ok:
        return answer, None
    health, body = ask(address, APP_PORT, "/health", HEALTH_S)
    return answer, parse_parts(body) if health.ok else None


def parse_parts(body: bytes) -> dict[str, Any] | None:
    """Read the parts out of what `/health` answered."""
    try:
        parts = json.loads(body)["parts"]
    except (ValueError, KeyError, TypeError):
        return None
    return parts if isinstance(parts, dict) else None


def projects(parts: dict[str, Any] | None) -> bool | None:
    """Tell whether the projection is where it should be; None when nobody can tell."""
    worker, postgres = (parts or {}).get("worker") or {}, (parts or {}).get("postgres") or {}
    if worker.get("state") != "up" or postgres.get("state") != "up":
        return None
    behind = int(worker.get("log_end") or 0) - int(postgres.get("position") or 0)
    return worker.get("projector") == "running" and behind <= 0


class Looker:
    """One look at the stack's agent."""

    def __init__(
        self, place: DatabasePlace, docker: DockerHost, compose: ComposeProject, clock: Clock = SYSTEM_CLOCK
    ) -> None:
        """Name where the stack lies; nothing is touched yet."""
        self.place = place
        self.docker = docker
        self.compose = compose
        self._clock = clock

    def look(self) -> Observed:
        """Look at everything, as far as it can be looked at."""
        try:
            env = env_file.read_env(self.place.env_path)
            env_file.require(env, ENV_NAMES, str(self.place.env_path))
        except WhatsAgentError as error:
            return Observed(env_error=error.message)
        try:
            with ThreadPoolExecutor(max_workers=2) as pool:
                wanted, hashes = pool.submit(self.compose.replicas), pool.submit(self.compose.hashes)
                seen = self._patiently(env)
        except WhatsAgentError as error:
            return Observed(engine_error=error.message)
        try:
            services, replicas = hashes.result(), wanted.result()
        except WhatsAgentError as error:
            return Observed(env_error=error.message)
        return replace(
            seen,
            wanted={name: replicas[name] for name in SERVICES if name in replicas},
            outdated=tuple(c.name for c in seen.containers if c.labels_hash != services.get(c.service, c.labels_hash)),
        )

    def _patiently(self, env: dict[str, str]) -> Observed:
        """Look; once more if a container went away while it was looked at."""
        try:
            return self._look_inside(env)
        except WhatsAgentError:
            self._clock.sleep(AGAIN_S)
            return self._look_inside(env)

    def _look_inside(self, env: dict[str, str]) -> Observed:
        states = [s for s in self.docker.containers(self.place.project) if s.service in SERVICES]
        with ThreadPoolExecutor(max_workers=12) as pool:
            return self._look_at(pool, env, states)

    def _look_at(self, pool: ThreadPoolExecutor, env: dict[str, str], states: list[ContainerState]) -> Observed:
        secrets = tuple(secrets_of(env))
        answer_s = ANSWER_S * patience(os.getloadavg()[0], os.cpu_count() or 1)
        image = pool.submit(self.docker.image_id, f"whats_agent/app:{env['RELEASE']}")
        views = [pool.submit(view, self.docker, state, secrets) for state in states]
        running = {s.name: s for s in states if s.service == "app" and s.running and s.addresses}
        asked = {name: pool.submit(ask_replica, _address(state), answer_s) for name, state in running.items()}
        nginx = [s for s in states if s.service == "nginx" and s.running and s.addresses]
        front = pool.submit(ask, _address(nginx[-1]), APP_PORT, "/nginx_alive", answer_s) if nginx else None
        free = pool.submit(self._log_free, states)
        containers = tuple(future.result() for future in views)
        answers = {name: future.result() for name, future in asked.items()}
        parts = next((found for _answer, found in answers.values() if found is not None), None)
        moved, parts = self._watch_projection(running, parts)
        holders, holders_error = self._holders(env) if moved is False else ((), None)
        return Observed(
            image_missing=None if image.result() else f"whats_agent/app:{env['RELEASE']}",
            containers=containers,
            answers={name: answer for name, (answer, _parts) in answers.items()},
            front=front.result()[0] if front else None,
            parts=parts,
            moved=moved,
            holders=holders,
            holders_error=holders_error,
            log_free=free.result(),
        )

    def _log_free(self, states: list[ContainerState]) -> int | None:
        """Return the bytes free under the message log."""
        names = {s.mounts[LOG_VOLUME_PATH] for s in states if LOG_VOLUME_PATH in s.mounts}
        for name in names:
            volume = self.docker.volume(name)
            if volume is not None and Path(volume.mountpoint).is_dir():
                return free_bytes(Path(volume.mountpoint))
        return None

    def _watch_projection(
        self, running: dict[str, ContainerState], parts: dict[str, Any] | None
    ) -> tuple[bool | None, dict[str, Any] | None]:
        """Give a projection that lags a few seconds to move; return whether it did, and the freshest view of the parts."""
        state = projects(parts)
        first = ((parts or {}).get("postgres") or {}).get("position")
        deadline = self._clock.boottime() + PROJECTION_S
        while state is False and self._clock.boottime() < deadline:
            self._clock.sleep(0.5)
            for container in running.values():
                _answer, fresh = ask_replica(_address(container), ANSWER_S)
                if fresh is None:
                    continue
                parts, state = fresh, projects(fresh)
                position = (fresh.get("postgres") or {}).get("position")
                if state is False and position is not None and position != first:
                    return True, parts
                break
        return state, parts

    def _holders(self, env: dict[str, str]) -> tuple[tuple[Holder, ...], str | None]:
        """Return the sessions that hold the projector's lock, or what it waits for, without being a projector.

        Where PostgreSQL cannot be asked, the second value says why.
        """
        query = """
            select distinct a.pid, coalesce(a.application_name, ''), coalesce(a.usename, ''), how
            from (select pid, 'holds the projector''s lock' as how from pg_locks
                    where locktype = 'advisory' and granted and ((classid::bigint << 32) | objid::bigint) = %(lock)s
                  union all
                  select unnest(pg_blocking_pids(pid)), 'blocks the projector' from pg_stat_activity
                    where application_name = %(projector)s and wait_event_type = 'Lock') held
            join pg_stat_activity a using (pid)
            where coalesce(a.application_name, '') <> %(projector)s
        """
        try:
            with database(self.place, env["DB_NAME"], statement_timeout_s=3) as admin:
                rows = admin.execute(query, {"lock": PROJECTOR_LOCK, "projector": PROJECTOR}).fetchall()
        except WhatsAgentError as error:
            return (), error.message
        return tuple(Holder(int(pid), application, user, how) for pid, application, user, how in rows), None


def _address(state: ContainerState) -> str:
    return next(iter(state.addresses.values()))
