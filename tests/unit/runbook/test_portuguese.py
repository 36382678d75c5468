# SPDX-License-Identifier: GPL-3.0-or-later
"""What stops a remedy is told in Portuguese too: each error has its words, and the roles carry them to the run's end."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from oncall.project import ROOT

# What remedies are made of, and so what an operator reads the errors of in an incident.
REMEDIES = [
    "app_mend",
    "config_apply",
    "config_mend",
    "env_file",
    "postgres_backrest",
    "postgres_mend",
    "postgres_mend_sessions",
    "postgres_mend_storage",
    "postgres_receiver",
    "postgres_restore_steps",
    "postgres_standby",
    "postgres_target",
    "postgres_wal",
    "redis_mend",
]
ERRORS = {"WhatsAgentError", "UnsoundBackupError", "UnsoundContentError"}
CLOSING = {"runbook_run", "host_lease"}


def _wordless(source: str) -> list[int]:
    """Return the lines on which an error is made that says nothing in Portuguese."""
    calls = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
    made = [call for call in calls if isinstance(call.func, ast.Name) and call.func.id in ERRORS]
    return [call.lineno for call in made if not {keyword.arg for keyword in call.keywords} & {"pt", None}]


def test_an_error_without_portuguese_is_seen() -> None:
    assert _wordless('raise WhatsAgentError("gone", path="/")\nraise WhatsAgentError("gone", pt="sumiu")') == [1]


@pytest.mark.parametrize("name", REMEDIES)
def test_each_error_of_a_remedy_has_its_words_in_portuguese(name: str) -> None:
    source = (ROOT / "module_utils" / "whats_agent" / f"{name}.py").read_text(encoding="utf-8")
    assert not _wordless(source)


def _tasks(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, list):
        for entry in value:
            yield from _tasks(entry)
    elif isinstance(value, dict):
        yield value
        for part in ("block", "rescue", "always"):
            yield from _tasks(value.get(part))


def test_the_roles_carry_the_words_of_what_failed() -> None:
    files = [*(ROOT / "roles" / "runbook" / "tasks").glob("*.yml"), *(ROOT / "roles" / "job" / "tasks").glob("*.yml")]
    told = [
        task[module]
        for path in files
        for task in _tasks(yaml.safe_load(path.read_text(encoding="utf-8")))
        for module in CLOSING & task.keys()
        if "error" in task[module]
    ]
    assert len(told) == 3
    assert all(arguments.get("error_pt") == "{{ ansible_failed_result.pt | default('', true) }}" for arguments in told)
