# SPDX-License-Identifier: GPL-3.0-or-later
"""Points in time: how they are read, and which are refused with the range that can be reached."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ansible.module_utils.whats_agent import pgbackrest
from ansible.module_utils.whats_agent import postgres_target as target
from ansible.module_utils.whats_agent.clock import Clock
from ansible.module_utils.whats_agent.errors import WhatsAgentError

OK = pgbackrest.parse_info((Path(__file__).parent / "data" / "info_ok.json").read_text(encoding="utf-8"))
FULL, INCREMENTAL = OK.backups
RANGE = "valid are 2026-11-24T13:28:23Z to 2026-11-24T13:30:02Z"
WINDOW = target.Window(FULL.stop + 1, FULL.stop + 100, alive=False)


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2026-01-31T12:00:00-03:00", datetime(2026, 1, 31, 15, tzinfo=UTC)),
        ("2026-01-31 12:00:00Z", datetime(2026, 1, 31, 12, tzinfo=UTC)),
        ("2026-01-31T12:00:00.25+00:00", datetime(2026, 1, 31, 12, 0, 0, 250000, tzinfo=UTC)),
    ],
)
def test_a_time_with_an_offset_is_taken(text: str, moment: datetime) -> None:
    assert target.parse_target_time(text) == moment


@pytest.mark.parametrize(
    ("text", "words"), [("2026-01-31T12:00:00", "names no offset"), ("yesterday", "is no time"), ("", "is no time")]
)
def test_a_time_that_could_mean_another_one_is_refused(text: str, words: str) -> None:
    with pytest.raises(WhatsAgentError, match=words):
        target.parse_target_time(text)


def test_postgres_gets_the_offset() -> None:
    assert (
        target.postgres_time(target.parse_target_time("2026-01-31T12:00:00-03:00"))
        == "2026-01-31 12:00:00.000000-03:00"
    )


def test_the_last_commit_is_read_from_what_waldump_lists() -> None:
    listed = "COMMIT 2026-11-24 14:25:21.346028 UTC\n"
    assert target.parse_last_commit(listed) == datetime(2026, 11, 24, 14, 25, 21, 346028, tzinfo=UTC).timestamp()
    assert target.parse_last_commit("") is None


def test_every_time_in_the_window_is_taken() -> None:
    for moment in (WINDOW.earliest, WINDOW.latest):
        text = datetime.fromtimestamp(moment, tz=UTC).isoformat()
        assert target.check_target(text, WINDOW).timestamp() == moment


@pytest.mark.parametrize(
    ("text", "alive", "words"),
    [
        ("2026-11-24T13:29:00", False, "names no offset"),
        ("noon", False, "is no time"),
        ("2026-11-24T13:28:22Z", False, "lies before the first backup"),
        ("2026-11-24T13:30:03Z", False, "lies after the last commit"),
        ("2026-11-24T13:30:04Z", True, "lies in the future"),
    ],
)
def test_others_are_refused_with_the_range_in_both_languages(text: str, alive: bool, words: str) -> None:
    with pytest.raises(WhatsAgentError, match=f"{words}.*{RANGE}") as refused:
        target.check_target(text, replace(WINDOW, alive=alive))
    assert RANGE.replace("valid are", "valem").replace(" to ", " a ") in refused.value.details["pt"]


def window(now: float, *, alive: bool, archived_at: float | None = None) -> target.Window:
    """Return the window of a repository whose old volume is gone."""
    backrest: Any = SimpleNamespace(archived_at=lambda: archived_at)
    return target.time_window(backrest, OK, "old", None, alive=alive, clock=Clock(wall=lambda: now))


def test_the_window_ends_now_or_with_what_is_archived() -> None:
    newest = max(b.stop for b in OK.backups)
    assert window(newest + 900, alive=True) == target.Window(FULL.stop + 1, newest + 900, alive=True)
    assert window(newest + 900, alive=False, archived_at=newest + 9).latest == newest + 9
    assert window(newest + 900, alive=False).latest == newest


def test_a_clock_behind_the_newest_backup_cannot_judge_a_time() -> None:
    with pytest.raises(WhatsAgentError, match="clock says 2026-11-24T12"):
        window(FULL.stop - 3600, alive=True)


def test_the_second_in_which_a_backup_ended_is_not_behind_it() -> None:
    assert pgbackrest.earliest_time(OK) == FULL.stop + 1
    assert pgbackrest.candidates(OK, before=FULL.stop + 0.9) == []
    assert pgbackrest.candidates(OK, before=FULL.stop + 1) == [FULL]
