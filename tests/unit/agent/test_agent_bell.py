# SPDX-License-Identifier: GPL-3.0-or-later
"""Idle senders: one looks, the others sleep; no ring is lost, and all of them end when they must."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import pytest

from whats_agent.sender import bell as bell_module
from whats_agent.sender.bell import Bell

THREADS = 8


class Crew:
    """Threads that look for work as senders do; ``work`` is what there is to take."""

    def __init__(self) -> None:
        self.bell = Bell()
        self.stop = threading.Event()
        self.looks = 0
        self.work = 0
        self.taken: list[str] = []
        self._mutex = threading.Lock()
        self.threads = [threading.Thread(target=self._run, name=str(number)) for number in range(THREADS)]
        for thread in self.threads:
            thread.start()

    def _run(self) -> None:
        while not self.stop.is_set():
            if not self._take():
                self.bell.wait(self.stop)
                continue
            self.bell.ring()
            time.sleep(0.05)  # an answer takes its time, so that more than one thread is needed

    def _take(self) -> bool:
        with self._mutex:
            self.looks += 1
            if not self.work:
                return False
            self.work -= 1
            self.taken.append(threading.current_thread().name)
            return True

    def add(self, count: int, *, ring: bool) -> None:
        with self._mutex:
            self.work += count
        if ring:
            self.bell.ring()

    def end(self) -> None:
        self.stop.set()
        self.bell.ring_all()
        for thread in self.threads:
            thread.join(5)


@pytest.fixture
def crew() -> Iterator[Crew]:
    made = Crew()
    yield made
    made.end()


def settled(crew: Crew) -> bool:
    """Whether every thread has looked and sleeps."""
    before = crew.looks
    time.sleep(0.1)
    return crew.looks == before and before >= THREADS


def test_a_burst_wakes_as_many_as_it_needs(crew: Crew, eventually: Callable[..., None]) -> None:
    eventually(lambda: settled(crew))
    crew.add(THREADS * 4, ring=True)
    eventually(lambda: len(crew.taken) == THREADS * 4)
    # By the chain of rings: had it broken, two threads at most would have been awake, the one rung for and the one that looks.
    assert len(set(crew.taken)) > 2


def test_what_nobody_rings_for_is_found_all_the_same(crew: Crew, eventually: Callable[..., None]) -> None:
    eventually(lambda: settled(crew))
    crew.add(3, ring=False)
    eventually(lambda: len(crew.taken) == 3, timeout=3 * bell_module.IDLE_SECONDS + 2)


def test_idle_threads_look_once_a_second_together(crew: Crew, eventually: Callable[..., None]) -> None:
    eventually(lambda: settled(crew))
    before, began = crew.looks, time.monotonic()
    time.sleep(2.2 * bell_module.IDLE_SECONDS)
    # A busy machine may sleep longer. Each of eight threads for itself would look eight times as often.
    assert 1 <= crew.looks - before <= 2 * (time.monotonic() - began) / bell_module.IDLE_SECONDS


def test_a_ring_before_the_wait_is_not_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bell_module, "IDLE_SECONDS", 60)
    bell = Bell()
    bell.ring()
    started = time.monotonic()
    bell.wait(threading.Event())
    assert time.monotonic() - started < bell_module.IDLE_SECONDS / 2


def test_everybody_ends(crew: Crew, eventually: Callable[..., None]) -> None:
    eventually(lambda: settled(crew))
    crew.end()
    assert not any(thread.is_alive() for thread in crew.threads)
