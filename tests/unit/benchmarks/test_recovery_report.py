# SPDX-License-Identifier: GPL-3.0-or-later
"""The benchmark's verdict: a missed target and a lost message must show, whatever the medians say."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from dataclasses import replace

import pytest

from tests.benchmarks import recovery_docs, recovery_report
from tests.benchmarks.recovery_client import Account
from tests.benchmarks.recovery_report import Result
from tests.benchmarks.recovery_server import changes

NONE: frozenset[str] = frozenset()
FINE = Account(20, NONE, NONE, NONE)


def result(case: str, megabytes: int = 1000, **changed: object) -> Result:
    known = Result(case, megabytes, 1.0, 2.0, 3.0, 9.0, 3, FINE, 0)
    return replace(known, **changed)  # type: ignore[arg-type]


RESULTS = [
    result("healthy", detect=1.5, act=0.0, verify=0.0, total=4.0, changed=0),
    result("container_stopped"),
    result("volume_lost", first_write=12.0, bare=10.0),
    result("volume_lost", first_write=30.0, bare=10.0),
    result("volume_lost", first_write=14.0, bare=10.0),
    result("volume_lost", megabytes=100, first_write=20.0, bare=2.0),
]


def missed(results: list[Result], last: Account = FINE) -> list[str]:
    rows = recovery_report.rows_of(results, {})
    return [target.what for target in recovery_report.targets(rows, results, last) if not target.met]


def test_all_targets_are_met() -> None:
    assert missed(RESULTS) == []


@pytest.mark.parametrize(
    ("changed", "what"),
    [
        (result("container_stopped", megabytes=100, total=15.1), "container stopped, command to verified"),
        (result("healthy", megabytes=100, total=6.1, changed=0), "healthy"),
        (result("healthy", megabytes=100, total=1.0, changed=1), "healthy, changed"),
        (result("page_corrupt", detect=5.1), "slowest diagnosis after start-up"),
        (result("page_corrupt", not_200=1), "webhooks answered other than 200"),
    ],
)
def test_a_missed_target_shows(changed: Result, what: str) -> None:
    assert missed([*RESULTS, changed]) == [what]


def test_waiting_for_a_dead_runs_lease_is_no_part_of_the_diagnosis() -> None:
    assert missed([*RESULTS, result("restore_unfinished", detect=26.0, waited=24.0)]) == []
    assert missed([*RESULTS, result("restore_unfinished", detect=26.0, waited=20.0)]) == [
        "slowest diagnosis after start-up"
    ]


def test_what_is_refused_has_no_time_of_acting() -> None:
    (row,) = recovery_report.rows_of([result("wrong_major", act=None, verify=None)], {})
    assert "act" not in row.as_dict()
    assert recovery_report.table([row]).splitlines()[-1].startswith("| 1 GB | wrong_major | 1.0 | – | – | 9.0 |")


def test_a_restore_from_memory_has_a_row_of_its_own_and_no_part_in_the_ratio() -> None:
    results = [*RESULTS, *(result("volume_lost", first_write=90.0, bare=10.0, cached=True) for _ in range(5))]
    assert missed(results) == []
    assert [row.case for row in recovery_report.rows_of(results, {})].count("volume_lost, cached") == 1


def test_a_slow_restore_of_the_large_size_shows() -> None:
    slow = [result("volume_lost", first_write=15.1, bare=10.0)]
    assert missed(slow) == ["restore of 1 GB, first write ÷ bare tool's"]


@pytest.mark.parametrize(
    ("last", "what"),
    [
        (Account(20, frozenset(["w1"]), NONE, NONE), "acknowledged messages lost"),
        (Account(20, NONE, frozenset(["w1"]), NONE), "answered twice"),
        (Account(20, NONE, NONE, frozenset(["w1"])), "without an answer at the end"),
    ],
)
def test_the_account_at_the_end_decides(last: Account, what: str) -> None:
    assert missed(RESULTS, last) == [what]


def test_the_ratio_is_the_median_of_the_largest_size() -> None:
    assert recovery_report.ratio_to_bare(RESULTS) == pytest.approx(1.4)
    assert recovery_report.ratio_to_bare(RESULTS[:2]) is None


def test_the_last_line_has_what_is_read_from_it() -> None:
    rows = recovery_report.rows_of(RESULTS, {("volume_lost", 1000): 90.0})
    told = recovery_report.summary(rows, RESULTS, FINE)
    assert {"causes", "lost", "answered_twice", "ratio_to_bare_restore"} <= set(told)
    assert told["causes"]["volume_lost"]["1 GB"]["ratio_to_guide"] == pytest.approx(0.1)
    assert told["causes"]["volume_lost"]["100 MB"]["ratio"] == pytest.approx(10.0)
    assert "guide" not in told["causes"]["healthy"]["1 GB"]


def test_the_table_has_a_line_per_case_and_size() -> None:
    lines = recovery_report.table(recovery_report.rows_of(RESULTS, {})).splitlines()
    assert len(lines) == 2 + 4
    assert len({line.count("|") for line in lines}) == 1


def test_the_plot_is_xml_with_a_bar_per_measured_way() -> None:
    rows = recovery_report.rows_of(RESULTS, {("volume_lost", 1000): 90.0})
    assert [len(recovery_docs.bars_of(row)) for row in rows] == [1, 1, 3, 2]
    drawn = ET.fromstring(recovery_docs.plot(rows))  # noqa: S314 - our own
    assert any("90.0 s" in (text.text or "") for text in drawn.iter("{http://www.w3.org/2000/svg}text"))


def test_changes_are_read_from_the_recap() -> None:
    recap = "localhost : ok=20   changed=3    unreachable=0    failed=0    skipped=4    rescued=0    ignored=0"
    assert changes(f"changed: [localhost]\n\nPLAY RECAP ****\n{recap}\n") == 3
    assert changes("ERROR! no hosts") == 0
