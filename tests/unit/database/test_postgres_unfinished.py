# SPDX-License-Identifier: GPL-3.0-or-later
"""What is wanted while a restore is unfinished: what it was begun for is finished, anything else needs consent or has to wait."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ansible.module_utils.whats_agent import postgres_diagnosis as diagnosis
from ansible.module_utils.whats_agent import postgres_unfinished as unfinished
from ansible.module_utils.whats_agent.clock import SYSTEM_CLOCK
from ansible.module_utils.whats_agent.files import write_json
from ansible.module_utils.whats_agent.postgres_causes import Finding, find
from ansible.module_utils.whats_agent.postgres_diagnosis import Wish, assemble, refused_wish, wished
from ansible.module_utils.whats_agent.postgres_host import DatabasePlace
from ansible.module_utils.whats_agent.postgres_observe import Observed, VolumeFacts
from ansible.module_utils.whats_agent.postgres_plan import find_restore

VOLUME = VolumeFacts(
    name="old", present=True, mountpoint="/v/old", empty=False, version="17", control_file=True, free=1 << 40
)
LATEST: dict[str, Any] = {
    "id": "r1",
    "step": "restored",
    "target_time": None,
    "undo": None,
    "old_volume": "old",
    "new_volume": "new",
}
TO_NOON = {**LATEST, "target_time": "2026-01-31 12:00:00.000000+00:00"}
UNDO = {**LATEST, "undo": "last", "source_volume": "older"}
UNFINISHED = Finding("restore_unfinished", (("step", "restored"),))
NOON, ONE = "2026-01-31T09:00:00-03:00", "2026-01-31T13:00:00Z"


def seen(state: dict[str, Any] | None, volume: str = "old") -> Observed:
    """Return what was seen of a stack whose `.env` names this volume, with this restore unfinished."""
    return Observed(database="whats_agent", volume=replace(VOLUME, name=volume), restore=state)


@pytest.mark.parametrize(
    ("state", "target_time", "undo", "same"),
    [
        (LATEST, None, None, True),
        (TO_NOON, None, None, True),
        (UNDO, None, None, True),
        (TO_NOON, NOON, None, True),
        (TO_NOON, ONE, None, False),
        (TO_NOON, "noon", None, False),
        (TO_NOON, None, "last", False),
        (LATEST, NOON, None, False),
        (LATEST, None, "last", False),
        (UNDO, None, "last", True),
        (UNDO, None, "r0", False),
        (UNDO, NOON, None, False),
    ],
)
def test_the_wish_it_was_begun_for_is_known_again(
    state: dict[str, Any], target_time: str | None, undo: str | None, same: bool
) -> None:
    assert unfinished.same_wish(state, target_time, undo) is same


@pytest.mark.parametrize(
    ("step", "volume", "present", "on"),
    [
        ("verified", "old", True, True),
        ("planned", "old", False, True),  # restored because it was lost
        ("verified", "new", True, True),  # killed between the rename and its note
        ("promoted", "new", True, True),
        ("promoted", "new", False, False),
        ("promoted", "old", True, False),  # put back by hand
        ("restored", "third", True, False),
    ],
)
def test_it_goes_on_only_beside_the_volume_that_it_needs(step: str, volume: str, present: bool, on: bool) -> None:
    assert unfinished.goes_on({**LATEST, "step": step}, volume, present=present) is on


@pytest.mark.parametrize("state", [LATEST, TO_NOON, UNDO])
def test_a_plain_rerun_finishes_it(state: dict[str, Any]) -> None:
    assert wished(UNFINISHED, seen(state), Wish()) == UNFINISHED


@pytest.mark.parametrize(
    ("state", "wish"),
    [(TO_NOON, Wish(target_time=NOON)), (UNDO, Wish(undo="last"))],
    ids=["point in time", "undo"],
)
@pytest.mark.parametrize("volume", ["old", "new"])
def test_the_same_command_finishes_it(state: dict[str, Any], wish: Wish, volume: str) -> None:
    assert wished(UNFINISHED, seen(state, volume), wish) == UNFINISHED
    assert refused_wish(UNFINISHED, seen(state, volume), wish) is None


@pytest.mark.parametrize(
    ("wish", "cause"), [(Wish(target_time=ONE), "wrong_data"), (Wish(undo="r0"), "undo_wanted")], ids=["time", "undo"]
)
@pytest.mark.parametrize(
    ("state", "volume"),
    [(LATEST, "old"), (TO_NOON, "old"), (UNDO, "old"), ({**TO_NOON, "step": "archiving"}, "new")],
    ids=["of a latest", "of a time", "of an undo", "of one that serves and is archived"],
)
def test_another_wish_is_one_of_its_own_which_needs_consent_and_names_what_is_given_up(
    state: dict[str, Any], volume: str, wish: Wish, cause: str
) -> None:
    finding = wished(UNFINISHED, seen(state, volume), wish)
    assert finding.cause == cause
    assert "r1" in dict(finding.evidence)["given up for it"]
    assert assemble(seen(state, volume), finding, None, None)["state"]["gives_up"] == "r1"


@pytest.mark.parametrize("wish", [Wish(target_time=ONE), Wish(undo="r0")], ids=["time", "undo"])
@pytest.mark.parametrize("step", ["switched", "promoted", "served"])
def test_while_it_has_switched_and_is_not_archived_another_wish_has_to_wait(step: str, wish: Wish) -> None:
    observed = seen({**TO_NOON, "step": step}, "new")
    finding = wished(UNFINISHED, observed, wish)
    assert finding == UNFINISHED
    refused = refused_wish(finding, observed, wish)
    assert refused is not None
    assert "r1 (back to 2026-01-31 12:00:00.000000+00:00)" in refused["en"]
    assert "run playbooks/recover_db.yml" in refused["en"]
    assert "execute playbooks/recover_db.yml" in refused["pt"]


def test_a_wish_beside_no_restore_gives_none_up() -> None:
    finding = wished(Finding("healthy"), seen(None), Wish(target_time=NOON))
    assert finding.cause == "wrong_data"
    assert assemble(seen(None), finding, None, None)["state"]["gives_up"] is None


def test_a_consent_to_what_it_was_begun_for_fits_as_long_as_nothing_has_been_stopped() -> None:
    """Killed right after it was planned: the database serves, and the same command is judged like the first."""
    before = assemble(seen(None), wished(Finding("healthy"), seen(None), Wish(target_time=NOON)), None, None)
    state = {**TO_NOON, "step": "planned"}
    again = wished(Finding("restore_abandoned"), seen(state), Wish(target_time=NOON))
    assert assemble(seen(state), again, None, None)["state"] == before["state"]


class Planned(list[Any]):
    """What was asked of the planners, in place of a plan."""

    def of(self, kind: str) -> Any:
        """Return a planner that notes what it is asked."""
        return lambda _backrest, volume, *given, **asked: self.append({"kind": kind, "volume": volume, **asked})


@pytest.fixture
def planned(monkeypatch: pytest.MonkeyPatch) -> Planned:
    """Stand in for the planners."""
    asked = Planned()
    monkeypatch.setattr(diagnosis, "plan_restore", asked.of("restore"))
    monkeypatch.setattr(diagnosis, "plan_undo", asked.of("undo"))
    monkeypatch.setattr(diagnosis, "find_restore", lambda _place, wanted: wanted)
    return asked


BACKREST: Any = SimpleNamespace(place=None, docker=SimpleNamespace(volume=lambda _name: None))


@pytest.mark.parametrize("wish", [Wish(), Wish(target_time=NOON)], ids=["plain", "the same"])
def test_the_unfinished_one_is_planned_as_it_was_begun_and_what_it_stopped_is_not_dead(
    planned: Planned, wish: Wish
) -> None:
    state = {**TO_NOON, "was_alive": True, "rejected": ["b"]}
    diagnosis._plan(BACKREST, seen(state), UNFINISHED, wish, SYSTEM_CLOCK)
    assert planned[0]["kind"] == "restore"
    assert planned[0]["target_time"] == TO_NOON["target_time"]
    assert (planned[0]["alive"], planned[0]["rejected"]) == (True, ("b",))


def test_a_plain_rerun_plans_an_unfinished_undo_as_one(planned: Planned) -> None:
    diagnosis._plan(BACKREST, seen(UNDO), UNFINISHED, Wish(), SYSTEM_CLOCK)
    assert planned[0]["kind"] == "undo"


def test_another_wish_is_planned_for_itself(planned: Planned) -> None:
    state = {**TO_NOON, "was_alive": True, "rejected": ["b"]}
    finding = wished(UNFINISHED, seen(state), Wish(target_time=ONE))
    diagnosis._plan(BACKREST, seen(state), finding, Wish(target_time=ONE), SYSTEM_CLOCK)
    assert (planned[0]["target_time"], planned[0]["alive"], planned[0]["rejected"]) == (ONE, False, ())


def test_one_that_cannot_go_on_hides_nothing() -> None:
    lost = replace(VOLUME, name="third", present=False)
    assert find(Observed(database="x", volume=lost, restore=TO_NOON)).cause == "volume_lost"
    gone = replace(VOLUME, name="new", present=False)
    assert find(Observed(database="x", volume=gone, restore={**TO_NOON, "step": "served"})).cause == "volume_lost"
    own = replace(VOLUME, present=False)
    assert find(Observed(database="x", volume=own, restore=TO_NOON)).cause == "restore_unfinished"


def test_one_that_serves_can_be_gone_back_behind_before_it_has_finished(tmp_path: Path) -> None:
    place = DatabasePlace(tmp_path, tmp_path, "whats_agent")
    place.restores_dir.mkdir(parents=True)
    write_json(place.restores_dir / "r0.json", {**LATEST, "id": "r0", "run": "run0", "finished_at": "t"})
    for step, latest in (("promoted", "r0"), ("served", "r1")):
        write_json(place.restore_path, {**LATEST, "run": "run1", "step": step})
        assert find_restore(place, "last")["id"] == latest
