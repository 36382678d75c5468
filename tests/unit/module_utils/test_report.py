# SPDX-License-Identifier: GPL-3.0-or-later
"""How a run is told: timings that add up, one line per language."""

from __future__ import annotations

from typing import Any

import pytest
from ansible.module_utils.whats_agent.report import OUTCOMES, describe_rpo, message, timings

EVENTS: list[dict[str, Any]] = [
    {"event": "open", "boot": 100.0},
    {"event": "plan", "boot": 103.0},
    {"event": "step", "phase": "begin", "boot": 104.0},
    {"event": "step", "phase": "end", "boot": 112.0, "seconds": 6.0},  # two seconds of stable window
    {"event": "step", "phase": "begin", "boot": 115.0},
    {"event": "step", "phase": "end", "boot": 121.0, "seconds": 4.0},
]


def test_timings_of_a_ladder() -> None:
    assert timings(EVENTS, 125.0) == {"detect": 3.0, "act": 10.0, "verify": 11.0, "total": 25.0}


def test_timings_of_a_run_that_ends_early() -> None:
    assert timings(EVENTS[:2], 103.5) == {"detect": 3.0, "act": 0.0, "verify": 0.0, "total": 3.5}
    assert timings(EVENTS[:1], 101.0) == {"detect": 1.0, "act": 0.0, "verify": 0.0, "total": 1.0}
    assert timings(EVENTS[:3], 110.0)["act"] == 6.0


RESULT: dict[str, Any] = {
    "component": "database",
    "host": "box",
    "cause": "volume_lost",
    "remedy": "restore",
    "reason": {"en": "why", "pt": "por quê"},
    "seconds": {"detect": 1.0, "act": 2.0, "verify": 3.0, "total": 6.0},
    "rpo": {"messages_lost": 0, "seconds": 0},
    "next_step": {"en": "go home", "pt": "vá para casa"},
    "run": "r1",
    "dry_run": False,
}


@pytest.mark.parametrize("outcome", OUTCOMES)
def test_every_outcome_has_one_line_per_language(outcome: str) -> None:
    told = message({**RESULT, "outcome": outcome})
    assert set(told) == {"en", "pt"}
    for language, line in told.items():
        assert "\n" not in line
        assert OUTCOMES[outcome][language] in line
        assert "r1" in line


def test_a_dry_run_says_so_first_and_last() -> None:
    told = message({**RESULT, "outcome": "predicted", "dry_run": True})
    assert told["en"].startswith("DRY RUN")
    assert told["en"].endswith("(DRY RUN)")
    assert told["pt"].startswith("SIMULAÇÃO")


def test_what_was_lost() -> None:
    assert describe_rpo(None) is None
    assert describe_rpo({}) is None
    assert describe_rpo({"messages_lost": 2, "seconds": 5}) == {
        "en": "2 acknowledged messages lost, RPO 5 s",
        "pt": "2 mensagens confirmadas perdidas, RPO 5 s",
    }
