# SPDX-License-Identifier: GPL-3.0-or-later
"""Beside what an old volume may be removed, and that nothing else is done in place of it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from ansible.module_utils.whats_agent import postgres_diagnosis as diagnosis
from ansible.module_utils.whats_agent.errors import WhatsAgentError
from ansible.module_utils.whats_agent.postgres_causes import Finding
from ansible.module_utils.whats_agent.postgres_diagnosis import Wish, refused_removal, wished
from ansible.module_utils.whats_agent.postgres_observe import Observed, VolumeFacts
from ansible.module_utils.whats_agent.postgres_volumes import DataVolume
from ansible.module_utils.whats_agent.postgres_words import BELONGS_TO, FOR_PEOPLE, SUMMARIES

WISH = Wish(remove_volume="old")
SEEN = Observed(database="whats_agent", volume=VolumeFacts("used", present=True))


def found(cause: str) -> Finding:
    """Return a finding with evidence."""
    return Finding(cause, (("what", "value"),))


@pytest.mark.parametrize("cause", ["healthy", "disk_full"])
def test_it_is_removed_beside_a_healthy_database_or_under_a_full_disk(cause: str) -> None:
    finding = wished(found(cause), SEEN, WISH)
    assert finding.cause == "removal_wanted"
    assert dict(finding.evidence)["otherwise"] == cause
    assert refused_removal(finding, WISH) is None


@pytest.mark.parametrize("cause", sorted({*SUMMARIES} - {"healthy", "disk_full", "removal_wanted", *BELONGS_TO}))
def test_beside_everything_else_it_is_refused_and_recovery_comes_first(cause: str) -> None:
    finding = wished(found(cause), SEEN, WISH)
    refused = refused_removal(finding, WISH)
    assert finding.cause == cause
    assert refused is not None
    assert all("playbooks/recover_db.yml" in words for words in refused.values())


@pytest.mark.parametrize("cause", sorted(BELONGS_TO))
def test_what_is_another_runbooks_names_that_one(cause: str) -> None:
    assert refused_removal(wished(found(cause), SEEN, WISH), WISH) is None


def test_who_asks_for_no_removal_is_refused_none() -> None:
    assert all(refused_removal(found(cause), Wish()) is None for cause in SUMMARIES)


def diagnosed(monkeypatch: pytest.MonkeyPatch, cause: str, volumes: Any) -> dict[str, Any]:
    """Return the diagnosis of a removal beside this cause."""
    monkeypatch.setattr(diagnosis, "observe", lambda *_given, **_asked: SEEN)
    monkeypatch.setattr(diagnosis, "find", lambda _seen, _limits: found(cause))
    monkeypatch.setattr(diagnosis, "data_volumes", volumes)
    backrest: Any = SimpleNamespace(place=None, docker=SimpleNamespace(root=lambda: "/var/lib/docker"))
    return diagnosis.diagnose(backrest, WISH)[0]


def test_under_a_full_disk_the_rest_is_mended_after_it(monkeypatch: pytest.MonkeyPatch) -> None:
    built = diagnosed(monkeypatch, "disk_full", lambda _backrest: [DataVolume("old", "2025", 1, None)])
    assert (built["cause"], built["refuse"], built["state"]["removal"]) == ("removal_wanted", None, "old")
    assert built["facts"]["otherwise"] == "disk_full"


@pytest.mark.parametrize("cause", ["container_stopped", "volume_lost", *FOR_PEOPLE])
def test_a_database_to_be_mended_refuses_the_run_before_any_remedy(monkeypatch: pytest.MonkeyPatch, cause: str) -> None:
    built = diagnosed(monkeypatch, cause, lambda _backrest: pytest.fail("nothing is to be removed"))
    assert built["cause"] == cause
    assert "none is removed" in built["refuse"]["reason"]["en"]


def test_a_disk_too_full_to_look_for_a_proven_backup_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def too_full(_backrest: Any) -> None:
        raise WhatsAgentError("cannot start pgbackrest in a container: no space left on device")

    monkeypatch.setattr("ansible.module_utils.whats_agent.postgres_plan.free_bytes", lambda _path: 0)
    built = diagnosed(monkeypatch, "disk_full", too_full)
    assert "too full to look at the backups" in built["refuse"]["reason"]["en"]
    assert "libere espaço" in built["refuse"]["reason"]["pt"]
