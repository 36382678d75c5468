# SPDX-License-Identifier: GPL-3.0-or-later
"""How far the message log is projected into PostgreSQL, as the agent itself says."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

from .clock import SYSTEM_CLOCK, Clock
from .docker_host import DockerHost
from .errors import WhatsAgentError

COUNTS = ("log_last_id", "projected_id", "lag", "queued", "in_flight")
_COMMAND_TIMEOUT = 10.0
_PAUSE = 0.3


@dataclass(frozen=True)
class Replay:
    """How a wait ended. `status` has the keys of COUNTS; `target_id` is what had to be reached."""

    ok: bool
    status: dict[str, int] | None
    target_id: int | None
    problem: str
    seconds: float

    def as_dict(self) -> dict[str, Any]:
        """Return JSON-able data."""
        return asdict(self)


def parse_status(stdout: str) -> dict[str, int]:
    """Return the counts that `whats-agent replay-status` printed."""
    try:
        value = json.loads(stdout)
        return {name: int(value[name]) for name in COUNTS}
    except (ValueError, TypeError, KeyError) as error:
        raise WhatsAgentError(f"replay-status answered something else: {stdout.strip()[:200]!r}") from error


def read_status(host: DockerHost, project: str, service: str) -> dict[str, int]:
    """Ask the running container of a service once."""
    container = host.require_running(project, service)
    answer = host.execute(container.id, ["whats-agent", "replay-status"], timeout=_COMMAND_TIMEOUT)
    if answer.exit_code != 0:
        last = (answer.stderr.strip().splitlines() or ["no message"])[-1]
        raise WhatsAgentError(f"replay-status failed in {container.name}: {last}", rc=answer.exit_code)
    return parse_status(answer.stdout)


def wait_for_replay(
    host: DockerHost, project: str, service: str, *, timeout: float, clock: Clock = SYSTEM_CLOCK
) -> Replay:
    """Wait until what the log held at the first answer is projected. Running out of time is a result, not an error."""
    started = clock.boottime()
    status: dict[str, int] | None = None
    target: int | None = None
    problem = ""
    while True:
        try:
            status = read_status(host, project, service)
        except WhatsAgentError as error:
            problem = error.message
        else:
            problem = ""
            target = status["log_last_id"] if target is None else target
            if status["projected_id"] >= target:
                return Replay(True, status, target, "", round(clock.boottime() - started, 2))
        if clock.boottime() + _PAUSE >= started + timeout:
            return Replay(False, status, target, problem, round(clock.boottime() - started, 2))
        clock.sleep(_PAUSE)
