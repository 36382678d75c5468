# SPDX-License-Identifier: GPL-3.0-or-later
"""The scan of the pages on disk: what is read in which order, and whose a bad page is."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from ansible.module_utils.whats_agent import postgres_pages as pages
from ansible.module_utils.whats_agent.clock import Clock
from ansible.module_utils.whats_agent.postgres_integrity import judge_pages
from ansible.module_utils.whats_agent.postgres_pages import BadPage, PageScan, Relation

TABLE = Relation(oid=16400, name="public.messages", kind="r", catalog=False, table_of_index=None)


def test_a_bad_page_of_nobodys_does_not_disprove_a_database() -> None:
    orphan = BadPage("base/5/99", 0, "main", None)
    told = judge_pages(PageScan((orphan,), 8192, 8192))
    assert told.ok
    assert "page 0 of no relation (base/5/99)" in told.detail
    damaged = judge_pages(PageScan((orphan, BadPage("base/5/16400", 3, "main", TABLE)), 8192, 8192))
    assert not damaged.ok
    assert damaged.detail == "page 3 of public.messages (base/5/16400)"


CATALOG = Relation(oid=1259, name="pg_catalog.pg_class", kind="r", catalog=True, table_of_index=None)
MB = 1 << 20
FILES = [("base/5/16400", 6 * MB), ("base/5/16401", 3 * MB + 8192), ("base/5/1259", 8192), ("global/1260", 8192)]
RELATIONS = {(False, 16400): TABLE, (False, 1259): CATALOG}


class Server:
    """A server whose files are these; each piece that is read takes a second. `corrupt` are paths with a bad first page."""

    def __init__(self, second: float, corrupt: tuple[str, ...] = ()) -> None:
        """Begin at a wall-clock time."""
        self.second = second
        self.corrupt = corrupt
        self.now = 0.0
        self.read: list[tuple[str, int]] = []

    @property
    def clock(self) -> Clock:
        """Return the clock that goes on as pieces are read."""
        return Clock(boottime=lambda: self.now, wall=lambda: 1000 + self.second, sleep=lambda _: None)

    def execute(self, _query: str, parameters: dict[str, Any]) -> SimpleNamespace:
        """List the files, or read a piece of one."""
        if "folder" in parameters:
            return SimpleNamespace(fetchall=lambda: FILES)
        self.now += 1
        self.read.append((parameters["path"], parameters["offset"]))
        bad = parameters["path"] in self.corrupt and parameters["offset"] == 0
        return SimpleNamespace(fetchall=lambda: [(parameters["first"],)] if bad else [])


def look(second: float, budget_s: float, **more: Any) -> tuple[PageScan, list[tuple[str, int]]]:
    """Scan from this fraction of a second on."""
    server = Server(second, more.pop("corrupt", ()))
    return pages.scan(server, RELATIONS, 5, budget_s=budget_s, clock=server.clock, **more), server.read


def test_the_catalog_is_read_first_however_small_the_budget() -> None:
    scan, read = look(0.5, 1.5, corrupt=("base/5/1259",))
    assert {path for path, _ in read[:2]} == {"base/5/1259", "global/1260"}
    assert [page.kind for page in scan.bad] == ["catalog"]
    assert not scan.complete


def test_what_the_log_complains_of_is_read_before_the_catalog() -> None:
    _scan, read = look(0.9, 0.5, suspects=("base/5/16400",))
    assert read == [("base/5/16400", 0)]


def test_looks_that_are_cut_short_read_different_parts_and_together_all() -> None:
    whole = set(look(0, 100)[1])
    assert len(whole) == 12
    seen: set[tuple[str, int]] = set()
    for turn in range(10):
        _scan, read = look(turn / 10, 3.5)
        assert len(read) == 4
        seen.update(read)
    assert seen == whole


def test_the_biggest_tables_last_page_is_found_by_a_look_of_its_part() -> None:
    found = [bool(look(turn / 10, 3.5, corrupt=("base/5/16401",))[0].bad) for turn in range(10)]
    assert any(found)
    assert not all(found)


@pytest.mark.parametrize("second", [0.0, 0.37, 0.999])
def test_a_look_with_time_enough_reads_everything_once(second: float) -> None:
    scan, read = look(second, 100)
    assert scan.complete
    assert scan.scanned == scan.total
    assert len(read) == len(set(read)) == 12


def test_without_a_readable_catalog_the_files_made_with_the_cluster_come_first() -> None:
    ranks = [pages.rank_of(path, {}, frozenset()) for path, _size in FILES]
    assert ranks == [pages.REST, pages.REST, pages.CATALOG, pages.CATALOG]


def test_a_page_is_still_bad_as_long_as_it_is_on_disk() -> None:
    server = Server(0, ("base/5/16400",))
    bad, fine = (
        BadPage("base/5/16400", 0, "main", TABLE),
        BadPage("base/5/16401.1", pages.SEGMENT_PAGES + 2, "main", None),
    )
    assert pages.still_bad(server, (bad, fine)) == (bad,)
    assert server.read == [("base/5/16400", 0), ("base/5/16401.1", 2 * 8192)]
