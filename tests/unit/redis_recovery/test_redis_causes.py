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
from ansible.module_utils.whats_agent.redis_storm import Turnover

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
        families: dict[str, Any] = {name: Family(**census[name]) for name in ("cache", "state", "foreign")}
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


STORM = Turnover(seconds=1.0, keys=1149, evicted=199, arrived=200, hits=0, misses=0)
SERVED = Turnover(seconds=1.0, keys=1148, evicted=52, arrived=52, hits=520, misses=0)
CACHE_FILLS = Census(cache=Family(1700, 130_000_000), kinds={"whats_agent:cache:media": 130_000_000})
FOREIGN_FILLS = Census(foreign=Family(1700, 130_000_000), kinds={"other_program": 130_000_000})
FOREIGN_STAYS = replace(FOREIGN_FILLS, foreign=Family(1700, 130_000_000, 1700), prefixes={"other_program": 1700})


def storming(**changes: Any) -> Observed:
    """Return the observation of a storm of cache keys with facts of the server changed."""
    facts: dict[str, Any] = {
        "used": SERVER.maxmemory,
        "turnover": STORM,
        "census": CACHE_FILLS,
        "clients": ("w-1 (set)",),
    }
    return server(**{**facts, **changes})


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
    "storm": (storming(), "eviction_storm"),
    "evicting_and_serving": (storming(turnover=SERVED), "healthy"),
    "storm_under_a_lowered_limit": (storming(maxmemory=SERVER.maxmemory // 8), "limit_lowered"),
    "lowered_limit_without_a_storm": (server(maxmemory=SERVER.maxmemory // 8), "healthy"),
    "storm_under_a_raised_limit": (storming(maxmemory=SERVER.maxmemory + 1), "eviction_storm"),
    "storm_of_foreign_keys_that_stay": (storming(census=FOREIGN_STAYS), "foreign_keys"),
    "storm_of_foreign_keys_that_expire": (storming(census=FOREIGN_FILLS), "eviction_storm"),
    "storm_under_another_policy": (storming(policy="volatile-lru"), "policy_unset"),
    "storm_under_a_wanted_volatile_policy": (
        replace(storming(policy="volatile-lru"), wanted=Wanted(SERVER.maxmemory, "volatile-lru")),
        "eviction_storm",
    ),
    "foreign_keys_with_room": (server(census=FOREIGN), "healthy"),
    "no_limits_at_all": (
        replace(server(maxmemory=0, policy="noeviction"), container=replace(CONTAINER, memory_limit=0)),
        "policy_unset",
    ),
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


def test_a_storm_says_what_fills_the_memory_and_who_is_at_work() -> None:
    told = dict(causes.find(storming()).evidence)
    assert told["keys evicted"] == "199 a second of 1149, 200 a second come, a key stays about 6 s"
    assert told["what fills it"] == "whats_agent:cache:media (130000000 bytes)"
    assert told["at work meanwhile"] == "w-1 (set)"
    assert told["reads meanwhile"] == "nothing was read"


def test_a_storm_that_losing_the_cache_would_not_end_is_refused_with_who_writes() -> None:
    observed = storming(census=FOREIGN_FILLS, clients=("172.19.0.9 (set)",))
    refuse = causes.diagnosis(observed, causes.find(observed))["refuse"]
    for language in ("en", "pt"):
        assert "other_program" in refuse["reason"][language]
        assert "172.19.0.9 (set)" in refuse["reason"][language]
    assert causes.diagnosis(storming(), causes.find(storming()))["refuse"] is None


def test_evictions_that_are_no_storm_are_noted() -> None:
    told = dict(causes.find(storming(turnover=SERVED)).evidence)
    assert told["reads meanwhile"] == "520 of 520 reads found their key"


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
