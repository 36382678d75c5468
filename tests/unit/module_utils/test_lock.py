# SPDX-License-Identifier: GPL-3.0-or-later
"""The lease lock, with real processes and files."""

from __future__ import annotations

import fcntl
import multiprocessing
import os
import re
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.whats_agent.clock import SYSTEM_CLOCK, Clock
from ansible.module_utils.whats_agent.errors import WhatsAgentError
from ansible.module_utils.whats_agent.lock import HostLock, Lease, LeaseLostError, LockHeldError, heartbeat

HOLDER = {"user": "ana", "controller": "laptop", "entry_point": "ansible-playbook"}
FORK = multiprocessing.get_context("fork")


@pytest.fixture
def processes() -> Iterator[list[BaseProcess]]:
    """Collect processes that are killed at the test's end."""
    started: list[BaseProcess] = []
    yield started
    for process in started:
        process.kill()
        process.join()


def _hold(state_dir: Path, run_id: str, ready: Any, time_to_live: float) -> None:
    """Take the lease and keep it alive until killed."""
    HostLock(state_dir, time_to_live=time_to_live).acquire(run_id, "database", HOLDER)
    with heartbeat(run_id, state_dir, interval=0.1):
        ready.set()
        signal.pause()


def _lease(state_dir: Path) -> Lease:
    lease = HostLock(state_dir).read()
    assert lease is not None
    return lease


def _race(state_dir: Path, run_id: str, gate: Any, outcomes: Any) -> None:
    """Wait for the gate, try to take the lease, tell how it went, and stay alive for the others to see."""
    gate.wait()
    try:
        HostLock(state_dir).acquire(run_id, "database", HOLDER)
    except LockHeldError as error:
        outcomes.put(("refused", error.details["run"]))
        return
    outcomes.put(("won", run_id))
    with heartbeat(run_id, state_dir, interval=0.1):
        signal.pause()


def _holder(processes: list[BaseProcess], state_dir: Path, run_id: str, time_to_live: float = 30) -> BaseProcess:
    ready = FORK.Event()
    process = FORK.Process(target=_hold, args=(state_dir, run_id, ready, time_to_live))
    process.start()
    processes.append(process)
    assert ready.wait(10)
    return process


def test_of_eight_openings_at_once_exactly_one_wins(tmp_path: Path, processes: list[BaseProcess]) -> None:
    gate, outcomes = FORK.Event(), FORK.Queue()
    for number in range(8):
        process = FORK.Process(target=_race, args=(tmp_path, f"run-{number}", gate, outcomes))
        process.start()
        processes.append(process)
    gate.set()
    results = [outcomes.get(timeout=20) for _ in range(8)]
    winners = [run for outcome, run in results if outcome == "won"]
    assert len(winners) == 1
    assert {run for outcome, run in results if outcome == "refused"} == set(winners)


def test_a_living_holder_is_named_long_before_its_lease_could_end(tmp_path: Path, processes: list[BaseProcess]) -> None:
    _holder(processes, tmp_path, "run-a")
    started = time.monotonic()
    with pytest.raises(LockHeldError) as refused:
        HostLock(tmp_path).acquire("run-b", "database", HOLDER)
    assert time.monotonic() - started < 5
    assert "run run-a (database) of ana@laptop through ansible-playbook" in str(refused.value)


def test_a_holder_killed_with_9_is_taken_over_after_its_time_to_live(
    tmp_path: Path, processes: list[BaseProcess]
) -> None:
    holder = _holder(processes, tmp_path, "run-a", time_to_live=1.5)
    assert holder.pid is not None
    os.kill(holder.pid, signal.SIGKILL)
    holder.join()
    last_beat = _lease(tmp_path).beat
    dead = HostLock(tmp_path).acquire("run-b", "database", HOLDER)
    assert dead is not None
    assert dead.run == "run-a"
    assert SYSTEM_CLOCK.boottime() - last_beat >= 1.5
    assert _lease(tmp_path).run == "run-b"


def test_a_lease_of_another_boot_is_taken_over_at_once(tmp_path: Path) -> None:
    HostLock(tmp_path).acquire("run-a", "database", HOLDER)
    rebooted = replace(SYSTEM_CLOCK, boot_id=lambda: "another", boottime=lambda: 3.0)
    started = time.monotonic()
    dead = HostLock(tmp_path, clock=rebooted).acquire("run-b", "database", HOLDER)
    assert time.monotonic() - started < 10, "it waited for the lease to end"
    assert dead is not None
    assert dead.run == "run-a"


@pytest.mark.parametrize("years", [-50, 50])
def test_wall_clocks_set_apart_change_nothing(tmp_path: Path, processes: list[BaseProcess], years: int) -> None:
    _holder(processes, tmp_path, "run-a")
    off = replace(SYSTEM_CLOCK, wall=lambda: time.time() + years * 365 * 86400)
    with pytest.raises(LockHeldError):
        HostLock(tmp_path, clock=off).acquire("run-b", "database", HOLDER)


def test_the_lease_returns_by_release_and_only_its_run_can_give_it_back(tmp_path: Path) -> None:
    lock = HostLock(tmp_path)
    lock.acquire("run-a", "database", HOLDER)
    assert not lock.release("run-b")
    assert _lease(tmp_path).run == "run-a"
    assert lock.release("run-a")
    assert lock.read() is None
    assert lock.acquire("run-b", "database", HOLDER) is None


def _take(state_dir: Path, run_id: str) -> None:
    HostLock(state_dir).acquire(run_id, "database", HOLDER)


def test_the_lease_goes_with_the_whole_directory(tmp_path: Path) -> None:
    state_dir = tmp_path / "state"
    lock = HostLock(state_dir)
    lock.acquire("run-a", "removal", HOLDER)
    with pytest.raises(LeaseLostError):
        lock.remove("run-b")
    lock.remove("run-a")
    assert list(tmp_path.iterdir()) == []


def test_who_waits_while_the_directory_is_removed_finds_a_new_one(
    tmp_path: Path, processes: list[BaseProcess], eventually: Callable[..., None]
) -> None:
    state_dir = tmp_path / "state"
    state_dir.mkdir()
    with (state_dir / "lock.guard").open("w") as guard:
        fcntl.flock(guard, fcntl.LOCK_EX)
        waiting = FORK.Process(target=_take, args=(state_dir, "run-b"))
        waiting.start()
        processes.append(waiting)
        eventually(lambda: bool(re.search(rf"-> FLOCK .* {waiting.pid} ", Path("/proc/locks").read_text())))
        state_dir.rename(tmp_path / "aside")
        fcntl.flock(guard, fcntl.LOCK_UN)  # closing alone would not do: the process has inherited it
    waiting.join(10)
    assert waiting.exitcode == 0
    assert _lease(state_dir).run == "run-b"
    assert not (tmp_path / "aside" / "lock.json").exists()


def test_a_run_that_lost_its_lease_can_not_renew_it(tmp_path: Path) -> None:
    lock = HostLock(tmp_path, time_to_live=0)
    lock.acquire("run-a", "database", HOLDER)
    lock.acquire("run-b", "database", HOLDER)
    with pytest.raises(LeaseLostError, match="held by run run-b"):
        lock.renew("run-a")


def test_the_heart_fences_a_long_step_whose_lease_was_taken(tmp_path: Path, eventually: Callable[..., None]) -> None:
    HostLock(tmp_path, time_to_live=0).acquire("run-a", "database", HOLDER)

    def work_until_fenced() -> None:
        with heartbeat("run-a", tmp_path, interval=0.05) as heart:
            HostLock(tmp_path).acquire("run-b", "database", HOLDER)

            def fenced() -> bool:
                heart.check()
                return False

            eventually(fenced)

    with pytest.raises(LeaseLostError):
        work_until_fenced()
    assert _lease(tmp_path).run == "run-b"


def test_a_step_that_ends_after_losing_its_lease_is_told_so(tmp_path: Path, eventually: Callable[..., None]) -> None:
    HostLock(tmp_path, time_to_live=0).acquire("run-a", "database", HOLDER)

    def take_over_meanwhile() -> None:
        with heartbeat("run-a", tmp_path, interval=0.05) as heart:
            HostLock(tmp_path).acquire("run-b", "database", HOLDER)
            eventually(lambda: heart._failure is not None)  # type: ignore[union-attr]

    with pytest.raises(LeaseLostError):
        take_over_meanwhile()


def test_the_heart_keeps_a_short_lease_alive(tmp_path: Path) -> None:
    HostLock(tmp_path, time_to_live=2).acquire("run-a", "database", HOLDER)
    with heartbeat("run-a", tmp_path, interval=0.05):
        time.sleep(3)  # longer than the time to live: the passing of time is what is tested
        with pytest.raises(LockHeldError):
            HostLock(tmp_path).acquire("run-b", "database", HOLDER)


def test_without_a_run_the_heart_is_idle(tmp_path: Path) -> None:
    with heartbeat(None, tmp_path) as heart:
        heart.check()
    assert list(tmp_path.iterdir()) == []


def test_a_quiet_step_may_go_longer_without_a_heartbeat(tmp_path: Path, fake_clock: Any) -> None:
    clock: Clock = fake_clock.clock
    lock = HostLock(tmp_path, time_to_live=30, clock=clock)
    lock.acquire("run-a", "database", HOLDER)
    lock.renew("run-a", time_to_live=180)
    fake_clock.advance(100)
    assert not lock.is_dead(_lease(tmp_path))
    lock.renew("run-a", time_to_live=30)
    fake_clock.advance(31)
    assert lock.is_dead(_lease(tmp_path))


def test_a_lock_of_unknown_shape_is_never_taken_for_free(tmp_path: Path) -> None:
    (tmp_path / "lock.json").write_text('{"run": "x"}')
    with pytest.raises(WhatsAgentError, match="unknown shape"):
        HostLock(tmp_path).acquire("run-b", "database", HOLDER)
