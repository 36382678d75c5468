# SPDX-License-Identifier: GPL-3.0-or-later
"""The restore's steps: killed at any of them, a rerun does the rest once, and `.env` moves at one point only.

What each step does is tried on real servers (tests/molecule); here the steps are recorded, and the machine is real.
"""

from __future__ import annotations

import fcntl
import os
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psycopg
import pytest
from ansible.module_utils.whats_agent import env_file
from ansible.module_utils.whats_agent.clock import SYSTEM_CLOCK
from ansible.module_utils.whats_agent.errors import WhatsAgentError
from ansible.module_utils.whats_agent.files import read_json
from ansible.module_utils.whats_agent.lock import Idle
from ansible.module_utils.whats_agent.postgres_backrest import RESTORE_LABEL
from ansible.module_utils.whats_agent.postgres_host import DATA_DIR, DatabasePlace
from ansible.module_utils.whats_agent.postgres_plan import RestorePlan, find_restore
from ansible.module_utils.whats_agent.postgres_restore import Options, Restore
from ansible.module_utils.whats_agent.postgres_restore_steps import RestoreSteps
from ansible.module_utils.whats_agent.postgres_standby import (
    UnsoundBackupError,
    UnsoundContentError,
    UnsoundServiceError,
)
from ansible.module_utils.whats_agent.postgres_unfinished import STEPS

PLAN = RestorePlan(
    backup="20261124-132821F",
    repo=1,
    proven=True,
    backup_age=60,
    size=1000,
    needed=2000,
    free=9000,
    disk="",
    newest_wal="000000010000000000000005",
    wal_start="000000010000000000000003",
    holes=(),
    old_volume="old",
    old_readable=True,
    tail_segments=1,
    off_host=False,
    message_log=True,
)
ACTING = STEPS[1:]


class Killed(BaseException):
    """Stands for SIGKILL: no `except Exception` may take it."""


class Parts:
    """Docker and compose, as far as the machine itself asks them."""

    def __init__(self) -> None:
        self.volumes = {"old"}
        self.calls: list[str] = []
        self.restore = ""
        self.at_work: dict[str, list[str]] = {}
        self.asked_by: list[threading.Thread] = []

    def volume(self, name: str) -> Any:
        """Return whether a volume is there."""
        self.asked_by.append(threading.current_thread())
        return SimpleNamespace(name=name, labels={RESTORE_LABEL: self.restore}) if name in self.volumes else None

    def container(self, *_names: str) -> Any:
        """Return no container: nothing holds a volume."""
        return None

    def labelled(self, label: str) -> list[str]:
        """Return the one-shot containers of a restore that are still at work."""
        return self.at_work.get(label, [])

    def remove_container(self, name: str) -> None:
        """Record that a container goes."""
        self.calls.append(f"remove {name}")

    def remove_volume(self, name: str) -> None:
        """Remove a volume."""
        self.volumes.remove(name)

    def stop(self, *services: str) -> None:
        """Record a stop."""
        self.calls.append(f"stop {' '.join(services)}")

    def start(self, *services: str) -> None:
        """Record a start."""
        self.calls.append(f"start {' '.join(services)}")

    def services(self) -> list[str]:
        """Return the stack's services, with a WAL receiver."""
        return ["postgres", "worker", "wal_receiver"]

    def annotate(self, label: str, _repo: int, key: str, _value: str) -> None:
        """Record a verdict."""
        self.calls.append(f"{key} {label}")


@pytest.fixture
def place(tmp_path: Path) -> DatabasePlace:
    """Return a stack directory with a `.env`."""
    (tmp_path / ".env").write_text("DB_VOLUME=old\nDB_NAME=whats_agent\n")
    return DatabasePlace(tmp_path, tmp_path / "state", "whats_agent")


class Recorded(Restore):
    """A restore whose steps are recorded; `fails` maps a step to what it raises instead."""

    def __init__(
        self, place: DatabasePlace, parts: Parts, fails: dict[str, BaseException] | None = None, **options: Any
    ) -> None:
        backrest: Any = SimpleNamespace(docker=parts, compose=parts, annotate=parts.annotate)
        super().__init__(
            place,
            backrest,
            options=Options(**options),
            heart=Idle(),
            progress=lambda _step: pytest.fail("no step reports"),
            note=lambda step, _details: self.notes.append(step),
        )
        self.parts = parts
        self.fails = fails or {}
        self.notes: list[str] = []
        self.did: list[str] = []

    def plan(self, volume: str, rejected: tuple[str, ...] = ()) -> RestorePlan:
        """Plan without looking."""
        number = len(rejected)
        target_time = self._wanted_time()
        return replace(PLAN, old_volume=volume, backup=f"backup{number}", rejected=rejected, target_time=target_time)

    def _fill(self) -> dict[str, Any]:
        return {}

    def _stop_database(self, _timeout_s: int = 0) -> None:
        self.parts.calls.append("stop postgres")


def _recorded_step(step: str) -> Any:
    def act(self: Recorded) -> dict[str, Any]:
        if step == "restored":
            self.parts.volumes.add(self.state["new_volume"])
            self.parts.restore = self.state["id"]
        if step == "switched":
            env_file.set_env(self.place.env_path, {"DB_VOLUME": self.state["new_volume"]})
        self.did.append(step)
        if step in self.fails:
            raise self.fails.pop(step)
        return {}

    return act


for _step in ACTING:
    setattr(Recorded, f"_step_{_step}", _recorded_step(_step))


def state_of(place: DatabasePlace) -> dict[str, Any]:
    """Return what the state file holds."""
    found = read_json(place.restore_path)
    assert isinstance(found, dict)
    return found


def volume_of(place: DatabasePlace) -> str:
    """Return what `.env` names."""
    return env_file.read_env(place.env_path)["DB_VOLUME"]


def test_undisturbed_it_takes_every_step_once_and_in_order(place: DatabasePlace) -> None:
    restore = Recorded(place, Parts())
    state = restore.run()
    assert restore.did == list(ACTING)
    assert restore.notes == list(STEPS)
    assert volume_of(place) == state["new_volume"] != "old"
    assert state["finished_at"]


@pytest.mark.parametrize("step", ACTING)
def test_killed_in_any_step_a_rerun_repeats_it_and_does_the_rest(place: DatabasePlace, step: str) -> None:
    parts = Parts()
    with pytest.raises(Killed):
        Recorded(place, parts, {step: Killed()}).run()
    before = state_of(place)
    assert (volume_of(place) != "old") == (ACTING.index(step) >= ACTING.index("switched"))
    rerun = Recorded(place, parts)
    state = rerun.run()
    assert rerun.did == list(ACTING[ACTING.index(step) :])
    assert (state["id"], state["new_volume"]) == (before["id"], before["new_volume"])
    assert volume_of(place) == state["new_volume"]


@pytest.mark.parametrize("step", ACTING)
def test_the_writers_stay_stopped_until_they_are_let_in(place: DatabasePlace, step: str) -> None:
    parts = Parts()
    with pytest.raises(Killed):
        Recorded(place, parts, {step: Killed()}).run()
    parts.calls.clear()
    Recorded(place, parts).run()
    served = ACTING.index(step) > ACTING.index("served")
    assert ("stop worker" in parts.calls) is not served


def test_writers_that_cannot_be_stopped_end_it_before_anything_is_started(
    place: DatabasePlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_services: str) -> None:
        raise WhatsAgentError("the worker cannot be stopped")

    restore = Recorded(place, Parts())
    monkeypatch.setattr(restore.parts, "stop", refuse)
    with pytest.raises(WhatsAgentError, match="the worker cannot be stopped"):
        restore.run()
    assert restore.did == ["fenced", "restored"]
    assert volume_of(place) == "old"


class Filling(Recorded):
    """A restore that fills its volume for real beside the steps, until it is told to stop or `filled` is set."""

    filled = threading.Event()
    begun = threading.Event()

    def _fill(self) -> dict[str, Any]:
        self.begun.set()
        while not self.filled.wait(0.01):
            self._go_on()
        return {"bytes": 1}

    def _look_at_old(self) -> None:
        """See nothing."""

    _step_restored = RestoreSteps._step_restored


def filling(**steps: Callable[[Filling], dict[str, Any]]) -> type[Filling]:
    """Return it with events of its own, and with these of its methods replaced."""
    return type("OneFilling", (Filling,), {"filled": threading.Event(), "begun": threading.Event(), **steps})


def test_the_volume_is_being_filled_while_the_server_is_stopped(place: DatabasePlace) -> None:
    def fence(self: Filling) -> dict[str, Any]:
        assert self.begun.wait(10), "nothing is being filled while the server is stopped"
        self.filled.set()
        return {}

    assert filling(_step_fenced=fence)(place, Parts()).run()["finished_at"]


def test_the_engine_is_asked_before_the_threads_begin(place: DatabasePlace, monkeypatch: pytest.MonkeyPatch) -> None:
    parts = Parts()
    asked: list[list[threading.Thread]] = []

    def fill(_self: Recorded) -> dict[str, Any]:
        asked.append(list(parts.asked_by))
        return {}

    monkeypatch.setattr(Recorded, "_fill", fill)
    Recorded(place, parts).run()
    assert asked[0][:1] == [threading.main_thread()]


def test_what_ends_the_restore_ends_the_filling_too(place: DatabasePlace) -> None:
    def fence(self: Filling) -> dict[str, Any]:
        assert self.begun.wait(10)
        raise WhatsAgentError("the volume is in use")

    with pytest.raises(WhatsAgentError, match="the volume is in use"):
        filling(_step_fenced=fence)(place, Parts()).run()  # and not: for ever
    assert state_of(place)["step"] == "planned"


def test_what_keeps_the_volume_from_being_filled_is_told_when_it_is_waited_for(place: DatabasePlace) -> None:
    def fill(_self: Filling) -> dict[str, Any]:
        raise WhatsAgentError("the repository is gone")

    with pytest.raises(WhatsAgentError, match="the repository is gone"):
        filling(_fill=fill)(place, Parts()).run()
    assert state_of(place)["step"] == "fenced"


def test_a_plan_of_this_moment_is_not_made_twice(place: DatabasePlace) -> None:
    made = replace(PLAN, backup="of the diagnosis", disk=str(place.stack_dir), planned_at=SYSTEM_CLOCK.boottime())
    assert Recorded(place, Parts(), plan=made.as_dict()).run()["backup"] == "of the diagnosis"


@pytest.mark.parametrize(
    ("other", "options"),
    [
        pytest.param({"planned_at": SYSTEM_CLOCK.boottime() - 60}, {}, id="too old"),
        pytest.param({"planned_at": SYSTEM_CLOCK.boottime() + 600}, {}, id="of another boot"),
        pytest.param({"old_volume": "third"}, {}, id="another volume"),
        pytest.param({"target_time": "2026-01-31 12:00:00.000000+00"}, {}, id="another time"),
        pytest.param({}, {"undo": "last"}, id="an undo is looked up"),
    ],
)
def test_another_plan_or_an_old_one_is_made_anew(
    place: DatabasePlace, other: dict[str, Any], options: dict[str, Any]
) -> None:
    made = replace(PLAN, **{"backup": "of the diagnosis", "planned_at": SYSTEM_CLOCK.boottime(), **other})
    assert Recorded(place, Parts(), plan=made.as_dict(), **options).run()["backup"] == "backup0"


def test_a_disk_that_has_filled_since_the_plan_refuses_it(place: DatabasePlace) -> None:
    made = replace(PLAN, disk=str(place.stack_dir), needed=1 << 60, planned_at=SYSTEM_CLOCK.boottime())
    with pytest.raises(WhatsAgentError, match="free space first"):
        Recorded(place, Parts(), plan=made.as_dict()).run()


def test_what_is_no_plan_is_refused(place: DatabasePlace) -> None:
    with pytest.raises(WhatsAgentError, match="no plan of a restore"):
        Recorded(place, Parts(), plan={"backup": "x"}).run()


def test_a_finished_restore_is_not_taken_up_again(place: DatabasePlace) -> None:
    parts = Parts()
    first = Recorded(place, parts).run()
    again = Recorded(place, parts)
    second = again.run()
    assert second["id"] != first["id"]
    assert again.did == list(ACTING)


def test_an_unfinished_one_for_another_volume_is_not_taken_up(place: DatabasePlace) -> None:
    parts = Parts()
    with pytest.raises(Killed):
        Recorded(place, parts, {"restored": Killed()}).run()
    env_file.set_env(place.env_path, {"DB_VOLUME": "third"})
    parts.volumes.add("third")
    rerun = Recorded(place, parts)
    assert rerun.run()["old_volume"] == "third"
    assert rerun.did == list(ACTING)


@pytest.mark.parametrize("step", ["restored", "started", "replayed", "verified"])
def test_an_unsound_backup_is_marked_and_the_next_goes_into_another_volume(place: DatabasePlace, step: str) -> None:
    parts = Parts()
    restore = Recorded(place, parts, {step: UnsoundBackupError("bad")})
    state = restore.run()
    assert state["rejected"] == ["backup0"]
    assert state["backup"] == "backup1"
    assert state["old_volume"] == "old"
    assert "disproven backup0" in parts.calls
    assert parts.volumes == {"old", state["new_volume"]}  # the rejected one takes no space any more
    assert restore.did.count("restored") == 2


def test_the_unsound_ones_space_is_free_before_the_next_is_planned(place: DatabasePlace) -> None:
    class Counting(Recorded):
        def plan(self, volume: str, rejected: tuple[str, ...] = ()) -> RestorePlan:
            assert self.parts.volumes == {"old"}, "planned beside the volume that is of no use any more"
            return super().plan(volume, rejected)

    assert Counting(place, Parts(), {"verified": UnsoundBackupError("bad")}).run()["backup"] == "backup1"


def test_after_three_unsound_backups_it_gives_up_and_nothing_was_switched(place: DatabasePlace) -> None:
    class AlwaysUnsound(Recorded):
        def _step_verified(self) -> dict[str, Any]:
            raise UnsoundBackupError("bad")

    with pytest.raises(UnsoundBackupError):
        AlwaysUnsound(place, Parts()).run()
    assert volume_of(place) == "old"


def test_content_that_every_backup_leads_to_is_held_against_none(place: DatabasePlace) -> None:
    class AlwaysBroken(Recorded):
        def _step_verified(self) -> dict[str, Any]:
            raise UnsoundContentError("sequence behind")

    parts = Parts()
    with pytest.raises(UnsoundContentError, match="sequence behind"):
        AlwaysBroken(place, parts).run()
    assert not any(call.startswith("disproven") for call in parts.calls)


def test_content_that_another_backup_keeps_condemns_the_first(place: DatabasePlace) -> None:
    parts = Parts()
    state = Recorded(place, parts, {"verified": UnsoundContentError("rows lost")}).run()
    assert state["backup"] == "backup1"
    assert parts.calls[-1] == "disproven backup0"


def test_a_full_disk_is_the_reason_and_condemns_no_backup(
    place: DatabasePlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = Parts()
    full = WhatsAgentError("ran full")
    monkeypatch.setattr(Recorded, "_full_disk", lambda _self: full)
    with pytest.raises(WhatsAgentError, match="ran full"):
        Recorded(place, parts, {"restored": UnsoundBackupError("file missing")}).run()
    assert not any(call.startswith("disproven") for call in parts.calls)
    assert state_of(place)["step"] == "fenced"


def test_one_that_served_before_is_brought_back_and_the_half_filled_volume_goes(place: DatabasePlace) -> None:
    class Served(Recorded):
        def _step_fenced(self) -> dict[str, Any]:
            self._save(was_alive=True)
            return {}

    parts = Parts()
    with pytest.raises(WhatsAgentError, match="broken"):
        Served(place, parts, {"started": WhatsAgentError("broken")}).run()
    assert parts.calls[-3:] == ["start postgres", "start wal_receiver", "start worker"]
    assert parts.volumes == {"old"}
    assert state_of(place)["finished_at"]


class Alive(Recorded):
    """A restore of a database that answered when it was stopped."""

    def _step_fenced(self) -> dict[str, Any]:
        self._save(was_alive=True)
        return {}


class APIError(Exception):
    """Stands for an error of the engine's client, which no part of ours has told."""


@pytest.mark.parametrize("error", [OSError(5, "Input/output error"), APIError("500 Server Error")])
def test_an_error_that_nobody_foresaw_brings_the_database_back_and_is_told(
    place: DatabasePlace, error: Exception
) -> None:
    parts = Parts()
    with pytest.raises(WhatsAgentError, match=r"broke off after the step started.*Error") as told:
        Alive(place, parts, {"replayed": error}).run()
    assert parts.calls[-3:] == ["start postgres", "start wal_receiver", "start worker"]
    assert parts.volumes == {"old"}
    assert state_of(place)["failed"] == told.value.message
    assert any("_step_replayed" in line or "act" in line for line in told.value.details["traceback"])


def test_what_keeps_the_old_database_from_coming_back_is_told_beside_the_reason(
    place: DatabasePlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_names: str) -> None:
        raise APIError("the engine hangs")

    parts = Parts()
    monkeypatch.setattr(parts, "remove_volume", refuse)
    with pytest.raises(WhatsAgentError, match=r"no space.*could not be started again.*the engine hangs"):
        Alive(place, parts, {"replayed": WhatsAgentError("no space")}).run()


def test_a_receiver_that_does_not_start_keeps_no_writer_out(
    place: DatabasePlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = Parts()
    plain = parts.start

    def start(*services: str) -> None:
        plain(*services)
        if services == ("wal_receiver",):
            raise WhatsAgentError("cannot start wal_receiver")

    monkeypatch.setattr(parts, "start", start)
    restore = Alive(place, parts, {"started": WhatsAgentError("broken")})
    with pytest.raises(WhatsAgentError, match=r"^broken$"):
        restore.run()
    assert parts.calls[-1] == "start worker"
    assert "receiver_not_started" in restore.notes


CLOSING = ACTING[ACTING.index("served") + 1 :]


def test_the_writers_are_let_in_before_anything_that_may_fail_without_them() -> None:
    assert CLOSING == ("archiving", "checked", "backed_up")


@pytest.mark.parametrize("step", CLOSING)
@pytest.mark.parametrize("error", [WhatsAgentError("the repository is read-only", pt="só leitura"), OSError(5, "I/O")])
def test_what_fails_once_it_serves_is_told_and_a_rerun_goes_on_behind_it(
    place: DatabasePlace, step: str, error: Exception
) -> None:
    parts = Parts()
    with pytest.raises(WhatsAgentError, match=rf"serves, and .* in the step {step}: ") as told:
        Alive(place, parts, {step: error}, run_id="RUN-1").run()
    assert f"na etapa {step}" in told.value.details["pt"]
    # On a timeline that no repository has seen, nothing is gone back behind.
    assert ("-e undo=RUN-1" in told.value.message) is (step != "archiving")
    held = state_of(place)
    assert (held["held_up"], held.get("finished_at")) == (step, None)
    assert volume_of(place) == held["new_volume"]  # nothing was brought back behind those who write already
    assert find_restore(place, "RUN-1")["old_volume"] == "old"
    parts.calls.clear()
    rerun = Recorded(place, parts)
    state = rerun.run()
    assert rerun.did == list(CLOSING[CLOSING.index(step) :])
    assert "stop worker" not in parts.calls
    assert state["finished_at"]
    assert state["held_up"] is None


def test_what_serves_and_is_not_sound_ends_the_restore_without_a_backup(place: DatabasePlace) -> None:
    restore = Alive(place, Parts(), {"checked": UnsoundServiceError("not sound: structure")}, run_id="RUN-1")
    with pytest.raises(WhatsAgentError, match=r"not sound: structure\. No backup .*-e undo=RUN-1.*target_time") as told:
        restore.run()
    assert "nenhum backup" in told.value.details["pt"].lower()
    assert "backed_up" not in restore.did
    assert state_of(place)["finished_at"]
    assert find_restore(place, "RUN-1")["unsound"] == "not sound: structure"


@pytest.mark.parametrize(
    ("wish", "resumed"),
    [
        pytest.param({}, True, id="nothing else is asked for"),
        pytest.param({"undo": "last"}, False, id="back behind it"),
        pytest.param({"target_time": "2026-01-31T12:00:00Z"}, False, id="an earlier time"),
    ],
)
def test_what_else_the_operator_asks_for_closes_one_that_only_has_to_be_closed(
    place: DatabasePlace, wish: dict[str, Any], resumed: bool
) -> None:
    parts = Parts()
    with pytest.raises(WhatsAgentError):
        Recorded(place, parts, {"backed_up": WhatsAgentError("no")}).run()
    held = state_of(place)
    rerun = Recorded(place, parts, **wish)
    state = rerun.run()
    assert (state["id"] == held["id"]) is resumed
    assert rerun.did == (["backed_up"] if resumed else list(ACTING))
    if not resumed:
        assert find_restore(place, held["id"])["superseded"]
        assert state["old_volume"] == held["new_volume"]


def test_while_archiving_is_not_proven_nothing_else_is_begun(place: DatabasePlace) -> None:
    parts = Parts()
    with pytest.raises(WhatsAgentError):
        Recorded(place, parts, {"archiving": WhatsAgentError("no")}).run()
    with pytest.raises(WhatsAgentError, match="is not finished, so nothing else is begun"):
        Recorded(place, parts, undo="last").run()


@pytest.mark.parametrize("wish", [{}, {"target_time": "2026-01-31T12:00:00Z"}])
def test_a_restore_to_a_time_is_closed_by_a_rerun_with_or_without_the_time(
    place: DatabasePlace, wish: dict[str, Any]
) -> None:
    class ToATime(Recorded):
        def plan(self, volume: str, rejected: tuple[str, ...] = ()) -> RestorePlan:
            return replace(super().plan(volume, rejected), target_time=self._wanted_time())

    parts = Parts()
    with pytest.raises(WhatsAgentError):
        ToATime(place, parts, {"archiving": WhatsAgentError("no")}, target_time="2026-01-31T12:00:00Z").run()
    assert ToATime(place, parts, **wish).run()["id"] == state_of(place)["id"]
    assert len(list((place.state_dir / "restores").iterdir())) == 1


def test_a_half_filled_volume_that_somebody_removed_is_filled_again(place: DatabasePlace) -> None:
    parts = Parts()
    with pytest.raises(Killed):
        Recorded(place, parts, {"replayed": Killed()}).run()
    parts.volumes.remove(state_of(place)["new_volume"])
    rerun = Recorded(place, parts)
    rerun.run()
    assert rerun.did == list(ACTING[ACTING.index("restored") :])


@pytest.mark.parametrize("step", ["replayed", "verified", "switched"])
def test_a_database_of_before_that_somebody_started_again_is_not_taken_for_what_was_restored(
    place: DatabasePlace, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    parts = Parts()
    with pytest.raises(Killed):
        Recorded(place, parts, {step: Killed()}, target_time=NOON).run()
    env_file.set_env(place.env_path, {"DB_VOLUME": "old"})
    back = SimpleNamespace(id="c", mounts={DATA_DIR: "old"})
    monkeypatch.setattr(Parts, "container", lambda *_names: back)
    rerun = Recorded(place, parts, target_time=NOON)
    rerun.run()
    assert rerun.did == list(ACTING[ACTING.index("restored") :])


def test_an_error_that_no_other_backup_mends_is_not_held_against_the_backup(place: DatabasePlace) -> None:
    parts = Parts()
    with pytest.raises(WhatsAgentError, match="disk"):
        Recorded(place, parts, {"started": WhatsAgentError("disk full")}).run()
    assert not any(call.startswith("disproven") for call in parts.calls)


@pytest.mark.parametrize("step", ["replayed", "verified", "promoted", "checked"])
def test_a_server_that_somebody_restarts_is_waited_for_and_the_step_taken_again(
    place: DatabasePlace, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    waited: list[str] = []
    monkeypatch.setattr(Recorded, "_have_it_open", lambda self: waited.append(self.state["step"]))
    restore = Recorded(place, Parts(), {step: psycopg.errors.AdminShutdown("terminating connection")})
    restore.run()
    assert waited == [STEPS[STEPS.index(step) - 1]]
    assert restore.did.count(step) == 2
    assert "connection_lost" in restore.notes


def test_an_error_of_the_server_itself_is_not_taken_for_a_restart(place: DatabasePlace) -> None:
    restore = Recorded(place, Parts(), {"verified": psycopg.errors.QueryCanceled("statement timeout")})
    with pytest.raises(WhatsAgentError, match="broke off in the step verified"):
        restore.run()
    assert restore.did.count("verified") == 1


def test_a_second_restore_is_kept_out(place: DatabasePlace) -> None:
    place.state_dir.mkdir()
    guard = os.open(place.state_dir / "restore.guard", os.O_RDWR | os.O_CREAT)
    fcntl.flock(guard, fcntl.LOCK_EX)
    try:
        with pytest.raises(WhatsAgentError, match="another restore is at work"):
            Recorded(place, Parts()).run()
    finally:
        os.close(guard)


def test_an_abandoned_restore_lets_the_writers_in(place: DatabasePlace) -> None:
    parts = Parts()
    with pytest.raises(Killed):
        Recorded(place, parts, {"fenced": Killed()}).run()
    closing = Recorded(place, parts)
    assert closing.abandon()
    assert parts.calls[-2:] == ["start wal_receiver", "start worker"]
    assert state_of(place)["abandoned"]
    assert not Recorded(place, parts).abandon()


def test_a_restore_that_has_switched_is_finished_not_abandoned(place: DatabasePlace) -> None:
    parts = Parts()
    with pytest.raises(Killed):
        Recorded(place, parts, {"promoted": Killed()}).run()
    with pytest.raises(WhatsAgentError, match="finished, not abandoned"):
        Recorded(place, parts).abandon()


NOON, ONE = "2026-01-31T12:00:00Z", "2026-01-31T13:00:00Z"
WISHES = [pytest.param({"target_time": NOON}, id="point in time"), pytest.param({"undo": "last"}, id="undo")]


@pytest.mark.parametrize("same", [True, False], ids=["the same command", "a plain one"])
@pytest.mark.parametrize("step", ACTING)
@pytest.mark.parametrize("wish", WISHES)
def test_a_killed_one_is_finished_as_it_was_wanted(
    place: DatabasePlace, wish: dict[str, Any], step: str, same: bool
) -> None:
    parts = Parts()
    with pytest.raises(Killed):
        Recorded(place, parts, {step: Killed()}, **wish).run()
    begun = state_of(place)
    rerun = Recorded(place, parts, **(wish if same else {}))
    state = rerun.run()
    assert rerun.did == list(ACTING[ACTING.index(step) :])
    assert [state[name] for name in ("id", "target_time", "undo")] == [
        begun[name] for name in ("id", "target_time", "undo")
    ]
    assert (state["target_time"] is not None) == ("target_time" in wish)


def test_a_plain_rerun_plans_the_next_backup_for_the_time_that_was_wanted(place: DatabasePlace) -> None:
    class Times(Recorded):
        def plan(self, volume: str, rejected: tuple[str, ...] = ()) -> RestorePlan:
            self.notes.append(f"to {self._wanted_time()}")
            return replace(super().plan(volume, rejected), target_time=self._wanted_time())

    parts = Parts()
    with pytest.raises(Killed):
        Times(place, parts, {"restored": Killed()}, target_time=NOON).run()
    rerun = Times(place, parts, {"verified": UnsoundBackupError("bad")})
    assert rerun.run()["backup"] == "backup1"
    assert "to 2026-01-31 12:00:00.000000+00:00" in rerun.notes


@pytest.mark.parametrize("other", [{"target_time": ONE}, {"undo": "r0"}], ids=["time", "undo"])
@pytest.mark.parametrize("wish", [{}, {"target_time": NOON}, {"undo": "last"}], ids=["latest", "time", "undo"])
@pytest.mark.parametrize("step", ["fenced", "restored", "started", "verified"])
def test_another_wish_gives_up_what_has_not_switched_and_leaves_nothing_of_it(
    place: DatabasePlace, step: str, wish: dict[str, Any], other: dict[str, Any]
) -> None:
    parts = Parts()
    with pytest.raises(Killed):
        Recorded(place, parts, {step: Killed()}, **wish).run()
    first = state_of(place)
    parts.at_work = {f"{RESTORE_LABEL}={first['id']}": ["left"]}
    clock = SimpleNamespace(**{name: getattr(SYSTEM_CLOCK, name) for name in ("rfc3339", "boottime", "wall")})
    clock.stamp = lambda: "20300101T000000Z"
    rerun = Recorded(place, parts, **other)
    rerun.clock = clock  # type: ignore[assignment]
    state = rerun.run()
    assert state["id"] != first["id"]
    assert "remove left" in parts.calls
    assert first["new_volume"] not in parts.volumes
    assert parts.volumes == {"old", state["new_volume"]}
    assert "given_up" in rerun.notes
    assert rerun.did == list(ACTING)


def test_what_served_before_the_one_given_up_is_brought_back_when_the_other_fails(place: DatabasePlace) -> None:
    class Served(Recorded):
        def _step_fenced(self) -> dict[str, Any]:
            self._save(was_alive=True)
            return {}

    parts = Parts()
    with pytest.raises(Killed):
        Served(place, parts, {"restored": Killed()}, target_time=NOON).run()
    with pytest.raises(WhatsAgentError, match="broken"):
        Recorded(place, parts, {"started": WhatsAgentError("broken")}, target_time=ONE).run()
    assert parts.calls[-3:] == ["start postgres", "start wal_receiver", "start worker"]
    assert parts.volumes == {"old"}


def test_the_diagnosis_own_plan_is_made_anew_once_another_was_given_up(place: DatabasePlace) -> None:
    parts = Parts()
    with pytest.raises(Killed):
        Recorded(place, parts, {"restored": Killed()}).run()
    moment = "2026-01-31 12:00:00.000000+00:00"
    made = replace(
        PLAN,
        backup="of the diagnosis",
        target_time=moment,
        disk=str(place.stack_dir),
        planned_at=SYSTEM_CLOCK.boottime(),
    )
    rerun = Recorded(place, parts, target_time=NOON, plan=made.as_dict())
    assert rerun.run()["backup"] == "backup0"


@pytest.mark.parametrize("other", [{"target_time": ONE}, {"undo": "r0"}], ids=["time", "undo"])
@pytest.mark.parametrize("step", ["switched", "promoted", "archiving", "served"])
def test_from_the_switch_until_it_serves_another_wish_is_refused(
    place: DatabasePlace, step: str, other: dict[str, Any]
) -> None:
    parts = Parts()
    with pytest.raises(Killed):
        Recorded(place, parts, {step: Killed()}).run()
    before = state_of(place)
    rerun = Recorded(place, parts, **other)
    with pytest.raises(
        WhatsAgentError, match=r"has switched volumes and is not finished.*run playbooks/recover_db\.yml"
    ):
        rerun.run()
    assert (rerun.did, state_of(place)) == ([], before)


def test_one_that_serves_may_be_gone_back_behind_and_keeps_its_record(place: DatabasePlace) -> None:
    parts = Parts()
    with pytest.raises(Killed):
        Recorded(place, parts, {"checked": Killed()}).run()
    first = state_of(place)
    state = Recorded(place, parts, target_time=NOON).run()
    assert state["old_volume"] == first["new_volume"]
    assert {"old", first["new_volume"]} <= parts.volumes
    record = read_json(place.state_dir / "restores" / f"{first['id']}.json")
    assert isinstance(record, dict)
    assert record["superseded"]


@pytest.mark.parametrize("wish", WISHES)
def test_a_dry_run_foresees_what_is_finished(place: DatabasePlace, wish: dict[str, Any]) -> None:
    parts = Parts()
    with pytest.raises(Killed):
        Recorded(place, parts, {"replayed": Killed()}, **wish).run()
    before = state_of(place)
    foreseen = Recorded(place, parts).foresee()
    assert foreseen == {
        "finishes": before["id"],
        "step": "started",
        "target_time": before["target_time"],
        "undo": before["undo"],
    }
    assert Recorded(place, parts, target_time=ONE).foresee()["backup"] == "backup0"
    assert state_of(place) == before


def test_the_steps_and_their_methods_are_the_same_list() -> None:
    methods = {name.removeprefix("_step_") for name in vars(RestoreSteps) if name.startswith("_step_")}
    assert methods == set(ACTING)
