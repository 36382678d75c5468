# SPDX-License-Identifier: GPL-3.0-or-later
"""Settings of this test only."""

from pathlib import Path

import pytest

from tests.unit.agent.agent_bodies import ENVIRONMENT
from whats_agent.settings import WebSettings, WorkerSettings


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, str]:
    """Only the variables the agent must have, and directories of this test."""
    for kind in (WebSettings, WorkerSettings):
        for field in kind.model_fields:
            for name in (field.upper(), f"{field.upper()}_FILE"):
                monkeypatch.delenv(name, raising=False)
    log = tmp_path / "message_log"
    log.mkdir()
    variables = {**ENVIRONMENT, "MESSAGE_LOG_DIR": str(log), "LOG_DIR": str(tmp_path / "logs")}
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    return variables
