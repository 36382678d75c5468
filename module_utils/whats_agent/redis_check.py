# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether Redis serves: over its own command line in the container, and as the agent sees it through nginx."""

from __future__ import annotations

import http.client
import json
import uuid
from typing import TYPE_CHECKING, Any

from .clock import SYSTEM_CLOCK, Clock
from .errors import WhatsAgentError
from .redis_host import CACHE, SERVICE
from .redis_storm import judge, sample

if TYPE_CHECKING:
    from .docker_host import DockerHost

CLI_S = 5.0
HEALTH_S = 8.0
PROBE_TTL_S = 10
# Old keys make room one by one, so that a write may find memory a little over the limit.
TOLERANCE = 1.02
WINDOW_S = 1.0
# The moment in which memory becomes full looks well: neither does it grow by much, nor have many keys gone yet.
GOOD_LOOKS = 2
_PAUSE_S = 0.3


def parse_info(text: str) -> dict[str, str]:
    """Read `INFO` as redis-cli prints it."""
    pairs = (line.strip().split(":", 1) for line in text.splitlines() if ":" in line and not line.startswith("#"))
    return {pair[0]: pair[1] for pair in pairs}


def judge_memory(info: dict[str, str]) -> dict[str, Any]:
    """Hold the memory used against the limit."""
    used, limit = int(info.get("used_memory", 0)), int(info.get("maxmemory", 0))
    ok = 0 < used <= limit * TOLERANCE
    return {"name": "memory", "ok": ok, "detail": f"{used} of {limit or 'no limit'} bytes"}


def judge_agent(status: int | None, body: bytes, error: str = "") -> dict[str, Any]:
    """Tell whether the agent says that it can use Redis."""
    try:
        part = json.loads(body)["parts"]["redis"]
        state = str(part["state"])
    except (ValueError, KeyError, TypeError):
        return {"name": "agent", "ok": False, "detail": error or f"HTTP {status} without a word about Redis"}
    return {"name": "agent", "ok": state == "up", "detail": " ".join([state, str(part.get("reason") or "")]).strip()}


def check_write(docker: DockerHost, container: str) -> dict[str, Any]:
    """Write a key that may vanish, and read it back."""
    key, nonce = f"{CACHE}probe", uuid.uuid4().hex
    for argv, wanted in ((["SET", key, nonce, "EX", str(PROBE_TTL_S)], "OK"), (["GET", key], nonce)):
        answer = docker.execute(container, ["redis-cli", *argv], timeout=CLI_S)
        said = (answer.stdout or answer.stderr).strip()
        if said != wanted:
            return {"name": "write", "ok": False, "detail": f"{argv[0]}: {said[:200]}"}
    return {"name": "write", "ok": True, "detail": "written and read back"}


def ask_agent(port: int) -> dict[str, Any]:
    """Ask the agent's health through nginx on the loopback."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=HEALTH_S)
    try:
        connection.request("GET", "/health")
        response = connection.getresponse()
        return judge_agent(response.status, response.read())
    except (OSError, http.client.HTTPException) as error:
        return judge_agent(None, b"", f"{type(error).__name__}: {error}")
    finally:
        connection.close()


def check_evictions(
    docker: DockerHost, container: str, info: dict[str, str], clock: Clock, *, room: bool
) -> dict[str, Any] | None:
    """Watch whether keys are evicted as fast as they come; with `room`, whether the room that was made lasts, too.

    None where there is nothing to watch: memory is not nearly full, or no key has ever had to go.
    """
    first = sample(info, clock.boottime())
    if not room and not (first.nearly_full and first.evicted):
        return None
    clock.sleep(WINDOW_S)
    second = sample(ask_info(docker, container), clock.boottime())
    ok, detail = judge(first, second, room=room)
    return {"name": "evictions", "ok": ok, "detail": detail}


def ask_info(docker: DockerHost, container: str) -> dict[str, str]:
    """Ask for `INFO` by the command line in the container."""
    answer = docker.execute(container, ["redis-cli", "INFO"], timeout=CLI_S)
    info = parse_info(answer.stdout)
    if "used_memory" not in info:
        raise WhatsAgentError(f"redis-cli INFO: {(answer.stdout or answer.stderr).strip()[:200]}")
    return info


def check_once(
    docker: DockerHost, project: str, port: int, clock: Clock = SYSTEM_CLOCK, *, room: bool = False
) -> list[dict[str, Any]]:
    """Look once; with `room`, also for whether the room that was made lasts."""
    try:
        container = docker.require_running(project, SERVICE)
        write = check_write(docker, container.id)
        info = ask_info(docker, container.id)
        evictions = check_evictions(docker, container.id, info, clock, room=room)
        checks = [write, judge_memory(info), *([evictions] if evictions else [])]
    except WhatsAgentError as error:
        checks = [{"name": "write", "ok": False, "detail": error.message}]
    return [*checks, ask_agent(port)]


def wait_for_checks(
    docker: DockerHost, project: str, port: int, wait_s: float, clock: Clock = SYSTEM_CLOCK, *, room: bool = False
) -> list[dict[str, Any]]:
    """Look until all is well or `wait_s` seconds are over; return the last look. With `room`, all must be well twice in a row."""
    deadline = clock.boottime() + wait_s
    good = 0
    while True:
        checks = check_once(docker, project, port, clock, room=room)
        good = good + 1 if all(check["ok"] for check in checks) else 0
        if good >= (GOOD_LOOKS if room else 1) or clock.boottime() >= deadline:
            return checks
        clock.sleep(_PAUSE_S)
