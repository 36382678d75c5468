# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether every container of the agent is there and well by its own check, run inside it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from .clock import SYSTEM_CLOCK, Clock
from .errors import WhatsAgentError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .docker_host import ContainerState, DockerHost

# Each service's own check. Its exit code counts.
CHECKS = {
    "app": ("whats-agent", "healthcheck", "app"),
    "worker": ("whats-agent", "healthcheck", "worker"),
    "nginx": ("whats-nginx", "alive"),
}
CHECK_S = 6.0
_PAUSE_S = 0.3


def own_check(docker: DockerHost, state: ContainerState) -> str:
    """Run a container's own check inside it; return why it is not well, or nothing."""
    if not state.running:
        return f"is {state.status}"
    try:
        answer = docker.execute(state.id, CHECKS[state.service], timeout=CHECK_S)
    except WhatsAgentError as error:
        return error.message
    if answer.exit_code == 0:
        return ""
    lines = (answer.stderr or answer.stdout).strip().splitlines()
    return lines[-1] if lines else f"its own check exits {answer.exit_code}"


def check_all(docker: DockerHost, project: str, wanted: Mapping[str, int]) -> list[dict[str, Any]]:
    """Look once: a check a container, and one for each service that has fewer than it should."""
    states = [state for state in docker.containers(project) if state.service in CHECKS]
    with ThreadPoolExecutor(max_workers=8) as pool:
        problems = list(pool.map(lambda state: own_check(docker, state), states))
    checks = [
        {"name": state.name, "ok": not problem, "detail": problem or "well"}
        for state, problem in zip(states, problems, strict=True)
    ]
    for service in CHECKS:
        count = sum(state.service == service for state in states)
        if count < wanted.get(service, 0):
            checks.append({"name": service, "ok": False, "detail": f"{count} of {wanted[service]} containers"})
    return checks


def wait_for_checks(
    docker: DockerHost, project: str, wanted: Mapping[str, int], wait_s: float, clock: Clock = SYSTEM_CLOCK
) -> list[dict[str, Any]]:
    """Look until all is well or `wait_s` seconds are over; return the last look."""
    deadline = clock.boottime() + wait_s
    while True:
        checks = check_all(docker, project, wanted)
        if all(check["ok"] for check in checks) or clock.boottime() >= deadline:
            return checks
        clock.sleep(_PAUSE_S)
