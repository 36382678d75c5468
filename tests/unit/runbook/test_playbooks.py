# SPDX-License-Identifier: GPL-3.0-or-later
"""Every playbook in playbooks/ keeps docs/runbook_contract.md."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.module_utils.whats_agent.plan import remedies_for
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar

from oncall.project import HEADER_FIELDS, PLAYBOOKS, ROOT, Runbook, playbooks

ALL = playbooks()
RUNBOOKS = [runbook for runbook in ALL if runbook.is_runbook]
# Playbooks whose names promise the run contract: what the guide calls procedures.
PROMISING = re.compile(r"^(recover|respond|reclaim|diagnose|analyze|validate|update|rollback|backup|disaster|remove)")
LONGEST = 60


def _plays(runbook: Runbook) -> list[dict[str, Any]]:
    value: list[dict[str, Any]] = yaml.safe_load(runbook.path.read_text(encoding="utf-8"))
    return value


def _component(runbook: Runbook) -> str:
    (name,) = {
        play["vars"]["runbook_component"] for play in _plays(runbook) if "runbook_component" in play.get("vars", {})
    }
    return str(name)


def _ids(runbook: Runbook) -> str:
    return runbook.name


def test_there_are_runbooks() -> None:
    assert "recover_db" in [runbook.name for runbook in RUNBOOKS]


@pytest.mark.parametrize("runbook", ALL, ids=_ids)
def test_the_header_is_complete(runbook: Runbook) -> None:
    missing = [name for name in HEADER_FIELDS if not runbook.header.get(name)]
    assert not missing, f"{runbook.path} lacks {missing}"
    assert f"playbooks/{runbook.path.name}" in runbook.header["Command"]


@pytest.mark.parametrize("runbook", ALL, ids=_ids)
def test_what_promises_the_contract_keeps_it(runbook: Runbook) -> None:
    assert runbook.is_runbook == bool(PROMISING.match(runbook.name))


@pytest.mark.parametrize("runbook", RUNBOOKS, ids=_ids)
def test_the_role_does_the_work(runbook: Runbook) -> None:
    assert "guide:" in runbook.header["When"], "the header names no section of the guide"
    assert len(runbook.path.read_text(encoding="utf-8").splitlines()) <= LONGEST
    plays = [play for play in _plays(runbook) if "runbook_component" in play.get("vars", {})]
    for play in plays:
        assert play["hosts"] == "agent_hosts"
        assert play["gather_facts"] is False
        assert play["any_errors_fatal"] is True
        assert [role["role"] if isinstance(role, dict) else role for role in play["roles"]] == ["runbook"]
        assert "tasks" not in play, "a runbook's own tasks belong into its component's role"


@pytest.mark.parametrize("runbook", RUNBOOKS, ids=_ids)
def test_the_component_is_complete(runbook: Runbook) -> None:
    name = _component(runbook)
    role = ROOT / "roles" / name
    for needed in ("tasks/diagnose.yml", "tasks/verify.yml", "vars/main.yml", "meta/argument_specs.yml"):
        assert (role / needed).is_file(), f"roles/{name} lacks {needed}"
    ladder = _ladder(role)
    causes = [entry["cause"] for entry in ladder]
    assert len(causes) == len(set(causes)), "a cause stands twice in the ladder"
    assert "healthy" not in causes
    for cause in causes:
        rungs = remedies_for(ladder, cause, {})
        assert rungs, f"roles/{name} has no remedy for {cause}"
        for rung in rungs:
            assert (role / "tasks" / f"remedy_{rung.name}.yml").is_file(), f"roles/{name} lacks remedy_{rung.name}.yml"


def _ladder(role: Path) -> list[dict[str, Any]]:
    """Return the ladder as Ansible would give it to the module, its rungs' variables resolved."""
    loader = DataLoader()
    variables: dict[str, Any] = {}
    for folder in ("defaults", "vars"):
        variables |= loader.load_from_file(str(role / folder / "main.yml"), trusted_as_template=True) or {}
    ladder: list[dict[str, Any]] = Templar(loader, variables=variables).template(variables[f"{role.name}_ladder"])
    return ladder


@pytest.mark.parametrize("runbook", RUNBOOKS, ids=_ids)
def test_a_molecule_scenario_breaks_it_for_real(runbook: Runbook) -> None:
    scenarios = ROOT / "tests" / "molecule"
    text = "".join(path.read_text(encoding="utf-8") for path in scenarios.rglob("*.yml"))
    assert re.search(rf"\b{runbook.path.name}\b", text), f"no Molecule scenario runs {runbook.path.name}"


@pytest.mark.parametrize("runbook", RUNBOOKS, ids=_ids)
def test_a_dry_run_of_it_is_proven_to_change_nothing(runbook: Runbook) -> None:
    scenarios = ROOT / "tests" / "molecule"
    users = [path for path in scenarios.rglob("*.yml") if "dry_run.yml" in path.read_text(encoding="utf-8")]
    assert any(runbook.path.name in path.read_text(encoding="utf-8") for path in users), (
        f"no dry run of {runbook.path.name}"
    )


def test_only_playbooks_lie_there() -> None:
    assert sorted(path.name for path in PLAYBOOKS.iterdir() if path.is_file()) == [f"{r.name}.yml" for r in ALL]
