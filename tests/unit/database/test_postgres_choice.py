# SPDX-License-Identifier: GPL-3.0-or-later
"""Which backup a restore takes, where the archive has holes and where it has none."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from ansible.module_utils.whats_agent import pgbackrest
from ansible.module_utils.whats_agent import postgres_choice as choice
from ansible.module_utils.whats_agent.errors import WhatsAgentError
from ansible.module_utils.whats_agent.pgbackrest import Backup

INFO = (Path(__file__).parent / "data" / "info_ok.json").read_text(encoding="utf-8")
OK = pgbackrest.parse_info(INFO)
FULL, INCREMENTAL = OK.backups  # WAL 3 and 4..5; only the incremental one is proven
WAL = [f"00000001000000000000000{n}" for n in range(1, 8)]


def test_the_proven_backup_with_whole_wal_is_chosen() -> None:
    assert choice.choose(OK, WAL, ()) == INCREMENTAL


def test_a_gapless_unproven_backup_goes_before_a_proven_one_with_a_hole() -> None:
    later = replace(FULL, label="20261124-150000F", stop=FULL.stop + 900, wal_start=WAL[6], wal_stop=WAL[6])
    holed = [name for name in WAL if name != WAL[5]]
    chosen = choice.choose(replace(OK, backups=(*OK.backups, later)), holed, ())
    assert chosen.label == later.label


def test_with_a_hole_after_every_backup_the_best_one_is_still_chosen() -> None:
    holed = [name for name in WAL if name != WAL[5]]
    assert choice.choose(OK, holed, ()) == INCREMENTAL
    assert choice.holes_after(INCREMENTAL, holed) == [WAL[5]]


def test_a_backup_whose_own_first_segment_is_gone_has_a_hole() -> None:
    assert choice.holes_after(INCREMENTAL, [n for n in WAL if n != INCREMENTAL.wal_start]) == [INCREMENTAL.wal_start]


def test_holes_before_the_backup_do_not_matter() -> None:
    assert choice.holes_after(INCREMENTAL, WAL[3:]) == []


def test_holes_are_looked_for_on_later_timelines_too() -> None:
    promoted = [*WAL[:6], "000000020000000000000006", "000000020000000000000008"]
    assert choice.holes_after(INCREMENTAL, promoted) == ["000000020000000000000007"]


def test_the_end_of_a_timeline_that_never_reached_the_archive_is_a_hole() -> None:
    """The server's volume was lost with it: neither timeline has a hole of its own."""
    lost = [*WAL[:6], "000000020000000000000009", "00000002000000000000000A"]
    assert choice.holes_after(INCREMENTAL, lost) == ["000000010000000000000007", "000000010000000000000008"]
    closing = replace(FULL, label="20261124-150000F", stop=FULL.stop - 9, wal_start=lost[6], wal_stop=lost[6])
    assert choice.choose(replace(OK, backups=(closing, *OK.backups)), lost, ()) == closing


def test_timelines_that_overlap_leave_no_hole() -> None:
    assert choice.holes_after(INCREMENTAL, [*WAL[:6], "000000020000000000000006", "000000020000000000000007"]) == []


def test_rejected_backups_are_passed_over_until_none_is_left() -> None:
    assert choice.choose(OK, WAL, (INCREMENTAL.label,)) == FULL
    with pytest.raises(WhatsAgentError, match="no backup is left to try"):
        choice.choose(OK, WAL, (INCREMENTAL.label, FULL.label))


def test_a_database_that_serves_is_not_restored_up_to_a_hole() -> None:
    choice.refuse_loss(("000000010000000000000004",), alive=False)
    choice.refuse_loss((), alive=True)
    with pytest.raises(WhatsAgentError, match=r"segment 000000010000000000000004 is missing.*would lose") as refused:
        choice.refuse_loss(("000000010000000000000004", "000000010000000000000005"), alive=True)
    assert "perderia" in refused.value.details["pt"]


# Points in time ------------------------------------------------------------------------------------------------------

HOLED = [*WAL[:6], "000000010000000000000008"]  # 7 is missing; 6 was archived 100 s after the backup
ARCHIVED = {name: float(INCREMENTAL.stop + 100 * number) for number, name in enumerate(WAL[4:])}  # 5, 6, 7
LATER = replace(FULL, label="20261124-150000F", stop=INCREMENTAL.stop + 300, wal_start=HOLED[6], wal_stop=HOLED[6])


def at(seconds_after: float) -> datetime:
    """Return a time so many seconds after the incremental backup."""
    return datetime.fromtimestamp(INCREMENTAL.stop + seconds_after, UTC)


def for_time(
    moment: datetime,
    segments: list[str],
    *more: Backup,
    rejected: tuple[str, ...] = (),
    times: Callable[[], dict[str, float]] = ARCHIVED.copy,
) -> Backup:
    repository = replace(OK, backups=(*OK.backups, *more))
    return choice.choose_for_time(repository, segments, rejected, moment=moment, archive_times=times)


def test_without_a_hole_nobody_asks_when_anything_was_archived() -> None:
    def asked() -> dict[str, float]:
        raise AssertionError

    assert for_time(at(9_000), WAL, times=asked) == INCREMENTAL


@pytest.mark.parametrize("seconds", [1, 99, 100.9])
def test_a_time_before_the_hole_is_reached(seconds: float) -> None:
    assert for_time(at(seconds), HOLED) == INCREMENTAL
    assert for_time(at(seconds), HOLED, LATER) == INCREMENTAL


@pytest.mark.parametrize("seconds", [101, 9_000])
def test_a_time_behind_the_hole_is_refused_with_what_can_be_reached(seconds: float) -> None:
    with pytest.raises(WhatsAgentError, match=f"lies behind the WAL segment {WAL[6]}, which is missing") as refused:
        for_time(at(seconds), HOLED)
    assert refused.value.details["range"] == [pgbackrest.iso(FULL.stop + 1), pgbackrest.iso(INCREMENTAL.stop + 101)]
    assert f"até pouco antes de {pgbackrest.iso(INCREMENTAL.stop + 101)}, ou" in refused.value.details["pt"]


def test_a_newer_backup_behind_the_hole_leads_there_though_it_is_not_proven() -> None:
    assert for_time(at(400), HOLED, LATER) == LATER


def test_a_time_in_the_hole_is_refused_with_what_lies_on_either_side() -> None:
    begins = pgbackrest.iso(LATER.stop + 1)
    with pytest.raises(WhatsAgentError, match=f"shortly before .*, and from {re.escape(begins)} on, or put") as refused:
        for_time(at(200), HOLED, LATER)
    assert f", e a partir de {begins}, ou" in refused.value.details["pt"]


def test_a_rejected_backup_neither_leads_there_nor_is_offered() -> None:
    with pytest.raises(WhatsAgentError, match=f"segment {WAL[6]}, which is missing.* shortly before [^,]*, or put"):
        for_time(at(400), HOLED, LATER, rejected=(LATER.label,))


def test_what_is_not_certain_is_given_the_benefit_of_the_doubt() -> None:
    # Only the old volume holds what lies before the hole.
    assert for_time(at(9_000), HOLED, times=dict) == INCREMENTAL
    # A later timeline branches off before the hole, which its replay may never come to.
    branched = [*HOLED, "000000020000000000000005", "000000020000000000000006", "000000020000000000000007"]
    assert choice.holes_after(INCREMENTAL, branched) == [WAL[6]]
    assert for_time(at(9_000), branched) == INCREMENTAL


def test_a_backup_that_is_not_whole_leads_nowhere() -> None:
    assert choice.replay_ends(INCREMENTAL, [n for n in WAL if n != INCREMENTAL.wal_start], ARCHIVED.copy) == 0.0
    assert choice.replay_ends(INCREMENTAL, WAL, ARCHIVED.copy) == math.inf
