# SPDX-License-Identifier: GPL-3.0-or-later
"""What counts as not standing in the stable window."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from ansible.module_utils.whats_agent.docker_host import ContainerState, parse_container
from ansible.module_utils.whats_agent.stable import unstable

STATE: ContainerState = parse_container(
    {
        "Id": "c1",
        "Name": "/whats_agent-app-1",
        "State": {"Status": "running", "Health": {"Status": "healthy"}, "StartedAt": "t1"},
        "Config": {"Labels": {"com.docker.compose.service": "app", "com.docker.compose.project": "whats_agent"}},
    }
)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, None),
        ({"restart_count": 1, "exit_code": 3}, "app restarted (exit code 3)"),
        ({"started_at": "t2"}, "app restarted"),
        ({"status": "exited", "exit_code": 137}, "app is exited (exit code 137)"),
        ({"status": "paused"}, "app is paused"),
        ({"health": "unhealthy"}, "app turned unhealthy"),
        ({"health": "starting"}, None),
    ],
)
def test_between_two_looks(changes: dict[str, Any], words: str | None) -> None:
    found = unstable([STATE], [replace(STATE, **changes)])
    assert (len(found) == 0) == (words is None)
    if words:
        assert words in found[0]


def test_containers_that_only_one_look_saw_are_no_matter_here() -> None:
    assert unstable([STATE], []) == []
    assert unstable([], [STATE]) == []


def test_what_was_down_before_and_still_is_did_not_fall() -> None:
    down = replace(STATE, status="exited", health=None)
    assert unstable([down], [down]) == []
