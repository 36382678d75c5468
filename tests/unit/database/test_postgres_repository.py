# SPDX-License-Identifier: GPL-3.0-or-later
"""What nothing in the backup repository can be read without: kept beside it, missed, put back."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from ansible.module_utils.whats_agent import postgres_repository as repository
from ansible.module_utils.whats_agent.errors import WhatsAgentError
from ansible.module_utils.whats_agent.pgbackrest import archive_times, archived_segments
from ansible.module_utils.whats_agent.postgres_host import DatabasePlace

ARCHIVE, BACKUP = repository.INFOS


@pytest.fixture
def place(tmp_path: Path) -> DatabasePlace:
    (tmp_path / "state").mkdir()
    return DatabasePlace(tmp_path / "stack", tmp_path / "state", "whats_agent")


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make a repository as pgBackRest lays it out, which the user of the tests may write to."""
    monkeypatch.setattr(repository, "UID", -1)
    monkeypatch.setattr(repository, "GID", -1)
    root = tmp_path / "pgbackrest"
    for name, beside in ((ARCHIVE, "17-1"), (BACKUP, "20261129-070012F")):
        (root / name).parent.mkdir(parents=True)
        (root / name).parent.joinpath(beside).mkdir()
        for copy in ("", repository.COPY):
            (root / f"{name}{copy}").write_bytes(f"key of {name}".encode())
    return root


def lose(root: Path, name: str, *copies: str) -> None:
    for copy in copies:
        (root / f"{name}{copy}").unlink()


def test_both_are_kept_once(place: DatabasePlace, root: Path) -> None:
    assert repository.keep(place, root) == [ARCHIVE, BACKUP]
    assert repository.keep(place, root) == []
    kept = repository.kept_dir(place)
    assert (kept / "archive.info").read_bytes() == b"key of archive/main/archive.info"
    assert (kept / "archive.info").stat().st_mode & 0o777 == 0o600
    assert kept.stat().st_mode & 0o777 == 0o700


def test_nothing_is_lacking_while_a_copy_is_left(place: DatabasePlace, root: Path) -> None:
    assert repository.lacks(root) == ()
    lose(root, ARCHIVE, "")
    assert repository.lacks(root) == ()
    assert repository.put_back(place, root, write=True) == []
    assert not (root / ARCHIVE).exists()


def test_an_empty_file_is_a_lost_one(root: Path) -> None:
    for copy in ("", repository.COPY):
        (root / f"{BACKUP}{copy}").write_bytes(b"")
    assert repository.lacks(root) == (BACKUP,)


def test_a_new_repository_lacks_nothing(tmp_path: Path) -> None:
    assert repository.lacks(tmp_path / "none") == ()
    (tmp_path / ARCHIVE).parent.mkdir(parents=True)
    assert repository.lacks(tmp_path) == ()


@pytest.mark.parametrize("name", [ARCHIVE, BACKUP])
def test_both_copies_come_back(place: DatabasePlace, root: Path, name: str) -> None:
    repository.keep(place, root)
    lose(root, name, "", repository.COPY)
    assert repository.lacks(root) == (name,)

    planned = repository.put_back(place, root, write=False)
    assert planned == [f"put {name} back into the repository"]
    assert repository.lacks(root) == (name,)

    assert repository.put_back(place, root, write=True) == planned
    for copy in ("", repository.COPY):
        assert (root / f"{name}{copy}").read_bytes() == f"key of {name}".encode()
    assert repository.put_back(place, root, write=True) == []


def test_what_is_lost_does_not_spoil_what_is_kept(place: DatabasePlace, root: Path) -> None:
    repository.keep(place, root)
    lose(root, ARCHIVE, "", repository.COPY)
    assert repository.keep(place, root) == []
    assert repository.put_back(place, root, write=True)


def test_a_restore_from_what_cannot_be_read_is_refused_with_the_commands(place: DatabasePlace, root: Path) -> None:
    repository.refuse_unopened(place, root)
    repository.keep(place, root)
    lose(root, ARCHIVE, "", repository.COPY)
    with pytest.raises(WhatsAgentError) as caught:
        repository.refuse_unopened(place, root)
    assert f"{repository.kept_dir(place)}/archive.info {root}/{ARCHIVE}" in caught.value.message
    assert "perdeu" in caught.value.details["pt"]
    (repository.kept_dir(place) / "archive.info").unlink()
    with pytest.raises(WhatsAgentError, match="this host has kept none"):
        repository.refuse_unopened(place, root)


def test_without_a_kept_copy_a_person_is_told_what_to_do(place: DatabasePlace, root: Path) -> None:
    lose(root, ARCHIVE, "", repository.COPY)
    with pytest.raises(WhatsAgentError) as caught:
        repository.put_back(place, root, write=True)
    assert f"{root} has lost {ARCHIVE}" in caught.value.message
    assert "The database is untouched" in caught.value.message
    assert "playbooks/backup.yml -e type=full" in caught.value.message
    assert repository.lacks(root) == (ARCHIVE,)


def test_an_archive_on_this_host_is_listed_as_pgbackrest_lists_it(root: Path) -> None:
    segment = "17-1/0000000100000000/000000010000000000000009-" + "a" * 40 + ".zst"
    path = root / "archive/main" / segment
    path.parent.mkdir(parents=True)
    path.write_bytes(b"12345")
    os.utime(path, (1, 1764400000))
    told = repository.listing(root / "archive/main")
    assert json.loads(told)[segment] == {"type": "file", "size": 5, "time": 1764400000}
    assert archived_segments(told) == ["000000010000000000000009"]
    assert archive_times(told) == {"000000010000000000000009": 1764400000.0}


def test_an_archive_that_is_not_there_lists_nothing_and_one_that_cannot_be_read_says_why(root: Path) -> None:
    assert json.loads(repository.listing(root / "archive/other")) == {}
    with pytest.raises(WhatsAgentError, match=r"cannot list .*: Not a directory"):
        repository.listing(root / ARCHIVE)


CONFIGURATION = """
repo1-path=/var/lib/pgbackrest
repo1-bundle=y
repo2-type=sftp
repo2-path=/backups
repo3-type=posix
repo3-path=/mnt
"""


@pytest.mark.parametrize(("repo", "where"), [(1, Path("/srv/here")), (2, None), (3, None)])
def test_where_a_repository_lies_follows_from_its_settings_and_what_is_mounted(repo: int, where: Path | None) -> None:
    assert repository.folder_of(CONFIGURATION, repo, {"/var/lib/pgbackrest": ("/srv/here", False)}) == where
