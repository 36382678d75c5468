# SPDX-License-Identifier: GPL-3.0-or-later
"""Hold every role's meta/argument_specs.yml against its defaults, both ways.

A default without an entry is undocumented and unchecked; an entry that promises a default the role does not have, or
another one, lies. `__<role>_` internals are exempt. An entry without default must be `required` or stand for "not set".
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]


class Loader(yaml.SafeLoader):
    """SafeLoader that reads Ansible's own tags as plain text."""


def plain_text(loader: yaml.SafeLoader, node: yaml.Node) -> str:
    """Read a tagged scalar as it is written."""
    if not isinstance(node, yaml.ScalarNode):
        raise TypeError(f"{node.tag} at {node.start_mark} is no scalar")
    return str(loader.construct_scalar(node))


Loader.add_constructor("!vault", plain_text)
Loader.add_constructor("!unsafe", plain_text)


def load(path: Path) -> dict[str, Any]:
    """Read one YAML file; an absent one is empty."""
    if not path.exists():
        return {}
    with path.open(encoding="utf-8") as stream:
        content = yaml.load(stream, Loader=Loader)  # noqa: S506 - a SafeLoader
    return content or {}


def spec_problems(role: str, defaults: dict[str, Any], entry_points: dict[str, Any]) -> list[str]:
    """Compare the defaults with the `main` entry point's options; return one sentence per problem."""
    if "main" not in entry_points:
        return ["meta/argument_specs.yml has no entry point main"]
    options: dict[str, Any] = entry_points["main"].get("options") or {}
    problems = [f"{name} is not prefixed with the role's name" for name in options if not name.startswith(f"{role}_")]
    problems += [
        f"entry point {name} has no short_description"
        for name, body in entry_points.items()
        if not body.get("short_description")
    ]
    for name, value in defaults.items():
        if name.startswith(f"__{role}_"):
            continue
        if name not in options:
            problems.append(f"{name} is in defaults but not in argument_specs")
        elif options[name].get("required"):
            problems.append(f"{name} has a default, yet argument_specs says it is required")
        elif "default" not in options[name]:
            problems.append(f"{name} has a default that argument_specs does not mirror")
        elif options[name]["default"] != value:
            problems.append(f"{name}: default is {value!r}, argument_specs says {options[name]['default']!r}")
    for name, option in options.items():
        if "default" in option and name not in defaults:
            problems.append(f"{name}: argument_specs promises a default that defaults/ does not set")
        if not option.get("description"):
            problems.append(f"{name} has no description")
    return problems


def role_problems(role: Path) -> list[str]:
    """Read one role's files and compare them."""
    defaults: dict[str, Any] = {}
    for path in sorted((role / "defaults").rglob("*.yml")):
        defaults.update(load(path))
    specs = load(role / "meta" / "argument_specs.yml")
    return spec_problems(role.name, defaults, specs.get("argument_specs") or {})


def main() -> int:
    """Check all roles; print each problem; exit 1 if there was one, or no role at all."""
    roles = sorted(path for path in (ROOT / "roles").iterdir() if path.is_dir())
    found = [(role.name, problem) for role in roles for problem in role_problems(role)]
    for role, problem in found:
        print(f"roles/{role}: {problem}")
    print(f"argument specs: {len(roles)} roles checked, {len(found)} problems")
    return 1 if found or not roles else 0


if __name__ == "__main__":
    sys.exit(main())
