# SPDX-License-Identifier: GPL-3.0-or-later
"""What one look at a service's containers shows, and what each of them suffers from. Shared by the components' diagnoses."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from .errors import WhatsAgentError
from .postgres_observe import parse_docker_time
from .redact import redact_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from .docker_host import ContainerState, DockerHost, Process

LOG_LINES = 40
LOG_SHOWN = 6
LINE_LENGTH = 300
# A container that was restarted and is younger than this has not proven that it stays.
CRASH_UPTIME_S = 60.0
CRASH_RESTARTS = 3
ENDED_BY_ORDER = (0, 130, 137, 143)


@dataclass(frozen=True)
class ContainerView:
    """One container. `uptime` is seconds since its last start, `memory_limit` bytes (0: none), `log` its last lines with
    secrets hidden (only of one that does not run well), `stopped` the host's ids of processes that a signal stopped.
    """

    id: str
    name: str
    service: str
    status: str
    exit_code: int
    oom_killed: bool
    restart_count: int
    health: str | None
    error: str
    uptime: float | None
    memory_limit: int
    addresses: tuple[str, ...] = ()
    labels_hash: str = ""
    log: tuple[str, ...] = ()
    processes: int = 0
    stopped: tuple[int, ...] = ()

    @property
    def running(self) -> bool:
        """Whether its main process runs and is not frozen."""
        return self.status == "running"

    @property
    def crashing(self) -> bool:
        """Whether it starts and dies again."""
        return self.status == "restarting" or (self.restart_count >= CRASH_RESTARTS and self.restarted_lately)

    @property
    def restarted_lately(self) -> bool:
        """Whether the engine had to start it again a moment ago: if it does not answer, it is about to die again."""
        return self.restart_count > 0 and (self.uptime or 0.0) < CRASH_UPTIME_S

    @property
    def fault(self) -> str | None:
        """Return what it suffers from as far as the engine can tell: one word, or None."""
        if self.status == "paused":
            return "paused"
        if self.crashing:
            return "out_of_memory" if self.oom_killed else "crash_loop"
        if not self.running:
            if self.oom_killed:
                return "out_of_memory"
            return "stopped" if self.status == "created" or self.exit_code in ENDED_BY_ORDER else "exited"
        return "processes_stopped" if self.stopped else None

    def describe(self) -> str:
        """Return its state in one phrase."""
        words = [f"{self.name} is {self.status}"]
        if not self.running and self.status != "paused":
            words.append(f"exit code {self.exit_code}")
        if self.restart_count:
            words.append(f"{self.restart_count} restarts")
        if self.oom_killed:
            words.append("killed for memory")
        if self.stopped:
            words.append(f"{len(self.stopped)} of {self.processes} processes stopped by a signal")
        if self.running and self.health == "unhealthy":
            words.append("unhealthy")
        if self.error:
            words.append(self.error)
        return ", ".join(words)


CONFIG_HASH_LABEL = "com.docker.compose.config-hash"


def age_of(moment: str, now: datetime | None = None) -> float | None:
    """Return the seconds since one of the engine's times; None for its zero time."""
    parsed = parse_docker_time(moment)
    if parsed is None:
        return None
    return ((now or datetime.now(UTC)) - parsed).total_seconds()


def masked_lines(text: str, secrets: Iterable[str], count: int = LOG_SHOWN) -> tuple[str, ...]:
    """Return the last lines of a log that say something, secrets hidden."""
    known = tuple(secrets)
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return tuple(redact_text(line, known)[:LINE_LENGTH] for line in lines[-count:])


def view(docker: DockerHost, state: ContainerState, secrets: Iterable[str]) -> ContainerView:
    """Look at one container: its processes while it runs, its last words when it does not run well."""
    looked = _facts(state)
    if looked.running and not looked.crashing:
        try:
            looked = _with_processes(looked, docker.processes(state.id))
        except WhatsAgentError:
            # It may have ended since it was listed, which is what has to be said of it then.
            now = docker.inspect_if_present(state.id)
            if now is None or now.running:
                raise
            looked = _facts(now)
    unwell = not looked.running or looked.restarted_lately or looked.health == "unhealthy"
    if looked.status != "created" and unwell:
        return replace(looked, log=masked_lines(docker.logs(state.id, tail=LOG_LINES), secrets))
    return looked


def _facts(state: ContainerState) -> ContainerView:
    return ContainerView(
        id=state.id,
        name=state.name,
        service=state.service,
        status=state.status,
        exit_code=state.exit_code,
        oom_killed=state.oom_killed,
        restart_count=state.restart_count,
        health=state.health,
        error=state.error,
        uptime=age_of(state.started_at),
        memory_limit=state.memory_limit,
        addresses=tuple(state.addresses.values()),
        labels_hash=state.labels.get(CONFIG_HASH_LABEL, ""),
    )


def _with_processes(looked: ContainerView, processes: Sequence[Process]) -> ContainerView:
    stopped = tuple(process.pid for process in processes if process.state.startswith("T"))
    return replace(looked, processes=len(processes), stopped=stopped)
