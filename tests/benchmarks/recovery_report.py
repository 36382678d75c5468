# SPDX-License-Identifier: GPL-3.0-or-later
"""What the recovery benchmark found, as a table, held against the targets, and as data for the last line."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tests.benchmarks.recovery_client import Account

HEALTHY, STOPPED = "healthy", "container_stopped"
STOPPED_TARGET_S, HEALTHY_TARGET_S, DETECT_TARGET_S, RATIO_TARGET = 15.0, 6.0, 5.0, 1.5
LARGE_MB = 1000
"""The targets' restore is one of 1 GB; of a smaller one the fixed costs decide."""

COLUMNS = {
    "detect": "detect",
    "act": "act",
    "verify": "verify",
    "total": "total",
    "first_write": "to first write",
    "bare": "bare tool",
    "ratio": "÷ bare",
    "guide": "guide",
    "ratio_to_guide": "÷ guide",
    "acknowledged": "acknowledged",
    "lost": "lost",
    "answered_twice": "answered twice",
}


@dataclass(frozen=True)
class Result:
    """One recovery, in seconds: `detect`, `act` and `verify` as its journal has them, `total` of the whole command, and of a
    restore `first_write` from the command to the database's first write, and `bare`, the same of the tool alone."""

    case: str
    megabytes: int
    detect: float
    act: float | None
    verify: float | None
    total: float
    changed: int
    account: Account
    not_200: int
    first_write: float | None = None
    bare: float | None = None
    waited: float = 0.0
    """Seconds of `detect` in which a killed run's lease had to end first."""
    cached: bool = False
    """Both read the repository from memory, where it was from a moment before."""

    @property
    def label(self) -> str:
        return f"{self.case}, cached" if self.cached else self.case

    @property
    def named(self) -> float:
        return self.detect - self.waited

    @property
    def ratio(self) -> float | None:
        return self.first_write / self.bare if self.first_write and self.bare else None


@dataclass(frozen=True)
class Row:
    """All rounds of one case at one size, and what the guide's commands took, in seconds, where it has some."""

    case: str
    megabytes: int
    rounds: Sequence[Result]
    guide: float | None

    def median(self, name: str) -> float | None:
        values = [value for result in self.rounds if (value := getattr(result, name)) is not None]
        return round(statistics.median(values), 2) if values else None

    def as_dict(self) -> dict[str, Any]:
        """JSON-able; what was not measured is left out."""
        total = self.median("total")
        told = {
            name: self.median(name) for name in ("detect", "act", "verify", "total", "first_write", "bare", "ratio")
        }
        if self.guide and total:
            told |= {"guide": round(self.guide, 2), "ratio_to_guide": round(total / self.guide, 2)}
        return {
            **{name: value for name, value in told.items() if value is not None},
            "rounds": len(self.rounds),
            "changed": max(result.changed for result in self.rounds),
            "acknowledged": sum(result.account.acknowledged for result in self.rounds),
            "lost": sum(len(result.account.lost) for result in self.rounds),
            "answered_twice": sum(len(result.account.answered_twice) for result in self.rounds),
            "not_200": sum(result.not_200 for result in self.rounds),
        }


def rows_of(results: Iterable[Result], guides: Mapping[tuple[str, int], float]) -> list[Row]:
    """Group the rounds, in the order in which they were measured; `guides` has seconds by case and megabytes."""
    grouped: dict[tuple[int, str], list[Result]] = {}
    for result in results:
        grouped.setdefault((result.megabytes, result.label), []).append(result)
    return [Row(case, size, rounds, guides.get((case, size))) for (size, case), rounds in grouped.items()]


def size_text(megabytes: int) -> str:
    return f"{megabytes / 1000:g} GB" if megabytes >= LARGE_MB else f"{megabytes} MB"


def _cell(name: str, value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:.2f}" if name.startswith("ratio") else f"{value:.1f}" if isinstance(value, float) else str(value)


def table(rows: Sequence[Row]) -> str:
    """A Markdown table, times in seconds."""
    lines = [f"| size | case | {' | '.join(COLUMNS.values())} |", "|---|---|" + "---:|" * len(COLUMNS)]
    for row in rows:
        told = row.as_dict()
        cells = " | ".join(_cell(name, told.get(name)) for name in COLUMNS)
        lines.append(f"| {size_text(row.megabytes)} | {row.case} | {cells} |")
    return "\n".join(lines)


def ratio_to_bare(results: Iterable[Result]) -> float | None:
    """The median over all restores of the largest size measured, those from memory left out; None without any."""
    restores = [result for result in results if result.ratio is not None and not result.cached]
    if not restores:
        return None
    largest = max(result.megabytes for result in restores)
    return statistics.median(result.ratio for result in restores if result.megabytes == largest and result.ratio)


@dataclass(frozen=True)
class Target:
    """What was promised, what was measured, and whether that is kept."""

    what: str
    limit: str
    measured: str
    met: bool


def targets(rows: Sequence[Row], results: Sequence[Result], last: Account) -> list[Target]:
    """Hold the medians against the targets; one that nothing was measured for is left out. `last` is the account over all."""
    found = []
    for what, case, limit in (
        ("container stopped, command to verified", STOPPED, STOPPED_TARGET_S),
        ("healthy", HEALTHY, HEALTHY_TARGET_S),
    ):
        seconds = [row.median("total") or 0.0 for row in rows if row.case == case]
        if seconds:
            found.append(Target(what, f"≤ {limit:.0f} s", f"{max(seconds):.1f} s", max(seconds) <= limit))
    changed = [result.changed for result in results if result.case == HEALTHY]
    if changed:
        found.append(Target("healthy, changed", "0", str(max(changed)), max(changed) == 0))
    detect = max(rows, key=lambda row: row.median("named") or 0.0, default=None)
    if detect is not None:
        seconds_ = detect.median("named") or 0.0
        measured = f"{seconds_:.1f} s ({detect.case}, {size_text(detect.megabytes)})"
        found.append(
            Target(
                "slowest diagnosis after start-up", f"≤ {DETECT_TARGET_S:.0f} s", measured, seconds_ <= DETECT_TARGET_S
            )
        )
    ratio = ratio_to_bare(result for result in results if result.megabytes >= LARGE_MB)
    if ratio is not None:
        found.append(
            Target(
                "restore of 1 GB, first write ÷ bare tool's", f"≤ {RATIO_TARGET}", f"{ratio:.2f}", ratio <= RATIO_TARGET
            )
        )
    refused = sum(result.not_200 for result in results)
    for what, count in (
        ("acknowledged messages lost", len(last.lost)),
        ("answered twice", len(last.answered_twice)),
        ("without an answer at the end", len(last.unanswered)),
        ("webhooks answered other than 200", refused),
    ):
        found.append(
            Target(what, "0", f"{count} of {last.acknowledged + (refused if 'other' in what else 0)}", count == 0)
        )
    return found


def target_table(found: Sequence[Target]) -> str:
    """A Markdown table of the targets."""
    lines = ["| what | target | measured | |", "|---|---:|---:|---|"]
    lines += [f"| {t.what} | {t.limit} | {t.measured} | {'met' if t.met else 'MISSED'} |" for t in found]
    return "\n".join(lines)


def summary(rows: Sequence[Row], results: Sequence[Result], last: Account) -> dict[str, Any]:
    """What the last line says."""
    causes: dict[str, dict[str, Any]] = {}
    for row in rows:
        causes.setdefault(row.case, {})[size_text(row.megabytes)] = row.as_dict()
    ratio = ratio_to_bare(results)
    return {
        "causes": causes,
        "acknowledged": last.acknowledged,
        "lost": len(last.lost),
        "answered_twice": len(last.answered_twice),
        "unanswered": len(last.unanswered),
        "not_200": sum(result.not_200 for result in results),
        "ratio_to_bare_restore": None if ratio is None else round(ratio, 3),
    }
