# SPDX-License-Identifier: GPL-3.0-or-later
"""A restore that was closed as not sound is not forgotten by the next look, and is settled by a proof of what came after it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ansible.module_utils.whats_agent.files import read_json, write_json
from ansible.module_utils.whats_agent.pgbackrest import Backup
from ansible.module_utils.whats_agent.postgres_causes import find
from ansible.module_utils.whats_agent.postgres_diagnosis import Wish, assemble, refused_removal, wished
from ansible.module_utils.whats_agent.postgres_host import DatabasePlace
from ansible.module_utils.whats_agent.postgres_unsound import closed_unsound, note_proof
from ansible.module_utils.whats_agent.postgres_verify import SETTLED
from ansible.module_utils.whats_agent.postgres_volumes import reason_to_keep

from tests.unit.database.test_postgres_causes import HEALTHY, container

CLOSED = "2026-11-29T12:00:00Z"
STATE: dict[str, Any] = {
    "id": "20261129T115900Z-ab12",
    "run": "RUN-1",
    "step": "archiving",
    "new_volume": "whats_agent_pgdata_new",
    "old_volume": "whats_agent_pgdata_old",
    "timeline": 3,
    "finished_at": CLOSED,
    "unsound": "structure: heap table whats_agent.public.messages, block 3",
}
PROVEN: Any = SimpleNamespace(backups=[SimpleNamespace(proven=True)])
UNSOUND = replace(HEALTHY, unsound=STATE)


@pytest.fixture
def place(tmp_path: Path) -> DatabasePlace:
    place = DatabasePlace(tmp_path / "stack", tmp_path / "state", "whats_agent")
    place.restores_dir.mkdir(parents=True)
    write_json(record_of(place), STATE)
    return place


def record_of(place: DatabasePlace) -> Path:
    return place.restores_dir / f"{STATE['id']}.json"


def backup(timeline: int) -> Backup:
    segment = f"{timeline:08X}0000000000000007"
    return Backup("20261129-120100F", "full", 1, 60, 69, 10**9, 10**8, False, "0/1", "0/2", segment, segment)


def test_it_is_named_with_what_was_found_and_a_person_decides() -> None:
    found = find(UNSOUND)
    assert found.cause == "restored_unsound"
    assert ("found", STATE["unsound"]) in found.evidence
    assert ("restore", "RUN-1") in found.evidence
    diagnosis = assemble(UNSOUND, found, None, None)
    assert not diagnosis["healthy"]
    for language, word in (("en", "to an earlier time"), ("pt", "momento anterior")):
        reason = diagnosis["refuse"]["reason"][language]
        assert "messages, block 3" in reason
        assert "-e undo=last" in reason
        assert "backup.yml -e type=full -e prove=true" in reason
        assert word in reason


def test_whatever_else_is_wrong_is_mended_first() -> None:
    assert find(replace(UNSOUND, container=container(status="exited"), server=None)).cause == "container_stopped"
    # And once that is mended, what the restore has left is no failure of that remedy.
    assert find(UNSOUND).cause in SETTLED


@pytest.mark.parametrize(
    ("wish", "cause"),
    [(Wish(undo="last"), "undo_wanted"), (Wish(target_time="2026-11-28T12:00:00Z"), "wrong_data")],
)
def test_both_ways_back_are_open(wish: Wish, cause: str) -> None:
    assert wished(find(UNSOUND), UNSOUND, wish).cause == cause


def test_the_volume_of_before_is_not_removed_beside_it() -> None:
    wish = Wish(remove_volume="whats_agent_pgdata_old")
    found = wished(find(UNSOUND), UNSOUND, wish)
    assert found.cause == "restored_unsound"
    assert refused_removal(found, wish) is not None


def test_beside_a_full_disk_the_volume_of_before_stays_and_others_may_go() -> None:
    kept = reason_to_keep("whats_agent_pgdata_old", "whats_agent_pgdata_new", None, PROVEN, STATE)
    assert kept is not None
    assert "messages, block 3" in kept["en"]
    assert "único caminho de volta" in kept["pt"]
    assert reason_to_keep("whats_agent_pgdata_older", "whats_agent_pgdata_new", None, PROVEN, STATE) is None


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({}, id="as it was closed"),
        pytest.param({"unsound": None}, id="sound"),
        pytest.param({"new_volume": "another"}, id="another volume is in use"),
        pytest.param({"found_sound": {"backup": "x", "at": CLOSED}}, id="settled"),
    ],
)
def test_it_counts_while_its_volume_is_in_use_and_nothing_has_settled_it(
    place: DatabasePlace, changes: dict[str, Any]
) -> None:
    write_json(record_of(place), {**STATE, **changes})
    found = closed_unsound(place, STATE["new_volume"])
    assert (found is not None) == (not changes)


def test_a_later_restore_that_came_to_nothing_does_not_hide_it(place: DatabasePlace) -> None:
    given_up = {
        "id": "20261129T130000Z-cd34",
        "step": "fenced",
        "old_volume": STATE["new_volume"],
        "new_volume": "another",
    }
    write_json(place.restore_path, {**given_up, "finished_at": CLOSED, "failed": "no backup is left to try"})
    assert closed_unsound(place, STATE["new_volume"]) == STATE


def test_without_any_restore_there_is_nothing_to_tell_or_to_settle(place: DatabasePlace) -> None:
    record_of(place).unlink()
    place.restores_dir.rmdir()
    assert closed_unsound(place, STATE["new_volume"]) is None
    assert not note_proof(place, backup(3))
    assert not place.restores_dir.exists()


def test_only_a_backup_of_what_the_restore_left_settles_it(place: DatabasePlace) -> None:
    assert not note_proof(place, backup(2))
    assert read_json(record_of(place)) == STATE
    assert note_proof(place, backup(3))
    settled = read_json(record_of(place))
    assert isinstance(settled, dict)
    assert settled["found_sound"]["backup"] == "20261129-120100F"
    assert closed_unsound(place, STATE["new_volume"]) is None
    assert not note_proof(place, backup(3))
    assert read_json(record_of(place)) == settled
