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
# Tasks that only speak.
SAYING = {"ansible.builtin.assert", "ansible.builtin.debug"}


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


@pytest.mark.parametrize("runbook", ALL, ids=_ids)
def test_nothing_acts_on_a_server_without_its_lock(runbook: Runbook) -> None:
    for play in _plays(runbook):
        if play["hosts"] == "localhost":
            continue  # the operator's own machine, on which no runbook is at work
        roles = [role["role"] if isinstance(role, dict) else role for role in play.get("roles", [])]
        assert roles in (["runbook"], ["job"]), (
            f"{runbook.path.name} does something outside of the roles that take the lock"
        )
        assert "tasks" not in play, "what acts belongs into a role: the lock is given back before a play's own tasks"
        acting = [
            task for part in ("pre_tasks", "post_tasks") for task in play.get(part, []) if not SAYING & task.keys()
        ]
        assert not acting, f"{acting} would act without the lock"


@pytest.mark.parametrize("runbook", [r for r in ALL if not r.is_runbook], ids=_ids)
def test_the_steps_of_a_job_exist(runbook: Runbook) -> None:
    for play in _plays(runbook):
        variables = play.get("vars", {})
        for step in variables.get("job_steps", []):
            tasks = ROOT / "roles" / step["role"] / "tasks" / step.get("tasks", "main.yml")
            assert tasks.is_file(), f"{runbook.path.name} names {tasks}"
        for role in variables.get("job_checks", []):
            assert (ROOT / "roles" / role / "tasks" / "preflight.yml").is_file()
        if "job_steps" in variables:
            assert len(runbook.path.read_text(encoding="utf-8").splitlines()) <= LONGEST


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


def test_the_example_of_the_page_is_whole_and_short() -> None:
    page = (ROOT / "docs" / "runbook_contract.md").read_text(encoding="utf-8")
    section = page.split("## A whole example, in 40 lines\n")[1].split("\n## ")[0]
    blocks = re.findall(r"^```yaml\n(.*?)^```", section, re.MULTILINE | re.DOTALL)
    assert sum(len(block.splitlines()) for block in blocks) <= 40
    play, diagnose, variables, remedy, verify = (yaml.safe_load(block) for block in blocks)
    assert [role["role"] for role in play[0]["roles"]] == ["runbook"]
    assert "runbook_diagnosis" in diagnose[-1]["ansible.builtin.set_fact"]
    (entry,) = variables["redis_ladder"]
    assert f"remedy_{entry['remedies'][0]['name']}.yml" in section
    assert all(name in (*_modules(remedy), *_modules(diagnose)) for name in ("redis_memory", "redis_memory_info"))
    assert "runbook_verification" in verify[-1]["ansible.builtin.set_fact"]


def _modules(tasks: list[dict[str, Any]]) -> list[str]:
    """Return the modules of ours that tasks call, all of which have to exist."""
    names = [key for task in tasks for key in task if (ROOT / "library" / f"{key}.py").is_file()]
    assert names, f"{tasks} calls no module that exists"
    return names
