# SPDX-License-Identifier: GPL-3.0-or-later
"""Every playbook that a text, a module or an alert names is there, or is announced in the one place for that."""

from __future__ import annotations

import re
import subprocess

import pytest
from ansible.module_utils.whats_agent.playbooks import ANNOUNCED, by_hand

from oncall.project import PLAYBOOKS, ROOT

FOLDERS = (
    "agent/whats_agent",
    "docs",
    "inventories",
    "library",
    "module_utils",
    "oncall",
    "playbooks",
    "roles",
    "README.md",
)
# Named with its folder, or by a name that only a playbook has.
NAMED = re.compile(
    r"playbooks/(?P<path>\w+\.yml)|\b(?P<bare>(?:recover|respond|reclaim|analyze)_\w+\.yml|(?:disaster_recovery|rollback|postmortem|update)\.yml)"
)
PRESENT = {path.name for path in PLAYBOOKS.glob("*.yml")}


def named() -> dict[str, set[str]]:
    """Return the files that name each playbook. Announcing it is not naming it."""
    listed = subprocess.run(["git", "ls-files", *FOLDERS], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    found: dict[str, set[str]] = {}
    for name in listed.splitlines():
        path = ROOT / name
        if name == "module_utils/whats_agent/playbooks.py" or path.suffix in (".png", ".svg") or not path.is_file():
            continue
        for match in NAMED.finditer(path.read_text(encoding="utf-8")):
            found.setdefault(match["path"] or match["bare"], set()).add(name)
    return found


def test_a_playbook_that_is_named_is_there_or_announced() -> None:
    missing = {name: files for name, files in named().items() if name not in PRESENT | ANNOUNCED.keys()}
    assert not missing, f"write it, or announce it in module_utils/whats_agent/playbooks.py: {missing}"


def test_what_is_there_is_announced_no_more() -> None:
    stale = PRESENT & ANNOUNCED.keys()
    assert not stale, f"take it out of ANNOUNCED in module_utils/whats_agent/playbooks.py: {stale}"


def test_what_is_announced_is_named_somewhere() -> None:
    assert ANNOUNCED.keys() <= named().keys()


def test_the_operator_is_told_what_to_do_until_then() -> None:
    told = by_hand("reclaim_disk.yml")
    assert told is not None
    for text in told.values():
        assert "reclaim_disk.yml" in text
        assert "Logs Excessivos Enchendo Disco" in text
    assert by_hand("recover_db.yml") is None


@pytest.mark.parametrize("name", sorted(ANNOUNCED))
def test_the_page_of_oncall_lists_what_is_announced(name: str) -> None:
    assert name.removesuffix(".yml") in (ROOT / "docs" / "oncall.md").read_text(encoding="utf-8")
