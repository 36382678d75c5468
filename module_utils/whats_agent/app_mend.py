# SPDX-License-Identifier: GPL-3.0-or-later
"""Mend the agent's containers: start what stands still, restart or replace what is ill, one at a time.

`steps_of` decides from one look and runs nothing; `Mender` does the steps. The other replica answers all the while: the next
container is touched only once this one is well, or has had its time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from .app_causes import Ill, find, ill_containers
from .app_check import own_check
from .clock import SYSTEM_CLOCK, Clock
from .errors import WhatsAgentError
from .postgres_host import database

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .app_observe import Looker, Observed

REMEDIES = ("start", "restart", "recreate", "release")
ORDERLY_GRACE_S = 40  # compose's own: an agent that works ends within it
HUNG_GRACE_S = 3  # what does not answer does not end in order either; what it acknowledged is on the disk
_PAUSE_S = 0.3


@dataclass(frozen=True)
class Step:
    """One thing to do. `what` is one of unpause, start, wake, create, restart, recreate, terminate."""

    what: str
    service: str
    name: str = ""
    grace: int = ORDERLY_GRACE_S
    pids: tuple[int, ...] = ()

    def describe(self) -> str:
        """Return it in words."""
        if self.what == "terminate":
            return f"end the session {self.pids[0]}, which keeps the worker from projecting"
        if self.what == "create":
            return f"create the missing containers of {self.service}"
        return f"{self.what} {self.name}"


_STARTS = {"paused": "unpause", "stopped": "start", "exited": "start", "processes_stopped": "wake", "missing": "create"}


def steps_of(seen: Observed, remedy: str) -> list[Step]:
    """Return what a remedy does about what was seen, in order."""
    if remedy == "release":
        return [Step("terminate", "postgres", pids=(holder.pid,)) for holder in seen.holders]
    ill = _whom(seen)
    by_name = {view.name: view for view in seen.containers}
    steps: list[Step] = []
    if remedy == "start":
        for one in ill:
            what = _STARTS.get(one.fault)
            if what == "create":
                steps.append(Step("create", one.service))
            elif what is not None:
                steps.append(Step(what, one.service, one.name, pids=by_name[one.name].stopped))
        return _once(steps)
    for one in ill:
        if one.fault == "missing":
            steps.append(Step("create", one.service))
        else:
            grace = ORDERLY_GRACE_S if one.fault in ("not_projecting", "message_log_down") else HUNG_GRACE_S
            steps.append(Step(remedy, one.service, one.name, grace))
    return _once(steps)


def _whom(seen: Observed) -> Sequence[Ill]:
    """Return the containers to mend: those that are ill by themselves, else those that the finding is about."""
    return ill_containers(seen) or find(seen).ill


def _once(steps: Sequence[Step]) -> list[Step]:
    return list(dict.fromkeys(steps))


class Mender:
    """Does steps. `beat` is called between waits and raises once another run holds the host."""

    def __init__(
        self, looker: Looker, beat: Callable[[], None], *, deadline_s: float, clock: Clock = SYSTEM_CLOCK
    ) -> None:
        """`deadline_s` is how long a container may take until its own check passes."""
        self._looker = looker
        self._docker = looker.docker
        self._project = looker.place.project
        self._beat = beat
        self._deadline_s = deadline_s
        self._clock = clock

    def apply(self, steps: Sequence[Step], database_name: str) -> None:
        """Do the steps, one after the other; the wait for a container ends before the next is touched."""
        for step in steps:
            self._beat()
            if step.what == "terminate":
                self._terminate(step.pids[0], database_name)
            elif step.what == "create":
                self._looker.compose.fill(step.service)
            else:
                self._do(step)
            if step.what in ("restart", "recreate", "create"):
                self.wait_well(step.service)
        for service in dict.fromkeys(s.service for s in steps if s.what in ("unpause", "start", "wake")):
            self.wait_well(service)

    def _do(self, step: Step) -> None:
        container = next((s for s in self._docker.containers(self._project, step.service) if s.name == step.name), None)
        if container is None:
            raise WhatsAgentError(
                f"{step.name} is gone: somebody else is at work on this server",
                pt=f"{step.name} desapareceu: outra pessoa está trabalhando neste servidor",
                container=step.name,
            )
        if step.what == "unpause":
            self._docker.unpause(container.id)
        elif step.what == "start":
            self._docker.start(container.id)
        elif step.what == "wake":
            self._docker.wake(container.id)
        elif step.what == "restart":
            if container.status == "paused":
                self._docker.unpause(container.id)
            self._docker.restart(container.id, grace=step.grace)
        else:
            if container.running:
                self._docker.stop(container.id, grace=step.grace)
            self._docker.remove_container(container.id)
            self._looker.compose.fill(step.service)

    def _terminate(self, pid: int, database_name: str) -> None:
        with database(self._looker.place, database_name) as admin:
            admin.execute("select pg_terminate_backend(%s, 5000)", (pid,))

    def wait_well(self, service: str) -> None:
        """Wait until a service's running containers say that they are well; running out of time is verification's matter."""
        deadline = self._clock.boottime() + self._deadline_s
        while self._clock.boottime() < deadline:
            states = self._docker.containers(self._project, service)
            if states and not any(own_check(self._docker, state) for state in states):
                return
            self._beat()
            self._clock.sleep(_PAUSE_S)
