# SPDX-License-Identifier: GPL-3.0-or-later
"""Which faults the benchmark can inflict is read from where they are written."""

from __future__ import annotations

from pathlib import Path

from ansible.module_utils.whats_agent.postgres_words import SUMMARIES

from tests.benchmarks import recovery_cases, recovery_faults, recovery_report


def test_the_module_names_its_faults() -> None:
    assert {"container_stopped", "volume_lost", "page_corrupt"} <= recovery_faults.of_module()


def test_the_script_tells_what_it_breaks_and_mends(tmp_path: Path) -> None:
    script = tmp_path / "faults.sh"
    script.write_text(
        "break_blocked() {\n  hold\n}\nmend_blocked() { release; }\n  break_nothing() {\nbreak_disk_full() {\n"
    )
    assert recovery_faults.of_script("break", script) == {"blocked", "disk_full"}
    assert recovery_faults.of_script("mend", script) == {"blocked"}


def test_whatever_is_measured_can_be_inflicted() -> None:
    broken_by_one = [case for case in recovery_cases.CASES if case.breaks is None and case.asks is None]
    inflicted = {case.inflicted_by for case in broken_by_one} - {recovery_report.HEALTHY}
    assert inflicted <= recovery_faults.of_module() | recovery_faults.of_script("break")


def test_each_cause_that_the_runbook_names_is_measured() -> None:
    # What removes an old volume is a playbook of its own, which mends nothing.
    assert {case.name for case in recovery_cases.CASES} == SUMMARIES.keys() - {"removal_wanted"}


def test_going_back_behind_a_restore_takes_the_restore() -> None:
    assert [case.name for case in recovery_cases.chosen(["undo_wanted"])] == ["wrong_data", "undo_wanted"]
    assert recovery_cases.chosen(None) == recovery_cases.chosen([]) == list(recovery_cases.CASES)


def test_what_the_targets_are_about_is_measured() -> None:
    names = {case.name for case in recovery_cases.CASES}
    assert {recovery_report.HEALTHY, recovery_report.STOPPED} <= names
    assert any(case.compares and not case.cached for case in recovery_cases.CASES)
