# SPDX-License-Identifier: GPL-3.0-or-later
"""What the agent's alerts are told of the backups."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.whats_agent import backup_status
from ansible.module_utils.whats_agent.archive_place import ArchivePlace
from ansible.module_utils.whats_agent.clock import Clock
from ansible.module_utils.whats_agent.errors import WhatsAgentError
from ansible.module_utils.whats_agent.files import read_json
from ansible.module_utils.whats_agent.pgbackrest import Backup, Repository, parse_info
from ansible.module_utils.whats_agent.postgres_host import DatabasePlace
from ansible.module_utils.whats_agent.restic import Snapshot

DATA = Path(__file__).parents[1] / "database" / "data"
MB = 1024 * 1024


def backup(stop: int, kind: str, size: int, added: int = 0, **changes: Any) -> Backup:
    """Make a backup; sizes in MB."""
    label = f"{stop}{kind[0].upper()}"
    return replace(Backup(label, kind, 1, stop - 1, stop, size * MB, added * MB, False, "", "", "", ""), **changes)


@pytest.mark.parametrize(
    ("backups", "jumped"),
    [
        pytest.param([backup(1, "full", 31), backup(2, "full", 90)], ["2F"], id="the database has grown"),
        pytest.param([backup(1, "full", 90), backup(2, "full", 31)], ["2F"], id="it has shrunk: data may be gone"),
        pytest.param([backup(1, "full", 31), backup(2, "full", 50)], [], id="a small one grows by little"),
        pytest.param([backup(1, "full", 900), backup(2, "full", 1200)], [], id="a big one grows in proportion"),
        pytest.param([backup(1, "full", 31), backup(2, "incr", 90)], [], id="of another type"),
        pytest.param(
            [backup(1, "full", 31), backup(2, "full", 90), backup(3, "full", 91)], [], id="accepted by another"
        ),
        pytest.param([backup(1, "incr", 900, 2), backup(2, "incr", 900, 400)], ["2I"], id="an increment of everything"),
        pytest.param([backup(1, "incr", 900, 400), backup(2, "incr", 900, 2)], [], id="a quiet hour"),
        pytest.param([backup(1, "full", 31), backup(2, "full", 90, repo=2)], [], id="of another repository"),
    ],
)
def test_a_backup_is_compared_with_the_one_of_its_type_before_it(backups: list[Backup], jumped: list[str]) -> None:
    assert [jump.backup for jump in backup_status.jumps(backups)] == jumped


def test_a_healthy_repository_is_told_with_the_moment_of_its_proof() -> None:
    repository = parse_info((DATA / "info_ok.json").read_text())
    told = backup_status.of_the_repository(repository, 3.0, 4, 1795526901.0)
    assert told == {
        "backup": "20261124-132821F_20261124-132822I",
        "last_proven_at": "2026-11-24T13:28:23Z",
        "last_backup_at": "2026-11-24T13:28:23Z",
        "repository_problems": {},
        "proofs": {
            "1": {
                "backups": 2,
                "proven": 1,
                "fulls": 1,
                "fulls_proven": 0,
                "proof_due_since": "2026-11-24T13:28:23Z",
            }
        },
        "expiry_held": {},
        "size_jumps": [],
        "archive_lag_s": 3.0,
    }


DAY = 86400
PROVEN = {"proven": "x"}


def weeks(repo: int, count: int, *proven: int) -> list[Backup]:
    """Make one full backup a week, some of them proven."""
    return [
        backup(n * 7 * DAY, "full", 31, repo=repo, annotations=PROVEN if n in proven else {})
        for n in range(1, count + 1)
    ]


def of(*backups: Backup) -> Repository:
    """Make repositories that hold them."""
    return Repository(0, "ok", "", tuple(sorted(backups, key=lambda b: b.stop)), "", "", dict.fromkeys((1, 2), 0))


@pytest.mark.parametrize(
    ("first", "second", "days", "held"),
    [
        pytest.param(weeks(1, 4), weeks(2, 4), 30, {}, id="no more than are kept"),
        pytest.param(weeks(1, 6, 5), weeks(2, 6, 6), 50, {}, id="each has a proof"),
        pytest.param(
            weeks(1, 6), weeks(2, 6, 6), 50, {"1": {"fulls": 6, "keep": 4}}, id="proofs of the other do not help"
        ),
        pytest.param(weeks(1, 6, 2), weeks(2, 6, 6), 50, {"1": {"fulls": 6, "keep": 4}}, id="its own proof is too old"),
        pytest.param(weeks(1, 5), weeks(2, 5, 5), 36, {}, id="the night's proofs are still to come"),
    ],
)
def test_a_repository_that_cannot_expire_is_told(
    first: list[Backup], second: list[Backup], days: int, held: dict[str, Any]
) -> None:
    told = backup_status.held_expiry(of(*first, *second), 4, days * DAY)
    assert {repo: {name: told[repo][name] for name in ("fulls", "keep")} for repo in told} == held
    assert all(
        entry["since"] == "1970-02-05T00:00:00Z" for entry in told.values()
    )  # the fifth week's, the first too many


def test_a_proof_is_due_in_each_repository_since_its_own_last_one() -> None:
    told = backup_status.of_the_proofs(of(*weeks(1, 3), *weeks(2, 3, 2)))
    assert told["1"]["proof_due_since"] == "1970-01-08T00:00:00Z"  # never yet: since its first backup
    assert told["2"]["proof_due_since"] == "1970-01-15T00:00:00Z"
    assert (told["2"]["fulls"], told["2"]["fulls_proven"]) == (3, 1)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("wrong_passphrase", "cannot be opened with this passphrase"),
        ("empty_repository", "is empty"),
        ("no_backup", "holds no backup"),
    ],
)
def test_each_way_a_repository_cannot_be_used_is_a_problem(name: str, words: str) -> None:
    text = (DATA / f"info_{name}.json").read_bytes().decode("utf-8", "replace")
    told = backup_status.of_the_repository(parse_info(text), None, 4, 1795526901.0)
    assert words in told["repository_problems"]["1"]
    assert told["last_proven_at"] is None


class Backrest:
    """pgBackRest as far as the status asks it."""

    def __init__(self, place: DatabasePlace) -> None:
        self.place = place
        self.answer: Repository | WhatsAgentError = parse_info((DATA / "info_ok.json").read_text())

    def info(self) -> Repository:
        """Answer or fail."""
        if isinstance(self.answer, WhatsAgentError):
            raise self.answer
        return self.answer

    def configuration(self) -> str:
        """Answer what the role writes."""
        return "[global]\nrepo1-path=/var/lib/pgbackrest\nrepo1-retention-full=4\n"


@pytest.fixture
def backrest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Backrest:
    """Return one whose stack has a folder for logs; the archive holds nothing yet."""
    (tmp_path / "stack/logs").mkdir(parents=True)
    (tmp_path / "state").mkdir()
    monkeypatch.setattr(backup_status, "require", lambda _store: None)
    monkeypatch.setattr(backup_status, "snapshots", lambda *_: [])
    monkeypatch.setattr(backup_status, "lag_of", lambda *_: 0.0)
    return Backrest(DatabasePlace(tmp_path / "stack", tmp_path / "state"))


def write(backrest: Any, **arguments: Any) -> dict[str, Any]:
    """Write the status and read it as the agent does."""
    place = ArchivePlace(backrest.place.stack_dir, backrest.place.state_dir)
    backup_status.write(backrest, place, clock=Clock(wall=lambda: 1795526901.0), **arguments)
    path = backrest.place.stack_dir / "logs/status/backup.json"
    assert path.stat().st_mode & 0o777 == 0o644
    found = read_json(path)
    assert isinstance(found, dict)
    return found


def test_a_failure_is_told_until_the_same_kind_of_work_succeeds(backrest: Backrest) -> None:
    assert write(backrest)["failed"] == {}
    failed = {"at": "2026-11-24T13:28:21.000Z", "reason": "the disk is full"}
    assert write(backrest, failed=("incr", "the disk is full"))["failed"] == {"incr": failed}
    assert write(backrest)["failed"] == {"incr": failed}
    assert write(backrest, done="full")["failed"] == {"incr": failed}
    assert write(backrest, done="incr")["failed"] == {}


@pytest.mark.parametrize("content", ["", '{"failed": {"incr"', "[]", '{"failed": ["incr"]}', '{"failed": null}'])
def test_a_broken_file_is_written_anew_and_keeps_nothing_from_being_told(backrest: Backrest, content: str) -> None:
    path = backrest.place.stack_dir / "logs/status/backup.json"
    path.parent.mkdir()
    path.write_text(content)
    assert list(write(backrest, failed=("full", "the disk is full"))["failed"]) == ["full"]


def test_a_second_archive_that_nobody_can_read_of_is_a_problem_and_no_failure_to_tell(backrest: Backrest) -> None:
    secrets = backrest.place.state_dir / "secrets"
    secrets.mkdir()
    (secrets / "backup_archive_second.json").write_text('{"repository"')
    assert "is not valid JSON" in write(backrest)["archive_problems"]["second"]


def test_a_repository_that_does_not_even_answer_is_a_problem_and_no_failure_to_tell(backrest: Backrest) -> None:
    backrest.answer = WhatsAgentError("cannot read the backup repository: no space left")
    assert "no space left" in write(backrest)["repository_problems"]["1"]


def test_what_lies_on_one_host_alone_does_not_count_where_a_second_was_wanted(
    backrest: Backrest, monkeypatch: pytest.MonkeyPatch
) -> None:
    secrets = backrest.place.state_dir / "secrets"
    secrets.mkdir()
    (secrets / "backup_archive_second.json").write_text('{"repository": "sftp:x"}')
    times = {"sftp:x": "2026-11-24T08:00:00.5+01:00"}
    monkeypatch.setattr(
        backup_status,
        "snapshots",
        lambda store, _tag: [Snapshot("1", times.get(store.repository, "2026-11-24T09:00:00Z"), ("proven",))],
    )
    assert write(backrest)["last_archive_at"] == "2026-11-24T07:00:00Z"
    monkeypatch.setattr(
        backup_status,
        "snapshots",
        lambda store, _tag: (
            [] if store.repository == "sftp:x" else [Snapshot("1", "2026-11-24T09:00:00Z", ("proven",))]
        ),
    )
    assert write(backrest)["archive_problems"] == {"second": "sftp:x holds no proven snapshot"}


def test_nothing_is_written_through_a_link(backrest: Backrest, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (backrest.place.stack_dir / "logs/status").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(WhatsAgentError, match="symbolic link"):
        write(backrest)
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_a_jump_is_told_with_both_sizes() -> None:
    (jump,) = backup_status.jumps([backup(1, "full", 31), backup(2, "full", 90)])
    assert asdict(jump) == {
        "repo": 1,
        "backup": "2F",
        "type": "full",
        "what": "database",
        "bytes": 90 * MB,
        "before": 31 * MB,
    }
