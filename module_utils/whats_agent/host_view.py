# SPDX-License-Identifier: GPL-3.0-or-later
"""One host as an operator asks about it: lock, breakers, mutes, runs, health, alerts, backups. Looks only.

A part that cannot be seen says why under `problem`; it never hides the others.
"""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from .breaker import Breaker, components
from .clock import SYSTEM_CLOCK, Clock
from .control import decisions, mutes
from .docker_host import DockerHost
from .errors import WhatsAgentError
from .journal import read_events, run_path, runs
from .lock import HostLock
from .pgbackrest import info_argv, parse_info

PARTS = ("lock", "breakers", "mutes", "runs", "decisions", "containers", "health", "alerts", "backup")
_HTTP_TIMEOUT = 5


class HostView:
    """What can be asked of a host."""

    def __init__(
        self,
        state_dir: Path,
        *,
        project: str,
        url: str,
        limit: int = 10,
        threshold: int = 3,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        """`url` is the host's own plain listener; `limit` bounds lists."""
        self._state_dir = state_dir
        self._project = project
        self._url = url.rstrip("/")
        self._limit = limit
        self._threshold = threshold
        self._clock = clock
        self._docker = DockerHost(timeout=10)

    def look(self, parts: list[str]) -> dict[str, Any]:
        """Return the parts asked for, by name."""
        ways: dict[str, Callable[[], Any]] = {
            "lock": self._lock,
            "breakers": self._breakers,
            "mutes": lambda: [asdict(mute) for mute in mutes(self._state_dir, self._clock)],
            "runs": lambda: [asdict(run) for run in runs(self._state_dir, self._limit)],
            "decisions": lambda: decisions(self._state_dir, self._limit),
            "containers": self._containers,
            "health": lambda: self._get("/health"),
            "alerts": lambda: self._get("/production/alerts/active"),
            "backup": self._backup,
        }
        seen: dict[str, Any] = {}
        for part in parts:
            try:
                seen[part] = ways[part]()
            except WhatsAgentError as error:
                seen[part] = {"problem": error.message}
        return seen

    def events(self, run_id: str, after: int = 0) -> list[dict[str, Any]]:
        """Return a run's events from the given number on."""
        return read_events(run_path(self._state_dir, run_id))[after:]

    def _lock(self) -> dict[str, Any] | None:
        lock = HostLock(self._state_dir, clock=self._clock)
        lease = lock.read()
        if lease is None:
            return None
        same_boot = lease.boot_id == self._clock.boot_id()
        age = round(self._clock.boottime() - lease.beat, 1) if same_boot else None
        return {**asdict(lease), "dead": lock.is_dead(lease), "seconds_since_heartbeat": age}

    def _breakers(self) -> list[dict[str, Any]]:
        names = components(self._state_dir)
        found = [Breaker(self._state_dir, name, threshold=self._threshold).read() for name in names]
        return [state.as_dict() for state in found if state.failures]

    def _containers(self) -> list[dict[str, Any]]:
        shown = ("service", "name", "status", "health", "exit_code", "oom_killed", "restart_count", "started_at")
        found = self._docker.containers(self._project)
        return [{name: getattr(state, name) for name in shown} for state in found]

    def _get(self, path: str) -> Any:
        url = self._url + path
        try:
            with urllib.request.urlopen(url, timeout=_HTTP_TIMEOUT) as response:  # noqa: S310 (the module checks the scheme)
                body = response.read()
        except urllib.error.HTTPError as error:
            body = error.read()
            if error.code == 404:
                raise WhatsAgentError(f"{url} answered HTTP 404") from error
        except (OSError, ValueError) as error:
            raise WhatsAgentError(f"{url}: {getattr(error, 'reason', error)}") from error
        try:
            return json.loads(body)
        except ValueError as error:
            raise WhatsAgentError(f"{url} did not answer JSON") from error

    def _backup(self) -> dict[str, Any]:
        container = self._docker.require_running(self._project, "postgres")
        answer = self._docker.execute(container.id, info_argv(), user="postgres", timeout=20)
        repository = parse_info(answer.stdout)
        if repository.problem:
            raise WhatsAgentError(repository.problem)
        now = self._clock.wall()
        last = repository.backups[-1]
        proven = [backup for backup in repository.backups if backup.proven]
        return {
            "last": {"label": last.label, "type": last.type, "seconds_old": round(last.age(now)), "error": last.error},
            "proven": {"label": proven[-1].label, "seconds_old": round(proven[-1].age(now))} if proven else None,
            "count": len(repository.backups),
            "off_host": repository.off_host,
        }
