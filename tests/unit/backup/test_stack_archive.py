# SPDX-License-Identifier: GPL-3.0-or-later
"""The archive of all that is not the database: what counts as proven, what may be pruned, what is extracted.

restic itself is tried on real servers (tests/molecule/backup); here folders stand for its snapshots.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.whats_agent import (
    archive_images,
    archive_log,
    archive_manifest,
    archive_place,
    archive_prune,
    stack_archive,
)
from ansible.module_utils.whats_agent.archive_place import ArchivePlace
from ansible.module_utils.whats_agent.errors import WhatsAgentError
from ansible.module_utils.whats_agent.pgbackrest import Backup, Repository
from ansible.module_utils.whats_agent.restic import Snapshot, Store

RECORDS = ['{"id":1,"body":"a"}', '{"id":2,"body":"b"}']
HEADER = '{"format":"whats-agent message log 1","identity":"i","after":0,"last_id":2}'


def snapshot(number: int, *tags: str) -> Snapshot:
    """Make one, numbered in time."""
    return Snapshot(f"{number:08x}", f"2026-11-24T10:00:{number:02}Z", tags)


def backup(stop: int, **changes: Any) -> Backup:
    """Make a full backup of the database."""
    label = f"202611{stop:02}-000000F"
    return replace(Backup(label, "full", 1, stop - 1, stop, 1, 1, False, "", "", "", ""), **changes)


def export(path: Path, *, footer: str = '{"records":2}') -> Path:
    """Write a message log's export."""
    path.write_text("\n".join([HEADER, *RECORDS, footer]) + "\n")
    return path


# The manifest ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Return a tree with its manifest."""
    root = tmp_path / "given"
    (root / "opt/whats_agent/config/nginx").mkdir(parents=True)
    (root / "opt/whats_agent/.env").write_text("A=1\n")
    (root / "opt/whats_agent/.env").chmod(0o600)
    (root / "opt/whats_agent/config/nginx/nginx.conf").write_text("events {}\n")
    (root / "opt/whats_agent/config/current").symlink_to("nginx")
    manifest = {"taken_at": "2026-11-24T10:00:00Z", "release": "r1", "files": archive_manifest.of(root)}
    (root / archive_manifest.NAME).write_text(json.dumps(manifest))
    return root


def test_a_tree_is_described_by_what_must_come_back(tree: Path) -> None:
    files = archive_manifest.of(tree)
    assert sorted(files) == [
        "/opt/whats_agent/.env",
        "/opt/whats_agent/config/current",
        "/opt/whats_agent/config/nginx/nginx.conf",
    ]
    assert files["/opt/whats_agent/.env"]["mode"] == "0600"
    assert files["/opt/whats_agent/config/current"]["link"] == "nginx"
    assert archive_manifest.differences(tree, files) == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        pytest.param(lambda root: (root / ".env").write_text("A=2\n"), ".env differs in sha256", id="another byte"),
        pytest.param(lambda root: (root / ".env").chmod(0o644), ".env differs in mode", id="another mode"),
        pytest.param(lambda root: (root / ".env").unlink(), ".env is missing", id="missing"),
        pytest.param(lambda root: (root / "more").touch(), "more is too many", id="one too many"),
    ],
)
def test_each_way_to_come_back_wrong_is_said(tree: Path, change: Any, words: str) -> None:
    files = archive_manifest.of(tree)
    change(tree / "opt/whats_agent")
    (line,) = archive_manifest.differences(tree, files)
    assert line.endswith(words)


# Extracting -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def store(tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """Return an archive with one proven snapshot, the tree; restoring copies what is included."""

    def run(argv: list[str], _what: str, **_: Any) -> str:
        assert argv[1] == "restore"
        target = Path(next(a for a in argv if a.startswith("--target=")).partition("=")[2])
        include = [a.partition("=")[2] for a in argv if a.startswith("--include=")]
        for path in [p for p in tree.rglob("*") if not p.is_dir() or p.is_symlink()]:
            name = f"/{path.relative_to(tree)}"
            if not include or any(name == i or name.startswith(f"{i}/") for i in include):
                (target / name[1:]).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(path, target / name[1:], follow_symlinks=False)
        return ""

    monkeypatch.setattr(stack_archive, "run", run)
    monkeypatch.setattr(stack_archive, "snapshots", lambda *_: [snapshot(1, "proven"), snapshot(2)])
    return Store(str(tmp_path / "repository"), tmp_path / "password")


def test_what_is_asked_for_comes_out_and_is_held_against_the_manifest(store: Store, tmp_path: Path) -> None:
    found = stack_archive.extract(store, "latest", tmp_path / "out", ["/opt/whats_agent/config/"])
    assert found == {
        "snapshot": "00000001",
        "release": "r1",
        "taken_at": "2026-11-24T10:00:00Z",
        "files": ["/opt/whats_agent/config/current", "/opt/whats_agent/config/nginx/nginx.conf"],
    }
    assert not (tmp_path / "out/opt/whats_agent/.env").exists()
    assert (tmp_path / "out").stat().st_mode & 0o777 == 0o700


def test_a_damaged_file_is_an_error(store: Store, tree: Path, tmp_path: Path) -> None:
    (tree / "opt/whats_agent/.env").write_text("A=3\n")
    with pytest.raises(WhatsAgentError, match=r"came back damaged: /opt/whats_agent/\.env differs in sha256"):
        stack_archive.extract(store, "latest", tmp_path / "out", [])


def test_nothing_is_mixed_with_other_files(store: Store, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out/kept").touch()
    with pytest.raises(WhatsAgentError, match="not an empty folder"):
        stack_archive.extract(store, "latest", tmp_path / "out", [])
    assert (tmp_path / "out/kept").exists()


@pytest.mark.parametrize(("include", "words"), [("/opt/other", "holds nothing at /opt/other"), ("opt", "not absolute")])
def test_what_is_not_there_is_said(store: Store, tmp_path: Path, include: str, words: str) -> None:
    with pytest.raises(WhatsAgentError, match=words):
        stack_archive.extract(store, "latest", tmp_path / "out", [include])


def test_latest_is_the_newest_proven_one_and_never_one_that_was_not_proven() -> None:
    found = [snapshot(1, "proven"), snapshot(2, "proven"), snapshot(3)]
    assert stack_archive.choose(found, "latest") == found[1]
    assert stack_archive.choose(found, "00000003") == found[2]
    with pytest.raises(WhatsAgentError, match="1 snapshots and none that was proven"):
        stack_archive.choose(found[2:], "latest")
    for wanted in ("", "0000", "ff"):
        with pytest.raises(WhatsAgentError, match="snapshots of the id"):
            stack_archive.choose(found, wanted)


# The message log ------------------------------------------------------------------------------------------------------


def test_an_export_is_counted_and_summed_up_without_what_an_import_changes(tmp_path: Path) -> None:
    first = archive_log.read_export(export(tmp_path / "a"))
    assert (first.identity, first.last_id, first.records) == ("i", 2, 2)
    moved = (tmp_path / "a").read_text().replace('"last_id":2', '"last_id":1000002')
    (tmp_path / "b").write_text(moved)
    second = archive_log.read_export(tmp_path / "b")
    assert (second.digest, second.records) == (first.digest, first.records)
    (tmp_path / "b").write_text(moved.replace('"body":"b"', '"body":"c"'))
    assert archive_log.read_export(tmp_path / "b").digest != first.digest


@pytest.mark.parametrize(
    ("footer", "words"),
    [('{"records":3}', "says 3 records and holds 2"), ('{"id":3,"bo', "cut short"), ("", "cut short")],
)
def test_an_export_that_was_cut_short_is_an_error(tmp_path: Path, footer: str, words: str) -> None:
    with pytest.raises(WhatsAgentError, match=words):
        archive_log.read_export(export(tmp_path / "a", footer=footer))


@pytest.mark.parametrize(
    ("backups", "limit"),
    [
        pytest.param([], 0, id="no backup"),
        pytest.param([backup(5, annotations={"projected": "70"})], 0, id="not proven"),
        pytest.param([backup(5, annotations={"proven": "x"})], 0, id="proven, and nobody knows what it holds"),
        pytest.param([backup(5, annotations={"proven": "x", "projected": "70"})], 70, id="as far as the backup"),
        pytest.param([backup(5, annotations={"proven": "x", "projected": "700"})], 100, id="as far as the archive"),
        pytest.param(
            [
                backup(5, annotations={"proven": "x", "projected": "70"}),
                backup(6, annotations={"proven": "x", "disproven": "y", "projected": "90"}),
            ],
            70,
            id="not what failed a later proof",
        ),
        pytest.param(
            [
                backup(5, annotations={"proven": "x", "projected": "60"}, repo=2),
                backup(6, annotations={"proven": "x", "projected": "70"}),
            ],
            60,
            id="as far as the repository that has less",
        ),
        pytest.param(
            [
                backup(5, annotations={"projected": "60"}, repo=2),
                backup(6, annotations={"proven": "x", "projected": "70"}),
            ],
            0,
            id="one repository that has nothing proven yet",
        ),
    ],
)
def test_the_log_is_pruned_only_as_far_as_a_proven_archive_and_a_proven_backup(
    backups: list[Backup], limit: int
) -> None:
    assert archive_prune.limit(100, Repository(0, "ok", "", tuple(backups), "", "")) == limit


# Proof ----------------------------------------------------------------------------------------------------------------


def test_a_snapshot_is_proven_only_by_the_same_bytes_and_the_same_records(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = archive_log.read_export(export(tree / archive_log.EXPORT_NAME))

    def restore(*_: Any, **__: Any) -> str:
        shutil.copytree(tree, tmp_path / "back", symlinks=True)
        return ""

    monkeypatch.setattr(stack_archive, "run", restore)
    store = Store("/r", Path("/p"))
    stack_archive.prove(store, "s1", tmp_path, given, archive_log.read_export)

    def again(read: Any) -> None:
        shutil.rmtree(tmp_path / "back")
        stack_archive.prove(store, "s1", tmp_path, given, read)

    with pytest.raises(WhatsAgentError, match="holds 1 records of 2"):
        again(lambda path: replace(archive_log.read_export(path), records=1))
    with pytest.raises(WhatsAgentError, match="or other ones"):
        again(lambda path: replace(archive_log.read_export(path), digest="0"))

    def damaged(*_: Any, **__: Any) -> str:
        restore()
        (tmp_path / "back/opt/whats_agent/.env").write_text("A=1 \n")
        return ""

    monkeypatch.setattr(stack_archive, "run", damaged)
    with pytest.raises(WhatsAgentError, match=r"does not give back what it was given: /opt/whats_agent/\.env"):
        again(archive_log.read_export)


def test_an_unproven_snapshot_takes_no_proven_one_s_place(monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[list[str]] = []
    found = [snapshot(1, "state", "proven"), snapshot(2, "state"), snapshot(3, "state", "proven"), snapshot(4, "state")]
    monkeypatch.setattr(stack_archive, "snapshots", lambda *_: found)
    monkeypatch.setattr(stack_archive, "run", lambda argv, *_, **__: ran.append(argv))
    store = Store("/r", Path("/p"))
    stack_archive.drop_old(store, "cannot")
    assert ran == [store.forget_one("00000002"), store.forget("state,proven")]
    ran.clear()
    found[:] = [snapshot(1, "state"), snapshot(2, "state")]
    stack_archive.drop_old(store, "cannot")
    assert ran == [store.forget("state,proven")], "nothing unproven goes while nothing is proven"


@pytest.mark.parametrize("dry", [False, True])
@pytest.mark.parametrize("archived_before", [False, True])
def test_a_second_archive_that_is_away_holds_up_only_a_server_that_never_archived(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dry: bool, archived_before: bool
) -> None:
    first, second = Store("/r", Path("/p")), Store("sftp:b@other:/r", Path("/p"))

    def is_ready(store: Store) -> bool:
        if store == second:
            raise WhatsAgentError("cannot open the archive sftp:b@other:/r: Connection refused")
        return True

    monkeypatch.setattr(ArchivePlace, "stores", lambda _: [first, second])
    monkeypatch.setattr(ArchivePlace, "first", lambda _: first)
    monkeypatch.setattr(stack_archive, "is_ready", is_ready)
    monkeypatch.setattr(stack_archive, "make_ready", lambda store: not is_ready(store))
    monkeypatch.setattr(stack_archive, "snapshots", lambda *_: [snapshot(1, "state")] if archived_before else [])
    place = ArchivePlace(tmp_path, tmp_path)
    if archived_before:
        made = stack_archive.ready(place, dry=dry)
        assert made.steps == []
        assert made.away.endswith("Connection refused")
    else:
        with pytest.raises(WhatsAgentError, match="Connection refused"):
            stack_archive.ready(place, dry=dry)


TRIES_AGAIN = """#!/bin/sh
echo 'Load(<config/0000000000>, 0, 0) failed: Get "https://192.0.2.7/kept/config": connection refused' >&2
exec sleep 600
"""


def test_an_archive_whose_host_is_away_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # What restic 0.18 says, after which it tries again for a quarter of an hour.
    (tmp_path / "restic").write_text(TRIES_AGAIN)
    (tmp_path / "restic").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setattr(archive_place, "LOOK_TIMEOUT_S", 2)
    second = Store("s3:https://192.0.2.7/kept", tmp_path / "password")
    with pytest.raises(
        WhatsAgentError, match=r"s3:https://192\.0\.2\.7/kept: no end within 2 s \(Load.*connection refused\)"
    ):
        archive_place.is_ready(second)


def test_a_killed_escrow_check_s_secrets_are_swept_by_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    left = tmp_path / "scratch/escrow-0badcafe"
    left.mkdir(parents=True)
    (left / "password").write_text("s3cret")
    beside = tmp_path / "scratch/archive"
    beside.mkdir()
    monkeypatch.setattr(stack_archive, "look", lambda *_: None)
    stack_archive.check_escrow(ArchivePlace(tmp_path, tmp_path), "s3cret")
    assert list((tmp_path / "scratch").iterdir()) == [beside]


# Images and places ----------------------------------------------------------------------------------------------------


def test_the_two_newest_releases_keep_their_newest_whole_images() -> None:
    found = [
        snapshot(1, "images", "release=a", "proven"),
        snapshot(2, "images", "release=b", "proven"),
        snapshot(3, "images", "release=b", "proven"),
        snapshot(4, "images", "release=c"),
        snapshot(5, "images", "release=c", "proven"),
    ]
    assert [s.id[-1] for s in archive_images.superfluous(found)] == ["4", "2", "1"]
    assert archive_images.release_of(found[0]) == "a"


def test_the_second_archive_is_what_the_role_wrote_down(tmp_path: Path) -> None:
    place = ArchivePlace(tmp_path / "stack", tmp_path, repository="/r")
    assert place.second() is None
    assert [store.repository for store in place.stores()] == ["/r"]
    (tmp_path / "secrets").mkdir()
    path = tmp_path / "secrets/backup_archive_second.json"
    path.write_text('{"repository": "s3:https://h/b", "environment": {"AWS_SECRET_ACCESS_KEY": "k"}}')
    second = place.stores()[1]
    assert (second.repository, second.environment) == ("s3:https://h/b", {"AWS_SECRET_ACCESS_KEY": "k"})
    assert second.password_file == tmp_path / "secrets/backup_archive_password"
    path.write_text("[]")
    with pytest.raises(WhatsAgentError, match="another shape"):
        place.second()
