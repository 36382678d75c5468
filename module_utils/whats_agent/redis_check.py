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

if TYPE_CHECKING:
    from .docker_host import DockerHost

CLI_S = 5.0
HEALTH_S = 8.0
PROBE_TTL_S = 10
# Old keys make room one by one, so that a write may find memory a little over the limit.
TOLERANCE = 1.02
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


def check_once(docker: DockerHost, project: str, port: int) -> list[dict[str, Any]]:
    """Look once."""
    try:
        container = docker.require_running(project, SERVICE)
        write = check_write(docker, container.id)
        answer = docker.execute(container.id, ["redis-cli", "INFO", "memory"], timeout=CLI_S)
        checks = [write, judge_memory(parse_info(answer.stdout))]
    except WhatsAgentError as error:
        checks = [{"name": "write", "ok": False, "detail": error.message}]
    return [*checks, ask_agent(port)]


def wait_for_checks(
    docker: DockerHost, project: str, port: int, wait_s: float, clock: Clock = SYSTEM_CLOCK
) -> list[dict[str, Any]]:
    """Look until all is well or `wait_s` seconds are over; return the last look."""
    deadline = clock.boottime() + wait_s
    while True:
        checks = check_once(docker, project, port)
        if all(check["ok"] for check in checks) or clock.boottime() >= deadline:
            return checks
        clock.sleep(_PAUSE_S)
