# SPDX-License-Identifier: GPL-3.0-or-later
"""While a run verifies, its lease lives: a verification may wait longer than a lease does, and a timer takes a dead one over."""

from __future__ import annotations

import importlib
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from ansible.module_utils.whats_agent.clock import SYSTEM_CLOCK
from ansible.module_utils.whats_agent.lock import TIME_TO_LIVE, HostLock

from oncall.project import ROOT

if TYPE_CHECKING:
    from pathlib import Path

RUN = "20260101T000000Z-00000001"
OTHER = "20260101T000000Z-00000002"
HOLDER = {"user": "ana", "controller": "laptop", "entry_point": "ansible-playbook"}
# The modules that wait for something to become well, and what they wait in.
WAITING = {
    "app_check": "wait_for_checks",
    "message_replay": "wait_for_replay",
    "postgres_check": "look",
    "redis_check": "wait_for_checks",
    "webhook_probe": "probe",
}
VERIFICATIONS = sorted((ROOT / "roles").glob("*/tasks/verify.yml"))

Wait = Callable[[str, Callable[[], None]], dict[str, Any]]


class Answer(list[Any]):
    """What any of the waits returns: no check, and so nothing that is not well."""

    def as_dict(self) -> dict[str, Any]:
        """Return it as a wait for the message log does."""
        return {"ok": True}


class NoProject:
    """A compose project without a file."""

    def __init__(self, *_args: object) -> None:
        """Take what the real one takes."""

    def replicas(self) -> dict[str, int]:
        """Return that nothing is wanted."""
        return {}


@pytest.fixture
def wait(tmp_path: Path, run_module: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> Wait:
    """Return `wait(module, during)`: runs a module that has its wait replaced by `during`, and returns what it returned."""

    def run(module: str, during: Callable[[], None], **how: bool) -> dict[str, Any]:
        def waits(*_args: object, **_keywords: object) -> Answer:
            during()
            return Answer()

        loaded = importlib.import_module(module)
        monkeypatch.setattr(loaded, WAITING[module], waits)
        if hasattr(loaded, "ComposeProject"):
            monkeypatch.setattr(loaded, "ComposeProject", NoProject)
        result: dict[str, Any] = run_module(module, {"run_id": RUN, "state_dir": str(tmp_path)}, **how)
        return result

    return run


def _hold(state_dir: Path, run_id: str, age: float) -> HostLock:
    """Take the lease, with its last heartbeat `age` seconds ago."""
    before = replace(SYSTEM_CLOCK, boottime=lambda: SYSTEM_CLOCK.boottime() - age)
    HostLock(state_dir, clock=before).acquire(run_id, "database", HOLDER)
    return HostLock(state_dir)


@pytest.mark.parametrize("module", WAITING)
def test_the_lease_beats_while_a_module_waits(module: str, tmp_path: Path, wait: Wait) -> None:
    lock = _hold(tmp_path, RUN, age=TIME_TO_LIVE - 1)
    seen = []

    def during() -> None:
        lease = lock.read()
        assert lease is not None
        seen.append(SYSTEM_CLOCK.boottime() - lease.beat)
        assert "lease-heartbeat" in [thread.name for thread in threading.enumerate()], "nothing goes on beating"

    wait(module, during)
    assert seen[0] < TIME_TO_LIVE / 2


@pytest.mark.parametrize("module", WAITING)
def test_a_lost_lease_ends_the_verification(module: str, tmp_path: Path, wait: Any) -> None:
    _hold(tmp_path, OTHER, age=0)
    result = wait(module, lambda: None, fails=True)
    assert f"run {RUN} lost its lease on this host" in result["msg"]


@pytest.mark.parametrize("module", WAITING)
def test_a_dry_run_has_no_lease_to_keep(module: str, wait: Any) -> None:
    wait(module, lambda: None, check=True)


def test_every_verification_names_its_run() -> None:
    named = []
    for path in VERIFICATIONS:
        for task in yaml.safe_load(path.read_text(encoding="utf-8")):
            for module in WAITING.keys() & task.keys():
                where = f"{path.parts[-3]}: {module}"
                assert task[module].get("run_id") == "{{ runbook_run_id }}", f"{where} lets the lease lapse"
                assert task[module].get("state_dir"), f"{where} does not say where the lease lies"
                named.append(module)
    assert set(named) == set(WAITING), "a module of WAITING verifies nothing"
