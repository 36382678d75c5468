# SPDX-License-Identifier: GPL-3.0-or-later
"""Settings of this test only."""

import os
from pathlib import Path

import pytest

from tests.unit.agent.agent_bodies import ENVIRONMENT


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, str]:
    """Only the variables the agent must have, and directories of this test."""
    for name in list(os.environ):
        if name.startswith(("DB_", "REDIS_", "META_", "GRAPH_", "OPENAI_", "PHONE_", "LOG_", "MESSAGE_LOG_", "WEB")):
            monkeypatch.delenv(name)
    log = tmp_path / "message_log"
    log.mkdir()
    variables = {**ENVIRONMENT, "MESSAGE_LOG_DIR": str(log), "LOG_DIR": str(tmp_path / "logs")}
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    return variables
