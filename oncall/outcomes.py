# SPDX-License-Identifier: GPL-3.0-or-later
"""Outcomes of runs and the exit codes they have on the command line. docs/oncall.md documents them."""

from __future__ import annotations

from collections.abc import Iterable

EXIT_CODES = {
    "already_healthy": 0,
    "recovered": 10,
    "rolled_back": 11,
    "predicted": 12,
    "refused": 20,
    "acted_not_recovered": 21,
    "unreachable": 30,
    "interrupted": 31,
    "error": 1,
}
SUCCESSES = ("already_healthy", "recovered", "rolled_back", "predicted")
# For several hosts the gravest outcome decides.
_GRAVITY = (
    "already_healthy",
    "predicted",
    "recovered",
    "rolled_back",
    "refused",
    "unreachable",
    "error",
    "interrupted",
    "acted_not_recovered",
)
EXIT_ATTENTION = 3  # `oncall status`: something needs a person


def gravest(outcomes: Iterable[str]) -> str:
    """Return the outcome that decides; without any, the run ended before it had one: an error."""
    return max(outcomes, key=_GRAVITY.index, default="error")


def exit_code(outcomes: Iterable[str]) -> int:
    """Return the exit code of a command that had these outcomes."""
    return EXIT_CODES[gravest(outcomes)]
