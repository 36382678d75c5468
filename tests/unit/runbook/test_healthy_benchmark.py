# SPDX-License-Identifier: GPL-3.0-or-later
"""The arithmetic of the benchmark of healthy runs."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType

import pytest

from oncall.project import playbooks

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture
def healthy(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("healthy")


def test_every_runbook_for_which_healthy_means_something_is_measured(healthy: ModuleType) -> None:
    measured = {case.name for case in healthy.CASES if case.is_runbook}
    # It has to be told what to remove.
    assert measured == {runbook.name for runbook in playbooks() if runbook.is_runbook} - {"remove_volume"}


def test_the_tables_have_a_row_each_and_no_number_where_none_was_measured(healthy: ModuleType) -> None:
    found = {
        "recover_db": {
            "target": 6.0,
            "best": 4.56,
            "median": 5.0,
            "oncall": 5.5,
            **dict.fromkeys(healthy.COLUMNS, 0.5),
        },
        "deploy": {"target": 25.0, "best": 20.0, "median": 21.0},
    }
    rows = healthy.table(found).splitlines()[2:]
    assert rows[0] == "| `recover_db` | 6.0 | 4.6 | 5.0 | 0.5 | 0.5 | 0.5 | 0.5 | 0.5 | 0.5 | 5.5 |"
    assert rows[1] == "| `deploy` | 25.0 | 20.0 | 21.0 |  |  |  |  |  |  |  |"
    longest = healthy.slowest([{"task": str(n), "began": 0.0, "ended": float(n)} for n in range(20)])
    assert longest[0] == ("19", 19.0)
    assert len(longest) == healthy.SLOWEST
    written = healthy.page(found, longest, 5, 0.3)
    assert "| `deploy` |" in written
    assert "| 19 | 19.0 |" in written


def test_the_parts_of_a_run_make_up_the_whole(healthy: ModuleType) -> None:
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
