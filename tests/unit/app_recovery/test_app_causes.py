# SPDX-License-Identifier: GPL-3.0-or-later
"""From what was seen to the cause: captured observations of agents that were really broken, and variations of them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.whats_agent import app_causes as causes
from ansible.module_utils.whats_agent.app_observe import Answer, Holder, Observed, parse_parts, patience, projects
from ansible.module_utils.whats_agent.container_view import ContainerView, masked_lines
from ansible.module_utils.whats_agent.plan import check_diagnosis

DATA = Path(__file__).parent / "data"


def container(raw: dict[str, Any]) -> ContainerView:
    """Load one captured container."""
    fields: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in raw.items()}
    return ContainerView(**fields)


def seen(name: str) -> Observed:
    """Load a captured observation."""
    raw: dict[str, Any] = json.loads((DATA / f"{name}.json").read_text(encoding="utf-8"))
    raw["containers"] = tuple(container(one) for one in raw["containers"])
    raw["answers"] = {key: Answer(**one) for key, one in raw["answers"].items()}
    raw["front"] = Answer(**raw["front"]) if raw["front"] else None
    raw["holders"] = tuple(Holder(**one) for one in raw["holders"])
    raw["outdated"] = tuple(raw["outdated"])
    return Observed(**raw)


HEALTHY = seen("healthy")
FIRST = HEALTHY.of("app")[0]
SILENT = Answer(None, "no answer within 3 s")


def with_container(name: str, **changes: Any) -> Observed:
    """Return the healthy observation with facts of one container changed."""
    changed = [replace(one, **changes) if one.name == name else one for one in HEALTHY.containers]
    return replace(HEALTHY, containers=tuple(changed))


def parts(**changes: dict[str, Any]) -> dict[str, Any]:
    """Return the healthy parts with facts of some changed."""
    found = HEALTHY.parts or {}
    return {**found, **{name: {**found[name], **facts} for name, facts in changes.items()}}


CAPTURED = {
    "healthy": "healthy",
    "frozen": "processes_stopped",
    "paused": "container_paused",
    "missing": "container_missing",
    "mute": "hung",
    "worker_stopped": "container_stopped",
    "worker_frozen": "processes_stopped",
    "projector_lock": "projection_held",
    "nginx_stopped": "container_stopped",
    "starved": "out_of_memory",
    "setting_refused": "settings_refused",
}


@pytest.mark.parametrize("name", CAPTURED)
def test_what_was_really_broken_is_named(name: str) -> None:
    found = causes.find(seen(name))
    assert found.cause == CAPTURED[name]
    assert found.evidence


VARIATIONS: dict[str, tuple[Observed, str]] = {
    "env_lost": (Observed(env_error="/opt/whats_agent/.env does not exist"), "config_invalid"),
    "no_engine": (Observed(engine_error="cannot reach the Docker engine"), "engine_down"),
    "created_never_started": (with_container(FIRST.name, status="created"), "container_stopped"),
    "ended_in_error": (with_container(FIRST.name, status="exited", exit_code=3), "container_exited"),
    "killed_for_memory": (with_container(FIRST.name, status="exited", exit_code=137, oom_killed=True), "out_of_memory"),
    "restarting": (with_container(FIRST.name, status="restarting", exit_code=1, restart_count=1), "crash_loop"),
    "restarting_for_memory": (
        with_container(FIRST.name, status="restarting", exit_code=137, restart_count=5, oom_killed=True),
        "out_of_memory",
    ),
    "restarts_often": (with_container(FIRST.name, restart_count=5, uptime=4.0), "crash_loop"),
    "restarted_long_ago": (with_container(FIRST.name, restart_count=5, uptime=4000.0), "healthy"),
    "restarted_once_and_silent": (
        replace(with_container(FIRST.name, restart_count=1, uptime=2.0), answers={**HEALTHY.answers, FIRST.name: SILENT}),
        "crash_loop",
    ),
    "image_gone": (
        replace(with_container(FIRST.name, status="exited", exit_code=3), image_missing="whats_agent/app:x"),
        "image_missing",
    ),
    "image_gone_while_all_run": (replace(HEALTHY, image_missing="whats_agent/app:x"), "healthy"),
    "silent": (replace(HEALTHY, answers={**HEALTHY.answers, FIRST.name: SILENT}), "hung"),
    "silent_because_young": (
        replace(with_container(FIRST.name, uptime=3.0), answers={**HEALTHY.answers, FIRST.name: SILENT}),
        "healthy",
    ),
    "nginx_silent": (replace(HEALTHY, front=SILENT), "hung"),
    "worker_unhealthy": (with_container(HEALTHY.of("worker")[0].name, health="unhealthy"), "hung"),
    "worker_without_heartbeat": (replace(HEALTHY, parts=parts(worker={"state": "stale", "age": 80})), "hung"),
    "disk_nearly_full": (replace(HEALTHY, log_free=10_000_000), "disk_full"),
    "disk_full": (
        replace(HEALTHY, parts=parts(message_log={"state": "down", "reason": "No space left on device"})),
        "disk_full",
    ),
    "log_not_writable": (
        replace(HEALTHY, parts=parts(message_log={"state": "down", "reason": "Read-only file system"})),
        "message_log_down",
    ),
    "database_away": (replace(HEALTHY, parts=parts(postgres={"state": "down", "reason": "OperationalError"})), "database_down"),
    "redis_away": (replace(HEALTHY, parts=parts(redis={"state": "down", "reason": "TimeoutError"})), "redis_down"),
    "own_containers_first": (
        replace(
            with_container(FIRST.name, status="exited", exit_code=0), parts=parts(postgres={"state": "down", "reason": "x"})
        ),
        "container_stopped",
    ),
    "not_projecting": (replace(HEALTHY, moved=False, parts=parts(worker={"projector": "waiting"})), "not_projecting"),
    "projection_held": (
        replace(HEALTHY, moved=False, holders=(Holder(7, "psql", "postgres", "holds the projector's lock"),)),
        "projection_held",
    ),
    "dying_with_other_settings_than_now": (
        replace(with_container(FIRST.name, status="restarting", exit_code=1, restart_count=2), outdated=(FIRST.name,)),
        "container_outdated",
    ),
    "other_settings_but_well": (replace(HEALTHY, outdated=(FIRST.name,)), "healthy"),
}  # fmt: skip


@pytest.mark.parametrize("name", VARIATIONS)
def test_variations_are_named(name: str) -> None:
    observed, cause = VARIATIONS[name]
    assert causes.find(observed).cause == cause


@pytest.mark.parametrize("cause", causes.SUMMARIES)
def test_every_cause_makes_a_diagnosis_that_the_contract_takes(cause: str) -> None:
    evidence = () if cause == "healthy" else (("what", "value"),)
    built = causes.diagnosis(HEALTHY, causes.Finding(cause, evidence))
    checked = check_diagnosis(built, "app")
    assert checked.healthy == (cause == "healthy")


def test_no_secret_of_env_reaches_the_evidence() -> None:
    secret = "s3cret-value-of-the-stack"
    lines = masked_lines(f"one\n\nwhats-agent: META_APP_SECRET={secret} is weak\nplain {secret}\n", [secret])
    assert secret not in " ".join(lines)
    assert lines[0] == "one"


def test_a_container_that_starts_is_looked_at_again() -> None:
    young = replace(with_container(FIRST.name, uptime=2.0), answers={**HEALTHY.answers, FIRST.name: SILENT})
    assert causes.starting(young)
    assert not causes.starting(HEALTHY)
    dying = replace(with_container(FIRST.name, uptime=2.0, restart_count=1), answers=young.answers)
    assert not causes.starting(dying), "what dies again and again is not waited for"


@pytest.mark.parametrize(
    ("load", "cpus", "factor"), [(0.1, 2, 1.0), (8.0, 2, 1.0), (16.0, 2, 2.0), (400.0, 2, 4.0), (3.0, 0, 1.0)]
)
def test_a_slow_host_does_not_look_like_a_hung_agent(load: float, cpus: int, factor: float) -> None:
    assert patience(load, cpus) == factor


def test_whether_it_projects_is_read_from_the_agents_own_view() -> None:
    assert projects(HEALTHY.parts) is True
    assert projects(parts(worker={"log_end": 9}, postgres={"position": 8})) is False
    assert projects(parts(worker={"projector": "standby"})) is False
    assert projects(parts(worker={"state": "stale"})) is None
    assert projects(parts(postgres={"state": "down"})) is None
    assert projects(None) is None
    assert parse_parts(b"<html>") is None
    assert parse_parts(b'{"parts": {"redis": {"state": "up"}}}') == {"redis": {"state": "up"}}
