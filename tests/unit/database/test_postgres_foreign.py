# SPDX-License-Identifier: GPL-3.0-or-later
"""What a copy of the database archived under the names of the own volume's WAL: told by content, moved aside, not destroyed."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ansible.module_utils.whats_agent import postgres_foreign as foreign
from ansible.module_utils.whats_agent.pgbackrest import segment_start
from ansible.module_utils.whats_agent.postgres_foreign import Archived
from ansible.module_utils.whats_agent.postgres_host import DATA_DIR, REPOSITORY_DIR
from ansible.module_utils.whats_agent.postgres_mend_sessions import Order
from ansible.module_utils.whats_agent.postgres_wal import _PAGE_HEADER


def name(number: int, timeline: int = 1) -> str:
    return f"{timeline:08X}00000000{number:08X}"


def archived(number: int, content: str, timeline: int = 1, database: str = "17-1") -> Archived:
    path = f"{database}/{name(number, timeline)[:16]}/{name(number, timeline)}-{digest(content)}.zst"
    return Archived(path, name(number, timeline), digest(content))


def digest(content: str) -> str:
    return hashlib.sha1(content.encode(), usedforsecurity=False).hexdigest()


OWN = {name(6): digest("own 6"), name(7): digest("own 7")}


@pytest.mark.parametrize(
    ("segment", "is_foreign"),
    [
        pytest.param(archived(5, "whatever"), False, id="archived long ago, and no longer in the volume"),
        pytest.param(archived(6, "own 6"), False, id="its own"),
        pytest.param(archived(7, "other 7"), True, id="what the copy wrote into the segment that the volume is in"),
        pytest.param(archived(8, "other 8"), True, id="ahead of the volume"),
        pytest.param(archived(8, "promoted", timeline=2), False, id="of another timeline, whose names do not meet"),
    ],
)
def test_what_is_not_of_the_volume_is_told_by_its_content(segment: Archived, is_foreign: bool) -> None:
    assert foreign.foreign(OWN, [segment]) == ([segment] if is_foreign else [])


def test_a_volume_without_wal_claims_nothing() -> None:
    assert foreign.foreign({}, [archived(7, "other 7")]) == []


def test_only_the_newest_database_of_the_stanza_is_looked_at() -> None:
    old, new = archived(7, "old"), archived(7, "new", database="17-2")
    beside = [f"17-2/{name(7)[:16]}/{name(3)}.00000028.backup", "17-2/00000002.history", "archive.info", "17-2"]
    assert foreign.archived_in([old.path, new.path, *beside]) == [new]


@pytest.fixture
def stack(tmp_path: Path) -> Any:
    """Lay out a volume in segment 7, and a repository with what a copy archived since."""
    root, data, spool = tmp_path / "pgbackrest", tmp_path / "own", tmp_path / "spool"
    (data / "pg_wal").mkdir(parents=True)
    for number in (6, 7):
        header = _PAGE_HEADER.pack(0xD116, 0, 1, segment_start(name(number)))
        (data / "pg_wal" / name(number)).write_bytes(header + f"own {number}".encode())
    held = foreign.sums_of(data)
    paths = [f"17-1/{name(6)[:16]}/{name(6)}-{held[name(6)]}.zst", archived(7, "x").path, archived(8, "y").path]
    for path in paths:
        (root / "archive/main" / path).parent.mkdir(parents=True, exist_ok=True)
        (root / "archive/main" / path).write_text(path)
    (spool / "archive/main/out").mkdir(parents=True)
    (spool / "archive/main/out" / f"{name(7)}.ok").touch()
    (tmp_path / ".env").write_text("DB_VOLUME=own\n")
    did: list[tuple[Any, ...]] = []
    volumes = {"own": data, "spool": spool}
    mounts = {DATA_DIR: "copy", foreign.SPOOL_DIR: "spool"}
    backups = (
        SimpleNamespace(label="before", repo=1, wal_start=name(3)),
        SimpleNamespace(label="of_copy", repo=2, wal_start=name(8)),
    )
    return SimpleNamespace(
        root=root,
        spool=spool,
        paths=paths,
        did=did,
        mounts=mounts,
        place=SimpleNamespace(env_path=tmp_path / ".env", project="whats_agent", service="postgres"),
        service=SimpleNamespace(binds={REPOSITORY_DIR: (str(root), False)}),
        docker=SimpleNamespace(
            volume=lambda v: SimpleNamespace(name=v, mountpoint=str(volumes[v])) if v in volumes else None,
            container=lambda _project, _service: SimpleNamespace(id="c1", mounts=mounts),
            stop=lambda container, grace: did.append(("stop", container)),
        ),
        compose=SimpleNamespace(start=lambda service: did.append(("start", service))),
        archives=lambda: {1: json.dumps(dict.fromkeys(paths)), 2: json.dumps(dict.fromkeys(paths))},
        remove=lambda path, repo: did.append(("remove", path, repo)),
        info=lambda: SimpleNamespace(backups=backups),
        annotate=lambda label, repo, key, _value: did.append(("annotate", label, repo, key)),
    )


def test_it_is_moved_aside_while_nothing_runs(stack: Any) -> None:
    done = foreign.mend_outdated(stack, Order(write=True))
    own, *others = stack.paths
    assert stack.did == [
        ("stop", "c1"),
        *(("remove", f"archive/main/{path}", 2) for path in others),
        ("annotate", "of_copy", 2, "disproven"),
        ("start", "postgres"),
    ]
    assert (stack.root / "archive/main" / own).exists()
    for path in others:
        assert not (stack.root / "archive/main" / path).exists()
        assert [p.read_text() for p in stack.root.glob(f"aside/*/{path}")] == [path]
    assert list((stack.spool / "archive/main/out").iterdir()) == []
    assert done[0].startswith("moved 2 WAL segments of the other volume out of repository 1 into ")
    assert done[-1] == "put the container on the volume own"


def test_what_only_another_repository_has_stays_there(stack: Any) -> None:
    own, first, second = stack.paths
    stack.archives = lambda: {1: json.dumps([own, first]), 2: json.dumps([own, first, second])}
    done = foreign.mend_outdated(stack, Order(write=True))
    assert [step for step in stack.did if step[0] == "remove"] == [("remove", f"archive/main/{first}", 2)]
    assert f"left in repository 2, since nothing else has it, WAL of the other volume: {name(8)}" in done


def test_a_dry_run_only_tells(stack: Any) -> None:
    assert len(foreign.mend_outdated(stack, Order(write=False))) == 1
    assert stack.did == []


def test_nothing_is_done_where_the_container_is_on_its_own_volume(stack: Any) -> None:
    stack.mounts[DATA_DIR] = "own"
    assert foreign.mend_outdated(stack, Order(write=True)) == []
    assert stack.did == []
