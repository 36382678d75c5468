# SPDX-License-Identifier: GPL-3.0-or-later
"""What the nightly round proves, over weeks of a schedule, and that one failure keeps no other backup from its proof."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from ansible.module_utils.whats_agent import postgres_proof
from ansible.module_utils.whats_agent import postgres_proof_round as proof_round
from ansible.module_utils.whats_agent.errors import WhatsAgentError
from ansible.module_utils.whats_agent.lock import Idle
from ansible.module_utils.whats_agent.pgbackrest import Backup, Repository, expirable, safe_to_expire
from ansible.module_utils.whats_agent.postgres_timeline import TimelinePath

HOUR = 3600
KEEP = 4
HERE = TimelinePath(0)  # where all backups are that name no WAL


def backup(label: str, stop: int, kind: str = "full", repo: int = 1, *notes: str, error: bool = False) -> Backup:
    """Make a backup."""
    return Backup(label, kind, repo, stop - 1, stop, 1, 1, error, "", "", "", "", (), dict.fromkeys(notes, "x"))


def of(*backups: Backup) -> Repository:
    """Make what holds them."""
    keys = dict.fromkeys({b.repo for b in backups}, 0)
    return Repository(0, "ok", "", tuple(sorted(backups, key=lambda b: b.stop)), "", "", keys)


def labels(*backups: Backup) -> list[tuple[int, str]]:
    """Return what is due of them."""
    return [(b.repo, b.label) for b in proof_round.due(of(*backups), KEEP, HERE)]


def test_each_repository_gets_a_proof_of_its_own_newest_backup() -> None:
    first, second = backup("1F", 100), backup("2F", 101, "full", 2)
    assert labels(first, second) == [(1, "1F"), (2, "2F")]
    assert labels(backup("1F", 100, "full", 1, "proven"), second) == [(2, "2F")]


def test_the_newest_goes_before_a_full_backup_that_was_left_out() -> None:
    full, increment = backup("1F", 100), backup("1F_2I", 200, "incr")
    assert labels(full, increment) == [(1, "1F_2I"), (1, "1F")]
    assert labels(full, backup("1F_2I", 200, "incr", 1, "proven")) == [(1, "1F")]


def test_what_is_proven_or_condemned_or_damaged_is_not_tried_again() -> None:
    good = backup("1F", 100, "full", 1, "proven")
    assert labels(good, backup("2F", 200, "full", 1, "disproven"), backup("3F", 300, error=True)) == []


def test_what_expiry_would_soon_remove_is_not_worth_a_restore() -> None:
    fulls = [backup(f"{n}F", n * 100, "full", 1, *(("proven",) if n > 2 else ())) for n in range(1, 7)]
    assert labels(*fulls) == []  # 1F and 2F are behind the four that stay


def on(made: Backup, timeline: int, lsn_stop: str) -> Backup:
    segment = f"{timeline:08X}0000000000000007"
    return replace(made, wal_start=segment, wal_stop=segment, lsn_stop=lsn_stop)


# The history file of timeline 5 on a server that went back in time, and back behind that again.
HISTORY = """1\t0/4D00000\tno recovery target specified

2\t0/9000000\tno recovery target specified

3\t0/2B0001A8\tno recovery target specified
"""


def test_what_no_replay_leads_on_from_is_left_alone() -> None:
    path = TimelinePath.of(5, HISTORY)
    here, undone = on(backup("5F", 500), 5, "0/2D000000"), on(backup("4F", 400), 4, "0/26000000")
    before, behind = on(backup("3F", 300), 3, "0/2B0001A8"), on(backup("2F", 200), 2, "0/9000001")
    repository = of(here, undone, before, behind)
    assert [b.label for b in repository.backups if path.leads_from(b)] == ["3F", "5F"]
    assert [b.label for b in proof_round.due(repository, KEEP, path)] == ["5F", "3F"]


def test_a_server_that_cannot_be_asked_leaves_none_out(tried: dict[str, Any]) -> None:
    class Down(Backrest):
        def timeline_path(self) -> TimelinePath:
            raise WhatsAgentError("PostgreSQL refused in database postgres: connection refused")

    elsewhere = on(backup("2F", 200), 2, "0/5000060")
    run(Backrest(elsewhere))
    assert list(tried) == []
    run(Down(elsewhere))
    assert list(tried) == ["2F"]


def test_the_first_timeline_was_come_to_from_nowhere() -> None:
    assert TimelinePath.of(1, "").leads_from(on(backup("1F", 100), 1, "0/3000060"))
    assert not TimelinePath.of(1, "").leads_from(on(backup("2F", 200), 2, "0/3000060"))


def test_a_schedule_of_weeks_leaves_each_repository_able_to_restore_and_to_expire() -> None:
    """Two repositories, a backup an hour in each, the second's taken last; full ones on Sundays; a round each night."""
    held: list[Backup] = []
    most = 0
    for hour in range(40 * 24):
        day, clock = divmod(hour, 24)
        kind = ("full" if day % 7 == 0 else "diff") if clock == 2 else "incr"
        full = f"{day // 7 * 7:03}F"
        label = full if kind == "full" else f"{full}_{hour:04}{kind[0].upper()}"
        if day or clock >= 2:
            held += [backup(label, hour * HOUR + 60 * repo, kind, repo) for repo in (1, 2)]
        if clock == 3:
            due = proof_round.due(of(*held), KEEP, HERE)
            most = max(most, len(due))
            held = [replace(b, annotations={"proven": "x"}) if b in due else b for b in held]
            for repo in (1, 2):
                found = of(*held)
                newest = found.of(repo)[-1]
                assert newest.proven, f"day {day}: the newest of repository {repo}"
                assert all(b.proven for b in found.of(repo) if b.type == "full"), f"day {day}: a full one of {repo}"
                assert safe_to_expire(found, repo, KEEP) or not expirable(found, repo, KEEP)
    assert most == 4  # on Sundays: the newest and the full one, of each
    assert expirable(of(*held), 1, KEEP)


class Backrest:
    """pgBackRest as far as a round asks it."""

    def __init__(self, *backups: Backup) -> None:
        self.repository = of(*backups)
        self.expired: list[tuple[int, int]] = []

    def info(self) -> Repository:
        """Answer."""
        return self.repository

    def timeline_path(self) -> TimelinePath:
        """Say that nothing was left behind."""
        return HERE

    def repositories(self) -> list[int]:
        """Name them."""
        return sorted(self.repository.keys)

    def expire(self, repo: int, keep_full: int) -> None:
        """Note it."""
        self.expired.append((repo, keep_full))


@pytest.fixture
def tried(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Replace the proof; return its answers by label, to be set, which end up as what was tried."""
    answers: dict[str, Any] = {}

    def prove(backrest: Backrest, found: Backup, **_: Any) -> Any:
        answer = answers.setdefault(found.label, True)
        if isinstance(answer, Exception):
            raise answer
        if answer:
            marked = replace(found, annotations={"proven": "x"})
            backrest.repository = of(*(marked if b == found else b for b in backrest.repository.backups))
        checks = [{"name": "replay", "ok": bool(answer), "detail": "to 0/5"}]
        return SimpleNamespace(ok=answer, backup=found.label, checks=checks, as_dict=lambda: {"backup": found.label})

    monkeypatch.setattr(postgres_proof, "prove", prove)
    return answers


def run(backrest: Any, heart: Any = None) -> dict[str, Any]:
    """Run a round."""
    arguments: dict[str, Any] = {"heart": heart or Idle(), "progress": lambda _step: None, "dbname": "d"}
    return proof_round.prove_due(backrest, keep_full=1, **arguments)


def test_a_round_proves_all_that_is_due_and_lets_expire_what_waited_for_it(tried: dict[str, Any]) -> None:
    backrest = Backrest(backup("1F", 100), backup("2F", 200), backup("3F", 201, "full", 2))
    done = run(backrest)
    assert [(proof["repo"], proof["backup"]) for proof in done["proofs"]] == [(1, "2F"), (2, "3F")]
    assert backrest.expired == [(1, 1)]
    assert set(tried) == {"2F", "3F"}


@pytest.mark.parametrize("answer", [WhatsAgentError("a file is missing", rc=55), False])
def test_one_that_fails_keeps_no_other_from_its_proof_and_is_named(tried: dict[str, Any], answer: Any) -> None:
    tried["1F"] = answer
    backrest = Backrest(backup("1F", 100), backup("2F", 101, "full", 2))
    with pytest.raises(
        WhatsAgentError, match=r"not proven: 1F of repository 1: (a file is missing|replay: to 0/5)"
    ) as failed:
        run(backrest)
    assert [proof["backup"] for proof in failed.value.details["proofs"]][-1] == "2F"
    assert "2F" not in failed.value.message


def test_without_its_lease_a_round_touches_nothing_more(tried: dict[str, Any]) -> None:
    tried["1F"] = WhatsAgentError("another run holds the host")

    class Lost:
        def check(self) -> None:
            raise WhatsAgentError("the lease is lost")

    with pytest.raises(WhatsAgentError, match="the lease is lost"):
        run(Backrest(backup("1F", 100), backup("2F", 101, "full", 2)), Lost())
    assert set(tried) == {"1F"}
