# SPDX-License-Identifier: GPL-3.0-or-later
"""The ledger survives a torn last line and refuses damage it cannot explain."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.doubles.ledger import DamagedLedgerError, Ledger


def test_reads_back_what_it_wrote(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "deep" / "ledger.jsonl")
    ledger.append({"text": "linha\nde José"}, durable=True)
    ledger.append({"n": 2}, durable=False)
    ledger.close()
    assert Ledger(tmp_path / "deep" / "ledger.jsonl").records == [{"text": "linha\nde José"}, {"n": 2}]


def test_cuts_a_torn_last_line_and_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    path.write_bytes(b'{"n":1}\n{"n":2')
    ledger = Ledger(path)
    assert ledger.records == [{"n": 1}]
    ledger.append({"n": 3}, durable=True)
    ledger.close()
    assert Ledger(path).records == [{"n": 1}, {"n": 3}]


def test_refuses_damage_in_the_middle(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    path.write_bytes(b'{"n":1}\n\x00\x00\n{"n":3}\n')
    with pytest.raises(DamagedLedgerError, match=r"ledger\.jsonl:2"):
        Ledger(path)
