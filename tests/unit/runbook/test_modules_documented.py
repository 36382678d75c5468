# SPDX-License-Identifier: GPL-3.0-or-later
"""Every module in library/ documents exactly the options it takes, with their types, defaults and choices."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest
import yaml

LIBRARY = Path(__file__).resolve().parents[3] / "library"
MODULES = sorted(path.stem for path in LIBRARY.glob("*.py"))
# What a suboption or option says, and what it is when left out.
COMPARED = {"type": "str", "required": False, "default": None, "choices": None, "elements": None}


def test_there_are_modules() -> None:
    assert "runbook_run" in MODULES


def _reduce(options: dict[str, Any], nested: str) -> dict[str, Any]:
    reduced: dict[str, Any] = {}
    for name, option in options.items():
        reduced[name] = {key: option.get(key, default) for key, default in COMPARED.items()}
        reduced[name]["no_log"] = None  # argument spec only
        if option.get(nested):
            reduced[name]["nested"] = _reduce(option[nested], nested)
    return reduced


@pytest.fixture(params=MODULES)
def module(request: pytest.FixtureRequest) -> Any:
    return importlib.import_module(request.param)


class SpecSeenError(BaseException):
    """Ends a module's main() once it has told its argument spec."""


def _spec_of(module: Any, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Return the argument spec that the module's main() really uses."""
    seen: dict[str, Any] = {}

    def recorder(argument_spec: dict[str, Any], **_more: Any) -> None:
        seen.update(argument_spec)
        raise SpecSeenError

    monkeypatch.setattr(module, "AnsibleModule", recorder)
    with pytest.raises(SpecSeenError):
        module.main()
    return seen


def test_options_are_documented_as_they_are(module: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    documented = yaml.safe_load(module.DOCUMENTATION)
    assert documented["module"] == module.__name__
    spec = _spec_of(module, monkeypatch)
    assert _reduce(documented.get("options") or {}, "suboptions") == _reduce(spec, "options")


def test_examples_use_options_that_exist(module: Any) -> None:
    documented = yaml.safe_load(module.DOCUMENTATION).get("options") or {}
    tasks = yaml.safe_load(module.EXAMPLES)
    calls = [task[module.__name__] or {} for task in tasks if module.__name__ in task]
    assert calls, "no example calls the module"
    for call in calls:
        assert set(call) <= set(documented)


def test_every_returned_value_says_when(module: Any) -> None:
    for name, value in (yaml.safe_load(module.RETURN) or {}).items():
        assert {"description", "returned", "type"} <= set(value), name


def test_check_mode_is_documented_as_supported(module: Any) -> None:
    attributes = yaml.safe_load(module.DOCUMENTATION).get("attributes") or {}
    assert attributes.get("check_mode", {}).get("support") in ("full", "partial", "none"), module.__name__
