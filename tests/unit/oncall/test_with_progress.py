# SPDX-License-Identifier: GPL-3.0-or-later
"""What is printed of a long module's progress, from lines as a restore really wrote them to its journal."""

from __future__ import annotations

import pytest

from oncall.action_plugins.with_progress import ActionModule, describe

STEP = '{"at": "2026-11-24T14:56:51.449Z", "event": "progress", "step": "restored", "seconds": 7.55, "bytes": 32589829}'
MEASURE = (
    '{"at": "2026-11-24T14:56:47.710Z", "event": "progress", "step": "restore", "percent": 35.7, "done": 11624792, '
    '"total": 32589829, "unit": "bytes", "seconds": 3.8, "seconds_left": 6.9}'
)


@pytest.mark.parametrize("line", [STEP, MEASURE[:40], "", '{"event": "open"}'], ids=["step", "cut", "empty", "other"])
def test_lines_that_measure_nothing_are_passed_over(line: str) -> None:
    assert ActionModule._parse(line) is None


def test_a_measure_is_printed_with_percent_amount_and_time_left() -> None:
    event = ActionModule._parse(MEASURE)
    assert event is not None
    assert describe(event, portuguese=False) == "  … restore 36 % (11.6 MB of 32.6 MB, 7 s left)"
    assert describe(event, portuguese=True) == "  … restore 36 % (11.6 MB de 32.6 MB, faltam 7 s)"
