# SPDX-License-Identifier: GPL-3.0-or-later
"""Which faults the benchmark can inflict is read from where they are written."""

from __future__ import annotations

from pathlib import Path

from tests.benchmarks import recovery, recovery_faults, recovery_report


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
    inflicted = {case.inflicted_by for case in recovery.CASES} - {recovery_report.HEALTHY}
    assert inflicted <= recovery_faults.of_module() | recovery_faults.of_script("break")


def test_what_the_targets_are_about_is_measured() -> None:
    names = {case.name for case in recovery.CASES}
    assert {recovery_report.HEALTHY, recovery_report.STOPPED} <= names
    assert any(case.restores for case in recovery.CASES)
