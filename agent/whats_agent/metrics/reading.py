# SPDX-License-Identifier: GPL-3.0-or-later
"""The sum over all processes' files: totals, and distributions over the last minutes."""

import array
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from whats_agent.metrics.layout import (
    BOUNDS,
    BUCKETS,
    COUNTER_AT,
    DISTRIBUTION,
    ERRORS,
    FAMILY_AT,
    GREATEST,
    NUMBERS,
    SIGNATURE,
    SUM,
    WINDOW,
    WINDOW_SECONDS,
    WINDOWS,
)
from whats_agent.metrics.recorder import DIRECTORY, SIZE


@dataclass(frozen=True, slots=True)
class Distribution:
    """Counts per bucket of ``BOUNDS``, the sum and the greatest in seconds, and how many were errors."""

    buckets: tuple[float, ...]
    sum: float
    errors: float
    greatest: float

    @property
    def count(self) -> int:
        """How many values."""
        return int(sum(self.buckets))

    @property
    def mean(self) -> float | None:
        """The true mean in seconds; None without values."""
        return self.sum / self.count if self.count else None

    @property
    def error_rate(self) -> float | None:
        """The share of errors, 0 to 1; None without values."""
        return self.errors / self.count if self.count else None

    def percentile(self, share: float) -> float | None:
        """Seconds that ``share`` of the values do not exceed, interpolated inside its bucket; None without values."""
        wanted = share * self.count
        if not self.count:
            return None
        seen = 0.0
        for number, amount in enumerate(self.buckets):
            if amount and seen + amount >= wanted:
                low = BOUNDS[number - 1] if number else 0.0
                high = min(BOUNDS[number], self.greatest) if number < len(BOUNDS) else self.greatest
                return max(low, low + (high - low) * (wanted - seen) / amount) if high > low else high
            seen += amount
        return self.greatest


class Snapshot:
    """All files read at one moment. What a process writes meanwhile is in the next one."""

    def __init__(self, directory: Path) -> None:
        self._files = [numbers for path in sorted((directory / DIRECTORY).glob("[0-9]*")) if (numbers := _read(path))]
        self.at = time.time()

    def counter(self, name: str) -> float:
        """A counter's total over all processes."""
        at = COUNTER_AT[name]
        return sum(numbers[at] for numbers in self._files)

    def total(self, family: str) -> Distribution:
        """The distribution since ever."""
        base = FAMILY_AT[family]
        return _merged([numbers[base : base + DISTRIBUTION] for numbers in self._files])

    def recent(self, family: str, seconds: float) -> Distribution:
        """The distribution over the last ``seconds``, rounded up to whole windows; at most fifteen minutes."""
        newest = int(self.at // WINDOW_SECONDS)
        wanted = min(int(-(-seconds // WINDOW_SECONDS)), WINDOWS - 1)
        parts: list[Sequence[float]] = []
        for numbers in self._files:
            for window in range(newest - wanted, newest + 1):
                at = FAMILY_AT[family] + DISTRIBUTION + (window % WINDOWS) * WINDOW
                if numbers[at] == window:
                    parts.append(numbers[at + 1 : at + WINDOW])
        return _merged(parts)


def _read(path: Path) -> "array.array[float] | None":
    try:
        raw = path.read_bytes()
    except OSError:
        return None
    if len(raw) != SIZE:
        return None
    numbers = array.array("d", raw)
    return numbers if len(numbers) == NUMBERS and numbers[0] == SIGNATURE else None


def _merged(parts: list[Sequence[float]]) -> Distribution:
    buckets = tuple(sum(column) for column in zip(*(part[:BUCKETS] for part in parts), strict=True)) or (0.0,) * BUCKETS
    return Distribution(
        buckets,
        sum(part[SUM] for part in parts),
        sum(part[ERRORS] for part in parts),
        max((part[GREATEST] for part in parts), default=0.0),
    )
