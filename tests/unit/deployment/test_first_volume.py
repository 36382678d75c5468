# SPDX-License-Identifier: GPL-3.0-or-later
"""A lost volume never becomes a silent new database."""

from __future__ import annotations

import pytest
from ansible.module_utils.whats_agent.errors import WhatsAgentError
from ansible.module_utils.whats_agent.first_volume import Decision, Seen, decide

NEW = "whats_agent_pgdata_new"
OLD = "whats_agent_pgdata_old"
NOTHING = {"has_env": False, "configured": "", "noted": "", "volumes": [], "has_backups": False}


@pytest.mark.parametrize(
    ("seen", "expected"),
    [
        pytest.param({}, Decision(NEW, create=True, initialise=True), id="nothing_there"),
        pytest.param(
            {"has_env": True, "configured": OLD, "volumes": [OLD], "has_backups": True},
            Decision(OLD, create=False, initialise=False),
            id="deployed",
        ),
        pytest.param(
            {"noted": OLD}, Decision(OLD, create=True, initialise=True), id="interrupted_before_the_volume_was_made"
        ),
        pytest.param(
            {"noted": OLD, "volumes": [OLD]},
            Decision(OLD, create=False, initialise=True),
            id="interrupted_before_env_was_written",
        ),
        pytest.param(
            {"noted": OLD, "volumes": [OLD], "has_env": True, "configured": OLD},
            Decision(OLD, create=False, initialise=True),
            id="interrupted_before_the_note_was_removed",
        ),
        pytest.param(
            {"noted": OLD, "volumes": [OLD], "has_env": True, "configured": OLD, "has_backups": True},
            Decision(OLD, create=False, initialise=False),
            id="a_note_beside_backups_means_nothing",
        ),
    ],
)
def test_decides(seen: dict[str, object], expected: Decision) -> None:
    assert decide(Seen(**{**NOTHING, **seen}), NEW) == expected  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("seen", "says"),
    [
        pytest.param({"has_env": True, "configured": OLD}, "recover_db.yml", id="volume_lost"),
        pytest.param(
            {"has_env": True, "configured": OLD, "volumes": [NEW]}, "recover_db.yml", id="another_volume_there"
        ),
        pytest.param({"has_env": True}, "lacks DB_VOLUME", id="env_without_volume"),
        pytest.param({"volumes": [OLD]}, "recover_config.yml", id="env_lost"),
        pytest.param({"has_backups": True}, "disaster_recovery.yml", id="all_lost_but_backups"),
        pytest.param({"noted": OLD, "has_backups": True}, "disaster_recovery.yml", id="a_note_is_no_licence"),
        pytest.param(
            {"noted": NEW, "has_env": True, "configured": OLD}, "recover_db.yml", id="a_note_of_another_volume"
        ),
    ],
)
def test_refuses_and_says_what_to_do(seen: dict[str, object], says: str) -> None:
    with pytest.raises(WhatsAgentError, match=says):
        decide(Seen(**{**NOTHING, **seen}), NEW)  # type: ignore[arg-type]
