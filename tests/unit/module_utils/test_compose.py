# SPDX-License-Identifier: GPL-3.0-or-later
"""Reading the compose project must not give up on a host that is merely slow: that is when it is needed."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.whats_agent.compose import ComposeProject

CONFIG = json.dumps({"services": {"postgres": {"image": "i"}}})
# What a restore was seen to fail of, after all of its work, on a host with 28 processes waiting for each processor.
SEEN_SECONDS = 30


@pytest.mark.parametrize(
    ("read", "printed"),
    [
        (lambda project: project.service("postgres").image, CONFIG),
        (ComposeProject.replicas, CONFIG),
        (ComposeProject.hashes, "postgres abc\n"),
        (ComposeProject.services, "postgres\n"),
    ],
    ids=["service", "replicas", "hashes", "services"],
)
def test_a_slow_host_is_waited_for(
    monkeypatch: pytest.MonkeyPatch, read: Callable[[ComposeProject], Any], printed: str
) -> None:
    def slow(argv: list[str], *, timeout: float, **_options: Any) -> subprocess.CompletedProcess[str]:
        if timeout < SEEN_SECONDS:
            raise subprocess.TimeoutExpired(argv, timeout)
        return subprocess.CompletedProcess(argv, 0, stdout=printed, stderr="")

    monkeypatch.setattr(subprocess, "run", slow)
    assert read(ComposeProject(Path("/opt/whats_agent")))
