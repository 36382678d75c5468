# SPDX-License-Identifier: GPL-3.0-or-later
"""The restore's closing backup: one that a killed run has left at work is waited for, and taken if it will do."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.whats_agent.clock import Clock
from ansible.module_utils.whats_agent.errors import WhatsAgentError
from ansible.module_utils.whats_agent.journal import Progress
from ansible.module_utils.whats_agent.lock import Idle
from ansible.module_utils.whats_agent.pgbackrest import Backup, Repository, RunningBackup
from ansible.module_utils.whats_agent.postgres_backup import FOLLOW_INTERVAL_S, STANDSTILL_S
from ansible.module_utils.whats_agent.postgres_host import DatabasePlace
from ansible.module_utils.whats_agent.postgres_restore_steps import RestoreSteps


@pytest.fixture
def place(tmp_path: Path) -> DatabasePlace:
    """Return a stack directory."""
    return DatabasePlace(tmp_path, tmp_path / "state", "whats_agent")


class Repositories:
    """pgBackRest after the promotion to timeline 2, as far as the closing backup asks it. `running` are the bytes done."""

    def __init__(self, backups: list[Backup], running: list[int]) -> None:
        self.listed = backups
        self.running = running
        self.taken: list[tuple[str, int]] = []
        self.keys = {1: 0, 2: 0}

    def repositories(self) -> list[int]:
        """Return the numbers of two repositories."""
        return [1, 2]

    def running_backup(self) -> RunningBackup | None:
        """Return how far the backup in the container is, once per call, and None when it has ended."""
        return RunningBackup(self.running.pop(0), 100) if self.running else None

    def info(self) -> Repository:
        """Return what is listed."""
        return Repository(0, "ok", "", tuple(self.listed), "", "", keys=self.keys)

    def backup(self, kind: str, repo: int, _on_percent: Any) -> Backup:
        """Take one."""
        self.taken.append((kind, repo))
        return full(f"taken{repo}", repo, 2)


def full(label: str, repo: int, timeline: int, **changes: Any) -> Backup:
    """Make a full backup that began on a timeline."""
    wal = f"{timeline:08X}0000000000000009"
    base = Backup(label, "full", repo, 10, 20, 1, 1, False, "", "", wal, wal)
    return replace(base, **changes)


class Closing(RestoreSteps):
    """The closing backup alone."""

    def __init__(self, place: DatabasePlace, repositories: Repositories, now: list[float]) -> None:
        def sleep(seconds: float) -> None:
            now[0] += seconds

        backrest: Any = repositories
        backrest.docker = backrest.compose = None
        clock = Clock(boottime=lambda: now[0], sleep=sleep)
        super().__init__(place, backrest, heart=Idle(), progress=lambda step: Progress(None, step), clock=clock)
        self.state = {"timeline": 2}

    def _save(self, **changes: Any) -> None:
        self.state.update(changes)

    def _ensure_running(self) -> None:
        pass


@pytest.fixture
def checkpoints(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Stand in for the connection to PostgreSQL; gives what is executed over it."""
    executed: list[str] = []

    class Connection(contextlib.AbstractContextManager["Connection"]):
        def __exit__(self, *_: object) -> None:
            pass

        def execute(self, statement: str) -> None:
            executed.append(statement)

    monkeypatch.setattr("ansible.module_utils.whats_agent.postgres_restore_steps.connect", lambda *_: Connection())
    return executed


@pytest.mark.usefixtures("checkpoints")
@pytest.mark.parametrize(
    ("listed", "accepted"),
    [
        pytest.param([full("left", 1, 2)], True, id="full and begun after the promotion"),
        pytest.param([full("left", 1, 1)], False, id="begun before the promotion"),
        pytest.param([full("left", 1, 2, error=True)], False, id="with damaged pages"),
        pytest.param([full("left", 1, 2, type="incr")], False, id="not a full one"),
        pytest.param([full("left", 2, 2)], False, id="in another repository"),
        pytest.param([], False, id="it failed"),
    ],
)
def test_the_backup_of_a_killed_run_is_waited_for_and_accepted_if_it_will_do(
    place: DatabasePlace, listed: list[Backup], accepted: bool
) -> None:
    now = [0.0]
    repositories = Repositories(listed, running=[10, 50, 100])
    closing = Closing(place, repositories, now)
    closing._step_backed_up()
    assert now[0] == 3 * FOLLOW_INTERVAL_S
    assert ("full", 1) not in repositories.taken if accepted else ("full", 1) in repositories.taken
    assert closing.state["new_backups"]["1"] == ("left" if accepted else "taken1")


@pytest.mark.usefixtures("checkpoints")
def test_a_backup_left_at_work_that_stands_still_is_an_error_that_says_how_to_end_it(place: DatabasePlace) -> None:
    now = [0.0]
    repositories = Repositories([], running=[70] * 100_000)
    with pytest.raises(WhatsAgentError, match=r"stood still for 2400 s at 70 of 100 bytes.*--force stop"):
        Closing(place, repositories, now)._step_backed_up()
    assert now[0] <= STANDSTILL_S + 2
    assert not repositories.taken


@pytest.mark.usefixtures("checkpoints")
def test_a_slow_backup_left_at_work_is_waited_for_as_long_as_it_grows(place: DatabasePlace) -> None:
    now = [0.0]
    slow = [done for done in range(4) for _ in range(int(STANDSTILL_S) - 10)]
    Closing(place, Repositories([full("left", 1, 2), full("left2", 2, 2)], running=slow), now)._step_backed_up()
    assert now[0] > 2 * STANDSTILL_S


@pytest.mark.usefixtures("checkpoints")
def test_a_repository_that_is_away_keeps_no_restore_from_its_end(place: DatabasePlace) -> None:
    repositories = Repositories([], running=[])
    repositories.keys = {1: 0, 2: 99}
    done = Closing(place, repositories, [0.0])._step_backed_up()
    assert repositories.taken == [("full", 1)]
    assert "repository 2 cannot be reached" in done["away"]
