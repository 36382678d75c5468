# SPDX-License-Identifier: GPL-3.0-or-later
"""``kill -9`` of every part at random under load, and of the agent at every step of a message's path."""

from __future__ import annotations

import random
import shutil
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.agent.fault_points import sitecustomize
from tests.integration.agent.stack import Stack
from tests.integration.agent.traffic import Traffic, new_phone
from tests.integration.agent.waiting import eventually

# The worker's restart and the wait for an echo that never comes are part of each case: short, so that the cases are.
QUICK = {"SEND_ECHO_WAIT_SECONDS": "5", "SENDER_LEASE_SECONDS": "4"}
# "The whole stack" counts as one victim more.
EVERYTHING = "everything"


def test_parts_killed_at_random_under_load(stack: Stack, traffic: Traffic, pytestconfig: pytest.Config) -> None:
    victims = [*stack.session.services, EVERYTHING]
    kills: Counter[str] = Counter()
    stop = traffic.until_stopped(people=6, pause=0.15)
    deadline = time.monotonic() + float(pytestconfig.getoption("--chaos-seconds"))
    try:
        while time.monotonic() < deadline:
            time.sleep(random.uniform(0.2, 1.5))  # the moment of the kill is what varies
            victim = random.choice(victims)
            chosen = list(stack.session.services) if victim == EVERYTHING else [victim]
            random.shuffle(chosen)
            for name in chosen:
                stack.session.services[name].kill()
            for name in chosen:
                stack.session.services[name].start()
            kills[victim] += 1
    finally:
        stack.heal()
        stop()
    # The double that stands for OpenAI was killed too, so some answers are the fallback.
    counts = traffic.verify(limit=120, texts=False)
    assert counts["not_200"] == 0, traffic.answers
    assert kills.total() > 3, kills


@pytest.fixture(scope="module")
def fault_points(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that is mounted into app and worker; their user may remove an armed point."""
    folder = tmp_path_factory.mktemp("fault_points")
    shutil.copy(sitecustomize.__file__, folder / "sitecustomize.py")
    armed = folder / "armed"
    armed.mkdir()
    for path, mode in ((folder, 0o755), (folder / "sitecustomize.py", 0o644), (armed, 0o777)):
        path.chmod(mode)
    return folder


@pytest.fixture(scope="module")
def armable(session_stack: Stack, fault_points: Path) -> Iterator[Path]:
    """App and worker with fault points; the folder to arm them in."""
    session_stack.replace_agent({**QUICK, "PYTHONPATH": "/fault_points"}, {str(fault_points): "/fault_points"})
    yield fault_points / "armed"
    session_stack.replace_agent({}, {})


@pytest.mark.parametrize("moment", ["before", "after"])
def test_killed_at_each_step(stack: Stack, traffic: Traffic, armable: Path, moment: str) -> None:
    """One process dies at each point in turn while a message goes through it; the account is settled for all together."""
    for point in sitecustomize.POINTS:
        armed = armable / f"{moment}_{point}"
        armed.touch()
        sender = new_phone()
        for number in range(2):
            traffic.send(sender, f"{moment} {point} {number}")
        eventually(lambda armed=armed: not armed.exists(), f"somebody to die: {armed.name}")  # type: ignore[misc]
        if point != "log_insert":
            # That step is the app's as well, and gunicorn replaces its own processes.
            eventually(lambda: not stack.worker.is_running(), f"the worker to be gone: {armed.name}")
        if not stack.worker.is_running():
            stack.worker.start()
    counts = traffic.verify(limit=60)
    assert counts["acknowledged"] == 2 * len(sitecustomize.POINTS)
    assert counts["not_200"] == 0
