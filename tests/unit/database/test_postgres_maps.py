# SPDX-License-Identifier: GPL-3.0-or-later
"""Damaged maps of a table: rebuilt beside its reads and writes, and removed only where PostgreSQL never writes them again."""

from __future__ import annotations

import contextlib
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from ansible.module_utils.whats_agent import postgres_maps as maps
from ansible.module_utils.whats_agent import postgres_mend
from ansible.module_utils.whats_agent import postgres_pages as pages
from ansible.module_utils.whats_agent.errors import WhatsAgentError
from ansible.module_utils.whats_agent.postgres_host import DATA_DIR
from ansible.module_utils.whats_agent.postgres_mend_sessions import Order
from ansible.module_utils.whats_agent.postgres_pages import BadPage, PageScan, Relation

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

TABLE = Relation(oid=16400, name="public.messages", kind="r", catalog=False, table_of_index=None)
INDEX = Relation(oid=16410, name="public.messages_pkey", kind="i", catalog=False, table_of_index="messages")


def bad(relation: Relation | None, fork: str, node: int = 16400) -> BadPage:
    """Return a bad page of a relation's fork."""
    return BadPage(f"base/5/{node}" + ("" if fork == "main" else f"_{fork}"), 0, fork, relation)


class Session:
    """A connection that notes what is executed. `extension` tells whether pg_visibility is there already."""

    def __init__(self, *, extension: bool = False) -> None:
        """Begin with nothing done."""
        self.extension = extension
        self.did: list[str] = []

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """Hold a transaction."""
        self.did.append("begin")
        yield
        self.did.append("commit")

    def execute(self, statement: Any, parameters: Any = None) -> SimpleNamespace:
        """Note a statement, and answer the questions."""
        text = statement if isinstance(statement, str) else statement.as_string(None)
        if text.startswith("select from pg_extension"):
            return SimpleNamespace(fetchone=lambda: () if self.extension else None)
        if text.startswith("select nspname"):
            return SimpleNamespace(fetchone=lambda: ("pg_catalog",))
        if text.startswith("select oid"):
            return SimpleNamespace(fetchone=lambda: (5,))
        if "from pg_index" in text:
            return SimpleNamespace(fetchall=list)
        self.did.append(text if parameters is None else f"{text} {parameters}")
        return SimpleNamespace()


VACUUM = 'vacuum (disable_page_skipping, index_cleanup off, truncate off) "public"."messages"'
TRUNCATE = 'select "pg_catalog"."pg_truncate_visibility_map"(%s::oid::regclass) (16400,)'


def test_a_map_of_free_space_is_rebuilt_without_locking_the_table() -> None:
    session = Session()
    assert maps.rebuild(session, (bad(TABLE, "fsm"),), write=True) == [
        "rebuilt the map of free space of public.messages"
    ]
    assert session.did == [VACUUM]


@pytest.mark.parametrize("extension", [False, True])
def test_a_map_of_visibility_is_emptied_first_and_leaves_no_extension_behind(extension: bool) -> None:
    session = Session(extension=extension)
    told = maps.rebuild(session, (bad(TABLE, "vm"), bad(TABLE, "fsm")), write=True)
    assert told == ["rebuilt the map of free space and visibility of public.messages"]
    made = [] if extension else ["create extension pg_visibility schema pg_catalog"]
    dropped = [] if extension else ["drop extension pg_visibility"]
    limited = "set local lock_timeout = '10s'"
    assert session.did == ["begin", limited, *made, TRUNCATE, *dropped, "commit", VACUUM]


def test_the_map_of_an_index_comes_anew_with_the_index() -> None:
    session = Session()
    assert maps.rebuild(session, (bad(INDEX, "fsm"),), write=True) == [
        "rebuilt the index public.messages_pkey, with its map of free space"
    ]
    assert session.did == ['reindex index "public"."messages_pkey"']


def test_what_would_be_done_is_told_and_not_done() -> None:
    session = Session()
    assert maps.rebuild(session, (bad(TABLE, "vm"), bad(INDEX, "fsm")), write=False)
    assert session.did == []


def test_only_a_maps_files_are_removed_all_segments_of_them(tmp_path: Path) -> None:
    folder = tmp_path / "base/5"
    folder.mkdir(parents=True)
    for name in ("16400", "16400.1", "16400_fsm", "16400_fsm.1", "16400_vm", "164001_fsm"):
        (folder / name).touch()
    assert [p.name for p in maps.files_of((bad(TABLE, "fsm"),), tmp_path)] == ["16400_fsm", "16400_fsm.1"]
    with pytest.raises(WhatsAgentError, match=r"base/5/16400 is no map's file"):
        maps.files_of((bad(TABLE, "main"),), tmp_path)


class Stack:
    """The database's container, whose data lies in a folder."""

    def __init__(self, data: Path) -> None:
        """Begin with nothing done."""
        self.data = data
        self.did: list[str] = []
        self.place = SimpleNamespace(project="whats_agent", service="postgres", env_path=data / ".env")
        self.docker = self

    def require_running(self, _project: str, _service: str) -> SimpleNamespace:
        """Return the container."""
        return SimpleNamespace(id="c1", mounts={DATA_DIR: "pgdata"})

    def volume(self, name: str) -> SimpleNamespace:
        """Return the volume."""
        assert name == "pgdata"
        return SimpleNamespace(mountpoint=str(self.data))

    def stop(self, container: str, *, grace: int) -> None:
        """Stop it."""
        assert grace >= 60
        self.did.append(f"stop {container}, {len(list(self.data.rglob('*_fsm')))} maps")

    def start(self, container: str) -> None:
        """Start it again."""
        self.did.append(f"start {container}, {len(list(self.data.rglob('*_fsm')))} maps")


def test_a_map_that_is_never_written_again_is_removed_while_the_server_is_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "base/5").mkdir(parents=True)
    (tmp_path / "base/5/16400_fsm").touch()
    (tmp_path / ".env").write_text("DB_NAME=whats_agent\n", encoding="utf-8")
    stack = Stack(tmp_path)
    monkeypatch.setattr(maps, "wait_serving", lambda *_: stack.did.append("wait"))
    told = maps.cut(stack, (bad(TABLE, "fsm"),))  # type: ignore[arg-type]
    assert told == ["removed 16400_fsm, a map that was damaged and empty, in a stopped server"]
    assert stack.did == ["stop c1, 1 maps", "start c1, 0 maps", "wait"]


@pytest.mark.parametrize("lasts", [False, True])
def test_the_remedy_goes_no_further_than_it_must(lasts: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    session, page = Session(), bad(TABLE, "fsm")
    (tmp_path / ".env").write_text("DB_NAME=whats_agent\n", encoding="utf-8")
    stack = Stack(tmp_path)

    @contextlib.contextmanager
    def database(*_: Any, **__: Any) -> Iterator[Session]:
        yield session

    monkeypatch.setattr(postgres_mend, "database", database)
    monkeypatch.setattr(pages, "relations_of", lambda _: {})
    # What is nobody's beside it is no reason to refuse.
    monkeypatch.setattr(pages, "scan", lambda *_, **__: PageScan((page, bad(None, "main", 9)), 1, 1))
    monkeypatch.setattr(pages, "still_bad", lambda *_: (page,) if lasts else ())
    monkeypatch.setattr(maps, "cut", lambda _, found: [f"cut {len(found)}"])
    told = postgres_mend.mend_indexes(stack, Order(write=True, indexes=("public.i",)))  # type: ignore[arg-type]
    rebuilt = ["rebuilt the index public.i", "rebuilt the map of free space of public.messages"]
    assert told == [*rebuilt, *(["cut 1"] if lasts else [])]
    assert session.did == ['reindex index "public"."i"', VACUUM, "checkpoint"]
