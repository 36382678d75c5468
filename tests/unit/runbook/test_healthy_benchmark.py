# SPDX-License-Identifier: GPL-3.0-or-later
"""The arithmetic of the benchmark of healthy runs."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


def test_the_parts_of_a_run_make_up_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    healthy = importlib.import_module("healthy")
    tasks: list[dict[str, float | str]] = [
        {"task": "runbook : Open the run (a lease left behind is waited for)", "began": 101.0, "ended": 101.5},
        {"task": "database : Look at the database", "began": 101.6, "ended": 102.6},
        {"task": "runbook : Plan", "began": 102.7, "ended": 103.0},
        {"task": "runbook : Report the outcome", "began": 103.0, "ended": 103.1},
    ]
    parts = healthy.parts_of(100.0, 103.4, tasks)
    assert parts == {
        "start-up": pytest.approx(1.0),
        "open": pytest.approx(0.5),
        "diagnose": pytest.approx(1.2),
        "plan": pytest.approx(0.3),
        "report": pytest.approx(0.1),
        "end": pytest.approx(0.3),
    }
    assert sum(parts.values()) == pytest.approx(3.4)
