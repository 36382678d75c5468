# SPDX-License-Identifier: GPL-3.0-or-later
"""A run's record must not pass for what was expected when it is another run's, or says something else."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

SOURCE = Path(__file__).resolve().parents[3] / "tests" / "molecule" / "library" / "run_record.py"


def load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("run_record", SOURCE)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules["run_record"] = module
    spec.loader.exec_module(module)
    return module


record = load()

CLOSED = {
    "outcome": "recovered",
    "cause": "page_corrupt",
    "remedy": "restore_volume",
    "reason": {"en": "the disk ran full"},
}
EVENTS: list[dict[str, Any]] = [
    {"event": "plan", "loses": {"en": "0 acknowledged messages lost"}},
    {"event": "progress", "step": "carried"},
    {"event": "close", **CLOSED},
]
NOTHING: dict[str, Any] = {"outcome": "recovered", "cause": None, "remedy": None, "says": [], "loses": [], "noted": []}


@pytest.mark.parametrize(
    "expected",
    [
        {},
        {
            "cause": "page_corrupt",
            "remedy": "restore_volume",
            "says": ["ran full"],
            "loses": ["0 ack"],
            "noted": ["carried"],
        },
    ],
    ids=["outcome only", "all of it"],
)
def test_a_record_that_is_as_expected(expected: dict[str, Any]) -> None:
    assert record.check(EVENTS, {**NOTHING, **expected}) == EVENTS[-1]


@pytest.mark.parametrize(
    ("expected", "told"),
    [
        ({"outcome": "refused"}, "outcome recovered instead of refused"),
        ({"cause": "index_corrupt"}, "cause page_corrupt instead of index_corrupt"),
        ({"remedy": "restart"}, "remedy restore_volume instead of restart"),
        ({"says": ["ran full", "reclaim_disk"]}, "the reason does not say 'reclaim_disk'"),
        ({"loses": ["is missing"]}, "the plan does not say 'is missing'"),
        ({"noted": ["carried", "backed_up"]}, "nothing was noted of backed_up"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_record_that_is_not(expected: dict[str, Any], told: str) -> None:
    with pytest.raises(record.RecordError, match=told):
        record.check(EVENTS, {**NOTHING, **expected})


def test_a_run_without_end_or_plan_is_none() -> None:
    with pytest.raises(record.RecordError, match="no event close"):
        record.check(EVENTS[:-1], NOTHING)
    with pytest.raises(record.RecordError, match="no event plan"):
        record.check(EVENTS[1:], {**NOTHING, "loses": ["lost"]})


def test_no_other_run_stands_in_for_the_one_that_is_asked_for(tmp_path: Path) -> None:
    for name in ("20261129T100000Z-aa", "20261129T110000Z-bb"):
        (tmp_path / f"{name}.jsonl").write_text(json.dumps({"event": "open", "run": name}) + "\n", encoding="utf-8")
    assert record.last_events(tmp_path, "20261129T100000Z-aa")[0]["run"] == "20261129T100000Z-aa"
    assert record.last_events(tmp_path, "")[0]["run"] == "20261129T110000Z-bb"
    with pytest.raises(record.RecordError, match="no run"):
        record.last_events(tmp_path, "of which nothing was printed")
