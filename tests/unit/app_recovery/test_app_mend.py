# SPDX-License-Identifier: GPL-3.0-or-later
"""What each remedy does with what was seen, and in which order: decisions only, nothing is run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.whats_agent.app_mend import HUNG_GRACE_S, ORDERLY_GRACE_S, Mender, Step, steps_of
from ansible.module_utils.whats_agent.app_observe import Answer, Holder, Observed
from ansible.module_utils.whats_agent.compose import fill_argv, hash_argv, parse_replicas
from ansible.module_utils.whats_agent.container_view import ContainerView
from ansible.module_utils.whats_agent.docker_host import ExecResult, Process, parse_processes
from ansible.module_utils.whats_agent.errors import WhatsAgentError
from ansible.module_utils.whats_agent.postgres_host import DatabasePlace


def view(service: str, number: int = 1, **changes: Any) -> ContainerView:
    """Return a container that is well."""
    name = f"whats_agent-{service}-{number}"
    healthy = ContainerView(name, name, service, "running", 0, False, 0, "healthy", "", 900.0, 0)
    return replace(healthy, **changes)


def agent(*containers: ContainerView, **facts: Any) -> Observed:
    """Return what a stack with these containers shows; every replica answers."""
    answers = {one.name: Answer(200) for one in containers if one.service == "app"}
    return Observed(
        wanted={"nginx": 1, "app": 2, "worker": 1},
        containers=containers,
        **{"answers": answers, "front": Answer(200), "moved": True, **facts},
    )


WELL = (view("nginx"), view("app", 1), view("app", 2), view("worker"))


def described(seen: Observed, remedy: str) -> list[str]:
    """Return a remedy's steps in words."""
    return [step.describe() for step in steps_of(seen, remedy)]


@pytest.mark.parametrize("remedy", ["start", "restart", "recreate", "release"])
def test_what_is_well_is_left_alone(remedy: str) -> None:
    assert steps_of(agent(*WELL), remedy) == []


def test_what_stands_still_is_started_in_its_own_way_and_nginx_first() -> None:
    seen = agent(
        view("worker", status="exited"),
        view("app", 1, status="paused"),
        view("app", 2, stopped=(41, 42), processes=2),
        view("nginx", status="created"),
    )
    assert described(seen, "start") == [
        "start whats_agent-nginx-1",
        "unpause whats_agent-app-1",
        "wake whats_agent-app-2",
        "start whats_agent-worker-1",
    ]


def test_missing_replicas_are_created_in_one_step() -> None:
    seen = agent(view("nginx"), view("worker"))
    assert described(seen, "start") == ["create the missing containers of app"]
    assert described(seen, "recreate") == ["create the missing containers of app"]


def test_only_the_silent_replica_is_restarted_and_not_waited_for() -> None:
    seen = agent(*WELL, answers={"whats_agent-app-1": Answer(None, "no answer"), "whats_agent-app-2": Answer(200)})
    assert steps_of(seen, "restart") == [Step("restart", "app", "whats_agent-app-1", HUNG_GRACE_S)]


def test_a_worker_that_does_not_project_is_given_its_time_to_end() -> None:
    parts = {
        "worker": {"state": "up", "projector": "waiting", "log_end": 9},
        "postgres": {"state": "up", "position": 1},
        "message_log": {"state": "up"},
        "redis": {"state": "up"},
    }
    seen = agent(*WELL, moved=False, parts=parts)
    assert steps_of(seen, "restart") == [Step("restart", "worker", "whats_agent-worker-1", ORDERLY_GRACE_S)]


def test_every_session_that_holds_the_projection_is_ended() -> None:
    seen = agent(*WELL, holders=(Holder(7, "psql", "postgres", "x"), Holder(9, "", "admin", "y")))
    assert [step.pids for step in steps_of(seen, "release")] == [(7,), (9,)]


class FakeDocker:
    """An engine that notes what is asked of it; `well` tells whether containers pass their own check."""

    def __init__(self, states: dict[str, str]) -> None:
        self.states = states
        self.done: list[str] = []
        self.checked = 0

    def containers(self, _project: str, service: str | None = None) -> list[Any]:
        class State:
            def __init__(self, name: str, status: str) -> None:
                self.id = self.name = name
                self.service = name.split("-")[1]
                self.status = status
                self.running = status == "running"

        return [State(n, s) for n, s in self.states.items() if service in (None, n.split("-")[1])]

    def execute(self, container: str, _argv: Any, *, timeout: float) -> ExecResult:
        self.checked += 1
        self.done.append(f"check {container} within {timeout:g} s")
        return ExecResult(0, "", "")

    def stop(self, container: str, *, grace: int) -> None:
        self.done.append(f"stop {container} {grace}")

    def remove_container(self, container: str) -> None:
        self.done.append(f"remove {container}")

    def restart(self, container: str, *, grace: int) -> None:
        self.done.append(f"restart {container} {grace}")


class FakeCompose:
    """Compose that notes what is asked of it."""

    def __init__(self, done: list[str]) -> None:
        self.done = done

    def fill(self, *services: str) -> None:
        self.done.append(f"fill {' '.join(services)}")


class FakeLooker:
    """What a Mender needs of a Looker."""

    def __init__(self, docker: FakeDocker) -> None:
        self.docker = docker
        self.compose = FakeCompose(docker.done)
        self.place = DatabasePlace()


def mender(docker: FakeDocker, beats: list[int]) -> Mender:
    """Return a Mender over a fake engine."""
    return Mender(FakeLooker(docker), lambda: beats.append(1), deadline_s=5)  # type: ignore[arg-type]


def test_the_next_replica_is_touched_once_this_one_is_well() -> None:
    docker = FakeDocker({"whats_agent-app-1": "running", "whats_agent-app-2": "running"})
    beats: list[int] = []
    steps = [Step("recreate", "app", "whats_agent-app-1", 3), Step("recreate", "app", "whats_agent-app-2", 3)]
    mender(docker, beats).apply(steps, "whats_agent")
    first = docker.done.index("fill app")
    second = docker.done.index("stop whats_agent-app-2 3")
    assert any(entry.startswith("check") for entry in docker.done[first:second])
    assert docker.done[:2] == ["stop whats_agent-app-1 3", "remove whats_agent-app-1"]
    assert len(beats) >= 2


def test_a_container_that_is_gone_stops_the_remedy() -> None:
    with pytest.raises(WhatsAgentError, match="somebody else"):
        mender(FakeDocker({}), []).apply([Step("restart", "app", "whats_agent-app-1")], "whats_agent")


def test_compose_creates_only_what_is_missing() -> None:
    argv = fill_argv(Path("/opt/whats_agent"), ["app"])
    assert argv[-6:] == ["up", "--detach", "--no-deps", "--no-build", "--no-recreate", "app"]
    assert hash_argv(Path("/opt/whats_agent"))[-2:] == ["config", "--hash=*"]


def test_replicas_are_read_from_composes_own_rendering() -> None:
    config = {
        "services": {
            "app": {"scale": 2},
            "migrate": {"profiles": ["tools"]},
            "nginx": {},
            "worker": {"deploy": {"replicas": 3}},
        }
    }
    assert parse_replicas(config) == {"app": 2, "nginx": 1, "worker": 3}


def test_processes_are_read_from_the_engines_answer() -> None:
    answer = {"Titles": ["PID", "STAT", "COMMAND"], "Processes": [["41", "T", "whats-agent"], ["42", "Ssl", "python3"]]}
    assert parse_processes(answer) == [Process(41, "T", "whats-agent"), Process(42, "Ssl", "python3")]
    assert parse_processes({}) == []
