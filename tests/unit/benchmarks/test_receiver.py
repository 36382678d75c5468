# SPDX-License-Identifier: GPL-3.0-or-later
"""The WAL receiver's cost as a table: medians of the rounds, held against no receiver."""

from __future__ import annotations

from tests.benchmarks.receiver import CLIENTS, MODES, Measured, rows_of, table

RATES = {"off": 1000.0, "async": 900.0, "sync": 500.0}


def test_each_mode_is_held_against_none_with_as_many_at_once() -> None:
    found = [
        Measured(mode, clients, RATES[mode] * clients + wobble, [1.0] * 50 + [9.0] * 50)
        for mode in MODES
        for clients in CLIENTS
        for wobble in (-50.0, 0.0, 50.0)
    ]
    rows = rows_of(found)
    assert [(row["mode"], row["clients"]) for row in rows] == [(mode, clients) for clients in CLIENTS for mode in MODES]
    assert [row["ratio"] for row in rows] == [1.0, 0.9, 0.5] * len(CLIENTS)
    assert rows[0]["per_second"] == 1000
    assert rows[0]["p99"] == 9.0
    assert "| `sync` | 8 | 4000 |" in table(rows)
