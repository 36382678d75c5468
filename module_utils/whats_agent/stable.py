# SPDX-License-Identifier: GPL-3.0-or-later
"""The stable window after a remedy: what restarts, stops or turns unhealthy meanwhile has not recovered."""

from __future__ import annotations

from collections.abc import Sequence

from .clock import SYSTEM_CLOCK, Clock
from .docker_host import ContainerState, DockerHost


def unstable(before: Sequence[ContainerState], after: Sequence[ContainerState]) -> list[str]:
    """Return what did not stand between two looks, in words. Containers that only one look saw are verification's matter."""
    later = {state.id: state for state in after}
    found = []
    for state in before:
        now = later.get(state.id)
        if now is None:
            continue
        if now.restart_count > state.restart_count or (state.running and now.started_at != state.started_at):
            found.append(f"{state.service} restarted (exit code {now.exit_code})")
        elif state.running and not now.running:
            found.append(f"{state.service} is {now.status} (exit code {now.exit_code})")
        elif state.health == "healthy" and now.health == "unhealthy":
            found.append(f"{state.service} turned unhealthy")
    return found


def watch(host: DockerHost, project: str, seconds: float, clock: Clock = SYSTEM_CLOCK) -> list[str]:
    """Let the window pass and return what did not stand."""
    before = host.containers(project)
    clock.sleep(seconds)
    return unstable(before, host.containers(project))
