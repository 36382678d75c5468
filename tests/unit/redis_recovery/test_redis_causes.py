# SPDX-License-Identifier: GPL-3.0-or-later
"""From what was seen to the cause: captured observations of a Redis that was really broken, and variations of them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.whats_agent import redis_causes as causes
from ansible.module_utils.whats_agent.container_view import ContainerView
from ansible.module_utils.whats_agent.plan import check_diagnosis
from ansible.module_utils.whats_agent.redis_host import Wanted
from ansible.module_utils.whats_agent.redis_keys import Census, Family
from ansible.module_utils.whats_agent.redis_observe import DAMAGED, Observed, Server

DATA = Path(__file__).parent / "data"


def seen(name: str) -> Observed:
    """Load a captured observation."""
    raw: dict[str, Any] = json.loads((DATA / f"{name}.json").read_text(encoding="utf-8"))
    raw["wanted"] = Wanted(**raw["wanted"])
    if raw["container"]:
        facts: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in raw["container"].items()
        }
        raw["container"] = ContainerView(**facts)
    if raw["server"]:
        census = raw["server"].pop("census")
        families = {name: Family(**census[name]) for name in ("cache", "state", "foreign")}
        raw["server"] = Server(
            **raw["server"], census=Census(**families, prefixes=census["prefixes"], complete=census["complete"])
        )
    fields: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in raw.items()}
    return Observed(**fields)


HEALTHY = seen("healthy")
assert HEALTHY.server is not None
assert HEALTHY.container is not None
SERVER, CONTAINER = HEALTHY.server, HEALTHY.container


def server(**changes: Any) -> Observed:
    """Return the healthy observation with facts of the server changed."""
    return replace(HEALTHY, server=replace(SERVER, **changes))


def container(**changes: Any) -> Observed:
    """Return the healthy observation with facts of the container changed; it does not answer."""
    return replace(HEALTHY, server=None, container=replace(CONTAINER, **changes))


CAPTURED = {
    "healthy": "healthy",
    "stopped": "container_stopped",
    "paused": "container_paused",
    "missing": "container_missing",
    "frozen": "processes_stopped",
    "password_changed": "password_mismatch",
    "limit_unset": "limit_mismatch",
    "policy_unset": "policy_unset",
    "no_ttl": "keys_without_ttl",
    "foreign": "healthy",
    "memory_full": "memory_full",
    "password_new": "password_mismatch",
}


@pytest.mark.parametrize("name", CAPTURED)
def test_what_was_really_broken_is_named(name: str) -> None:
    found = causes.find(seen(name))
    assert found.cause == CAPTURED[name]
    assert found.evidence


FOREIGN = Census(foreign=Family(500, 40_000, 500), prefixes={"other_program": 500})
VARIATIONS: dict[str, tuple[Observed, str]] = {
    "env_lost": (Observed(env_error="/opt/whats_agent/.env does not exist"), "config_invalid"),
    "configuration_lost": (replace(HEALTHY, configuration_error="cannot read redis.conf"), "config_invalid"),
    "no_engine": (replace(HEALTHY, engine_error="cannot reach the Docker engine"), "engine_down"),
    "another_redis": (replace(HEALTHY, url_host="cache.example.org"), "url_wrong"),
    "killed_for_memory": (container(status="exited", exit_code=137, oom_killed=True), "out_of_memory"),
    "ended_in_error": (container(status="exited", exit_code=1), "container_exited"),
    "crash_loop": (container(status="restarting", exit_code=1, restart_count=4), "crash_loop"),
    "disk_full_at_the_start": (
        replace(container(status="restarting", exit_code=1), log=("# write: No space left on device",)),
        "disk_full",
    ),
    "configuration_refused": (
        replace(container(status="restarting", exit_code=1), log=("*** FATAL CONFIG FILE ERROR (Redis 8.0.2) ***",)),
        "config_refused",
    ),
    "dying_while_looked_at": (
        replace(
            container(restart_count=1, uptime=0.5),
            refused="error",
            connection_error="Connection refused",
            log=("# Wrong signature trying to load DB from file",),
        ),
        "data_corrupt",
    ),
    "silent": (replace(HEALTHY, server=None, refused="timeout", connection_error="no answer"), "unresponsive"),
    "agent_with_another_password": (replace(HEALTHY, strangers=("whats_agent-app-1",)), "password_mismatch"),
    "disk_nearly_full": (replace(HEALTHY, free=1_000_000), "disk_full"),
    "limit_too_high": (server(maxmemory=CONTAINER.memory_limit), "limit_mismatch"),
    "full_and_evicting": (server(used=SERVER.maxmemory), "healthy"),
    "full_and_refusing": (server(used=SERVER.maxmemory, policy="volatile-lru"), "memory_full"),
    "evicting_fast": (server(used=SERVER.maxmemory, evictions=400.0), "eviction_storm"),
    "evicting_slowly": (server(used=SERVER.maxmemory, evictions=3.0), "healthy"),
    "foreign_keys_with_room": (server(census=FOREIGN), "healthy"),
    "append_failing": (server(append_ok=False), "persistence_failing"),
    "foreign_keys_fill_it": (
        replace(
            server(used=SERVER.maxmemory, policy="noeviction", census=FOREIGN),
            wanted=Wanted(SERVER.maxmemory, "noeviction"),
        ),
        "foreign_keys",
    ),
}


@pytest.mark.parametrize("name", VARIATIONS)
def test_variations_are_named(name: str) -> None:
    observed, cause = VARIATIONS[name]
    assert causes.find(observed).cause == cause


def test_foreign_keys_are_removed_only_when_asked_for_and_say_what_is_lost() -> None:
    found = causes.find(server(census=FOREIGN), remove_foreign=True)
    assert found.cause == "foreign_keys"
    built = causes.diagnosis(server(census=FOREIGN), found)
    assert "other_program (500)" in built["loses"]["en"]
    assert built["state"]["prefixes"] == ["other_program"]
    assert causes.find(HEALTHY, remove_foreign=True).cause == "healthy"


@pytest.mark.parametrize("cause", causes.SUMMARIES)
def test_every_cause_makes_a_diagnosis_that_the_contract_takes(cause: str) -> None:
    evidence = () if cause == "healthy" else (("what", "value"),)
    checked = check_diagnosis(causes.diagnosis(HEALTHY, causes.Finding(cause, evidence)), "redis")
    assert checked.healthy == (cause == "healthy")


@pytest.mark.parametrize(
    "line",
    [
        "# Wrong signature trying to load DB from file: REDIS",
        "# Short read or OOM loading DB. Unrecoverable error, aborting now.",
        "# Wrong RDB checksum expected: (1) but got (2). Aborting now.",
        "# Internal error in RDB reading offset 0, function at rdb.c:1 -> x",
        "# Bad file format reading the append only file appendonly.aof.1.incr.aof: make a backup",
        "# Unexpected end of file reading the append only file x. You can: ...",
    ],
)
def test_what_redis_says_of_a_file_it_cannot_load_is_known(line: str) -> None:
    assert DAMAGED.search(line)
