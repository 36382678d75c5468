# SPDX-License-Identifier: GPL-3.0-or-later
"""Which volumes may be removed, and which never."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from ansible.module_utils.whats_agent import pgbackrest
from ansible.module_utils.whats_agent.errors import WhatsAgentError
from ansible.module_utils.whats_agent.postgres_volumes import DataVolume, find_removable, reason_to_keep

PROVEN = pgbackrest.parse_info((Path(__file__).parent / "data" / "info_ok.json").read_text(encoding="utf-8"))
UNPROVEN = replace(PROVEN, backups=PROVEN.backups[:1])
RESTORE = {"old_volume": "old", "new_volume": "new", "source_volume": "source"}


@pytest.mark.parametrize(
    ("name", "restore", "repository", "words"),
    [
        ("used", None, PROVEN, "is the volume in use"),
        ("old", RESTORE, PROVEN, "unfinished restore needs old"),
        ("new", RESTORE, PROVEN, "unfinished restore needs new"),
        ("source", RESTORE, PROVEN, "unfinished restore needs source"),
        ("old", None, UNPROVEN, "may be the only copy"),
    ],
)
def test_what_must_stay(
    name: str, restore: dict[str, str] | None, repository: pgbackrest.Repository, words: str
) -> None:
    reason = reason_to_keep(name, "used", restore, repository)
    assert reason is not None
    assert words in reason["en"]
    assert reason["pt"] != reason["en"]


def test_an_old_volume_may_go_once_a_backup_is_proven() -> None:
    assert reason_to_keep("old", "used", None, PROVEN) is None
    assert reason_to_keep("older", "used", RESTORE, PROVEN) is None


def test_removal_names_what_may_go_and_repeats_why_the_rest_must_stay() -> None:
    kept = DataVolume("used", "2026", 1, {"en": "used is the volume in use", "pt": "em uso"})
    free = DataVolume("old", "2025", 1, None)
    assert find_removable([kept, free], "old") == free
    with pytest.raises(WhatsAgentError, match="used is the volume in use"):
        find_removable([kept, free], "used")
    with pytest.raises(WhatsAgentError, match="those that may go: old"):
        find_removable([kept, free], "")
    with pytest.raises(WhatsAgentError, match="those that may go: none"):
        find_removable([kept], "nosuch")
