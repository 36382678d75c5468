# SPDX-License-Identifier: GPL-3.0-or-later
"""The check of argument specs against defaults must notice each way in which the two can differ."""

from __future__ import annotations

from typing import Any

import pytest

from tests.lint.argument_specs import spec_problems

DEFAULTS: dict[str, Any] = {"stack_dir": "/opt", "__stack_inner": 1}
OPTION: dict[str, Any] = {"description": "Where it lies.", "type": "path", "default": "/opt"}


def spec(short_description: str = "Start it", **options: Any) -> dict[str, Any]:
    return {"main": {"short_description": short_description, "options": options}}


def test_specs_that_mirror_the_defaults_have_no_problem() -> None:
    required = {"description": "The name.", "type": "str", "required": True}
    assert spec_problems("stack", DEFAULTS, spec(stack_dir=OPTION, stack_name=required)) == []


@pytest.mark.parametrize(
    ("entry_points", "words"),
    [
        ({}, "no entry point main"),
        (spec("", stack_dir=OPTION), "no short_description"),
        (spec(), "not in argument_specs"),
        (spec(stack_dir={**OPTION, "default": "/srv"}), "argument_specs says '/srv'"),
        (spec(stack_dir={"description": "x", "type": "path"}), "does not mirror"),
        (spec(stack_dir={"description": "x", "type": "path", "required": True}), "it is required"),
        (spec(stack_dir={"type": "path", "default": "/opt"}), "no description"),
        (spec(stack_dir=OPTION, stack_extra={**OPTION}), "promises a default"),
        (spec(stack_dir=OPTION, other={"description": "x", "type": "str"}), "not prefixed"),
    ],
)
def test_each_difference_is_noticed(entry_points: dict[str, Any], words: str) -> None:
    problems = spec_problems("stack", DEFAULTS, entry_points)
    assert len(problems) == 1
    assert words in problems[0]
