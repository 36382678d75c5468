# SPDX-License-Identifier: GPL-3.0-or-later
"""How a rehearsal is judged."""

from __future__ import annotations

import pytest
from ansible.module_utils.whats_agent.postgres_integrity import Check
from ansible.module_utils.whats_agent.postgres_proof import DAMAGE, Proof, advised, rehearsal, verdict

PROOF = Proof(backup="b", ok=True, checks=[], restore_s=2.0, open_s=1.0, check_s=1.0, rto_s=4.0, rpo_s=None)


@pytest.mark.parametrize(
    ("proof", "rpo", "missed"),
    [
        (PROOF, 0.0, []),
        (PROOF, 60.0, []),
        (PROOF, 61.0, ["RPO 61 s is over its target of 60 s"]),
        (Proof(**{**PROOF.as_dict(), "rto_s": 10.5}), 0.0, ["RTO 10.5 s is over its target of 10 s"]),
        (Proof(**{**PROOF.as_dict(), "ok": False}), 0.0, ["the restored database is not sound"]),
    ],
)
def test_a_rehearsal_fails_past_its_targets(proof: Proof, rpo: float, missed: list[str]) -> None:
    judged = rehearsal(proof, rpo, rto_target_s=10, rpo_target_s=60)
    assert judged["missed"] == missed
    assert judged["rpo_s"] == rpo


@pytest.mark.parametrize(
    ("broken", "key"),
    [
        ((), "proven"),
        (("pages",), "disproven"),
        (("structure", "foreign keys"), "disproven"),
        (("foreign keys",), None),
        (("replay",), None),
    ],
)
def test_only_damage_condemns_a_backup(broken: tuple[str, ...], key: str | None) -> None:
    names = ("pages", "structure", "sequences", "foreign keys", "replay")
    assert verdict([Check(name, name not in broken, "") for name in names]) == key


def test_a_structure_that_does_not_hold_leads_to_the_runbook_that_mends_it() -> None:
    broken = Check("structure", False, 'btree index "app.public.i":')
    assert advised(broken).detail.endswith("playbooks/recover_db.yml -e database_check_structure=true")
    assert advised(broken).name in DAMAGE
    fine = Check("structure", True, "pg_amcheck found nothing")
    assert advised(fine) == fine
