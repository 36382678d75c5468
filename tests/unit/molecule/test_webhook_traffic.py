# SPDX-License-Identifier: GPL-3.0-or-later
"""The account of acknowledged messages must not settle when one is lost, doubled or unanswered."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest

SOURCE = Path(__file__).resolve().parents[3] / "tests" / "molecule" / "library" / "webhook_traffic.py"


def load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("webhook_traffic", SOURCE)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules["webhook_traffic"] = module
    spec.loader.exec_module(module)
    return module


traffic = load()

LEDGER = [{"wamid": "w1", "from": "5511900000001"}, {"wamid": "w2", "from": "5511900000002"}]
ONCE = ["5511900000001", "5511900000002"]
SETTLED: dict[str, list[str]] = {"lost": [], "stored_twice": [], "answered_twice": [], "unanswered": []}


@pytest.mark.parametrize(
    ("stored", "answers", "open_items"),
    [
        ({"w1": 1, "w2": 1}, ONCE, {}),
        ({"w1": 1, "w2": 1, "other": 1}, [*ONCE, "5511900000003"], {}),
        ({"w1": 1}, ONCE, {"lost": ["w2"]}),
        ({"w1": 2, "w2": 1}, ONCE, {"stored_twice": ["w1"]}),
        ({"w1": 1, "w2": 1}, [*ONCE, ONCE[1]], {"answered_twice": ["w2"]}),
        ({"w1": 1, "w2": 1}, ONCE[:1], {"unanswered": ["w2"]}),
        ({}, [], {"lost": ["w1", "w2"], "unanswered": ["w1", "w2"]}),
    ],
    ids=["settled", "others do not count", "lost", "stored twice", "answered twice", "unanswered", "nothing there"],
)
def test_account(stored: dict[str, int], answers: list[str], open_items: dict[str, list[str]]) -> None:
    assert traffic.account(LEDGER, stored, answers) == {**SETTLED, **open_items}


@pytest.mark.parametrize(
    ("answers", "open_items"),
    [(1, {"unanswered": ["w1", "w2"]}), (2, {}), (3, {"answered_twice": ["w1", "w2"]})],
)
def test_one_who_wrote_twice_gets_two_answers(answers: int, open_items: dict[str, list[str]]) -> None:
    ledger = [{"wamid": wamid, "from": ONCE[0]} for wamid in ("w1", "w2")]
    assert traffic.account(ledger, {"w1": 1, "w2": 1}, ONCE[:1] * answers) == {**SETTLED, **open_items}


def test_nobody_has_the_number_of_somebody_else() -> None:
    numbers = [traffic.somebody() for _ in range(300)]
    assert len(set(numbers)) == len(numbers)
    assert {len(number) for number in numbers} == {15}


def report(folder: Path, **facts: object) -> dict[str, object]:
    """Leave the report that a process in the background would leave, and return the module's parameters."""
    (folder / "flow.json").write_text(json.dumps({"pid": 1, "running": False, **facts}), encoding="utf-8")
    return {"ledger": str(folder / "acknowledged.jsonl"), "timeout": 1}


def test_one_message_that_was_not_acknowledged_fails_the_flow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(traffic.os, "kill", lambda _pid, _signal: None)
    with pytest.raises(traffic.TrafficError, match="502"):
        traffic.end_flow(report(tmp_path, answers={"200": 40, "502": 1}))
    traffic.end_flow(report(tmp_path, answers={"200": 40}))


def test_a_flow_that_sent_nothing_proves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(traffic.os, "kill", lambda _pid, _signal: None)
    with pytest.raises(traffic.TrafficError):
        traffic.end_flow(report(tmp_path, answers={}))
    with pytest.raises(traffic.TrafficError, match="no traffic flows"):
        traffic.end_flow({"ledger": str(tmp_path / "acknowledged.jsonl"), "timeout": 1})
