# SPDX-License-Identifier: GPL-3.0-or-later
"""Bring services to the configuration in the files: only those that run with another one, the agent's replicas one by one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from . import config_drift
from .clock import SYSTEM_CLOCK, Clock
from .config_drift import HASH_LABEL, Drift
from .config_files import read_files
from .errors import WhatsAgentError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .config_drift import Wanted
    from .config_observe import ConfigPlace
    from .docker_host import ContainerState, DockerHost
    from .lock import Heart, Idle

# What others need comes first; nginx last, since it is what clients see.
ORDER = ("redis", "postgres", "wal_receiver", "worker", "app", "nginx")
# While a restore is unfinished these are stopped on purpose, and playbooks/recover_db.yml starts them again.
_FENCED = frozenset(["postgres", "wal_receiver", "worker"])
_STOP_S = 45
_RELOAD_S = 20


@dataclass
class Applier:
    """What `apply` works with. `deadline_s` is how long a service may take to become healthy."""

    place: ConfigPlace
    docker: DockerHost
    heart: Heart | Idle
    deadline_s: int = 90
    clock: Clock = SYSTEM_CLOCK

    def apply(self, touched: frozenset[str], *, restoring: bool) -> list[str]:
        """Bring all services to the files; `touched` are those that read a file which was just replaced.

        Returns what was done, a phrase each.
        """
        wanted = config_drift.read_wanted(self.place.stack_dir, self.place.project)
        done: list[str] = []
        for service in ORDER:
            if service not in wanted.hashes or (restoring and service in _FENCED):
                continue
            self.heart.check()
            if service == "app":
                done += self._roll(wanted)
            else:
                done += self._settle(service, wanted, service in touched)
        return [*done, *self._reload_nginx(wanted)]

    def _containers(self, service: str) -> list[ContainerState]:
        return self.docker.containers(self.place.project, service)

    def _settle(self, service: str, wanted: Wanted, touched: bool) -> list[str]:
        """Recreate or restart a service of one container, if it has to be."""
        containers = self._containers(service)
        drift = config_drift.of_containers(wanted, containers, read_files(self.place.stack_dir))
        drift += config_drift.of_mounts(self.place.stack_dir, self.docker, containers)
        mine = next((entry for entry in drift if entry.service == service), None)
        if mine is None and not touched:
            return []
        # One that runs is left alone, healthy or not: it runs with these files, and how it does is for other runbooks.
        if mine is None and any(state.running for state in containers):
            return []
        force = [] if mine is not None and mine.how == "recreate" else ["--force-recreate"]
        self._up(service, *force)
        return [f"{service} recreated" if containers else f"{service} started"]

    def _up(self, service: str, *options: str) -> None:
        arguments = ["up", "--detach", "--no-deps", "--no-build", "--wait", f"--wait-timeout={self.deadline_s}"]
        config_drift.compose_output(
            self.place.stack_dir, self.place.project, [*arguments, *options, service], timeout=self.deadline_s + 60
        )

    def _roll(self, wanted: Wanted) -> list[str]:
        """Replace the agent's replicas one at a time, a new healthy one before each old one goes: webhooks get their 200."""
        replicas = wanted.replicas["app"]
        replaced = 0
        while True:
            self.heart.check()
            containers = self._containers("app")
            fresh = [s for s in containers if s.labels.get(HASH_LABEL) == wanted.hashes["app"]]
            serving = [s for s in containers if s.running and s.health == "healthy"]
            victim = next_to_go(containers, fresh, serving, replicas)
            if victim is not None:
                self._remove(victim)
                replaced += 1
            elif len(fresh) < replicas:
                self._up("app", "--no-recreate", f"--scale=app={len(containers) + 1}")
                if len(self._containers("app")) <= len(containers):
                    raise WhatsAgentError(
                        f"compose made no further replica of app beside {len(containers)}",
                        pt=f"o compose não criou outra réplica de app além de {len(containers)}",
                    )
                replaced += not containers
            else:
                return [f"app replaced, {replaced} of {replicas} replicas, one at a time"] if replaced else []

    def _remove(self, container: ContainerState) -> None:
        """Stop a replica in order, so that what it is answering is answered, and remove it."""
        self.docker.stop(container.id, grace=_STOP_S)
        self.docker.remove_container(container.id)

    def _reload_nginx(self, wanted: Wanted) -> list[str]:
        """Have a running nginx read its files anew when it runs with others, and wait until it does."""
        running = [state for state in self._containers("nginx") if state.running]
        if not running:
            return []
        if not self._nginx_drift(wanted):
            return []
        tested = self.docker.execute(running[-1].id, ["whats-nginx", "check"], timeout=20)
        if tested.exit_code != 0:
            raise WhatsAgentError(
                f"nginx refuses the configuration: {tested.stderr.strip()[-400:]}",
                pt=f"o nginx recusa a configuração: {tested.stderr.strip()[-400:]}",
            )
        self.docker.signal(running[-1].id, "HUP")
        deadline = self.clock.boottime() + _RELOAD_S
        while left := self._nginx_drift(wanted):
            if self.clock.boottime() >= deadline:
                raise WhatsAgentError(
                    f"nginx did not take its configuration within {_RELOAD_S} s: it {left[0].why}",
                    pt=f"o nginx não adotou sua configuração em {_RELOAD_S} s: {left[0].why}",
                )
            self.clock.sleep(0.2)
        return ["nginx reloaded"]

    def _nginx_drift(self, wanted: Wanted) -> list[Drift]:
        return config_drift.of_nginx(wanted, read_files(self.place.stack_dir))


def next_to_go(
    containers: Sequence[ContainerState],
    fresh: Sequence[ContainerState],
    serving: Sequence[ContainerState],
    replicas: int,
) -> ContainerState | None:
    """Return the replica to remove now, or None while a new one has to come first. Pure.

    One that serves nobody goes at once; one that serves only when enough others do.
    """
    old = [state for state in containers if state not in fresh]
    idle = next((state for state in old if state not in serving), None)
    if idle is not None:
        return idle
    if old and len(serving) > replicas:
        return old[0]
    if not old and len(containers) > replicas:
        return next((state for state in containers if state not in serving), containers[-1])
    return None
