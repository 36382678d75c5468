# SPDX-License-Identifier: GPL-3.0-or-later
"""Where the project lies, which runbooks it has, and what is chosen by the environment."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

import click

ROOT = Path(__file__).resolve().parents[1]
PLAYBOOKS = ROOT / "playbooks"
HEADER_FIELDS = ("Purpose", "When", "Changes", "Point of no return", "Undo", "Command")
_FIELD = re.compile(rf"# (?P<name>{'|'.join(HEADER_FIELDS)}): (?P<text>.*)")


@dataclass(frozen=True)
class Runbook:
    """A playbook and what its header says, by field."""

    name: str
    path: Path
    header: dict[str, str]
    component: str

    @property
    def is_runbook(self) -> bool:
        """Whether it follows the run contract: then it is about a component."""
        return bool(self.component)


def read_runbook(path: Path) -> Runbook:
    """Read a playbook's header: `# Field: text`, continued on further comment lines."""
    header: dict[str, str] = {}
    field = ""
    text = path.read_text(encoding="utf-8")
    for line in text.splitlines():
        if line == "---":
            continue
        if not line.startswith("#"):
            break
        match = _FIELD.match(line)
        if match:
            field = match["name"]
            header[field] = match["text"].strip()
        elif field:
            header[field] += " " + line.lstrip("# ").strip()
    component = re.search(r"^\s+runbook_component: *(\w+)", text, re.MULTILINE)
    return Runbook(path.stem, path, header, component[1] if component else "")


def playbooks() -> list[Runbook]:
    """Return every playbook, by name."""
    return [read_runbook(path) for path in sorted(PLAYBOOKS.glob("*.yml"))]


def find_or_none(name: str) -> Runbook | None:
    """Return a playbook by its file's name or stem; None when there is none (yet)."""
    stem = name.removesuffix(".yml")
    path = PLAYBOOKS / f"{stem}.yml"
    return read_runbook(path) if re.fullmatch(r"\w+", stem) and path.is_file() else None


def find(name: str) -> Runbook:
    """Return a playbook by name, with or without .yml; a wrong name is answered with those that exist."""
    stem = Path(name).stem
    path = PLAYBOOKS / f"{stem}.yml"
    if Path(name).parent != Path() and Path(name).resolve().parent != PLAYBOOKS:
        raise click.BadParameter(f"{name} is not one of playbooks/")
    if not path.is_file():
        known = ", ".join(runbook.name for runbook in playbooks())
        raise click.BadParameter(f"there is no playbook {stem}; there are {known}")
    return read_runbook(path)


def default_inventory() -> Path:
    """Return the inventory that ONCALL_INVENTORY names, else the local one."""
    return Path(os.environ.get("ONCALL_INVENTORY") or ROOT / "inventories" / "local")


def language() -> str:
    """Return pt or en, as the operator's locale says; WHATS_AGENT_LANG overrides."""
    for name in ("WHATS_AGENT_LANG", "LC_ALL", "LC_MESSAGES", "LANG"):
        value = os.environ.get(name)
        if value:
            return "pt" if value.lower().startswith("pt") else "en"
    return "en"


_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def parse_duration(text: str) -> float:
    """Return the seconds of `90s`, `30m`, `2h` or `1d`."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd])", text.strip())
    if not match:
        raise click.BadParameter(f"{text!r} is no duration: write 90s, 30m, 2h or 1d")
    return float(match[1]) * _UNITS[match[2]]
