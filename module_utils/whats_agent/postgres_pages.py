# SPDX-License-Identifier: GPL-3.0-or-later
"""Check the pages of a database where they lie, on disk, while the server runs, within a time budget.

A cached page hides what happened to its copy on disk, and `pg_checksums` needs a stopped server. The extension
`pageinspect` computes the same checksum in C over what `pg_read_binary_file` reads: about 0.9 GB per second. A page
that is being written at that moment may look torn, so what looks bad is read again before it is believed.

What is too large for the budget is read in turns: the catalog always, of the rest a part that begins elsewhere each time.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

from .clock import SYSTEM_CLOCK, Clock
from .errors import WhatsAgentError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

PAGE_BYTES = 8192
SEGMENT_PAGES = 131072  # a relation's file is cut at 1 GB
CHUNK_BYTES = 1 << 20
RECHECKS = 3
RECHECK_PAUSE_S = 0.15
MAX_REPORTED = 50
FIRST_OWN_NODE = 16384  # files with a lower number were made with the cluster: they are the catalog's
SUSPECT, CATALOG, REST = range(3)

_FILE = re.compile(r"(?P<node>\d+)(?:_(?P<fork>fsm|vm|init))?(?:\.(?P<segment>\d+))?")

# Page 8–9 hold the stored checksum; an all-zero page is new and has none. Of a page that is new by its header only,
# `page_checksum` says null, and PostgreSQL refuses it.
_BAD_PAGES = """
select page.block
from (
  select %(first)s + i as block, substring(chunk.content from i * 8192 + 1 for 8192) as content
  from (select pg_read_binary_file(%(path)s, %(offset)s, %(size)s, true) as content offset 0) chunk,
       generate_series(0, length(chunk.content) / 8192 - 1) i
  offset 0
) page
where (page_checksum(page.content, page.block::bigint)::int & 65535)
      is distinct from get_byte(page.content, 8) + 256 * get_byte(page.content, 9)
  and page.content <> decode(repeat('00', 8192), 'hex')
"""

_FILES = """
select d.folder || '/' || f.name, s.size
from unnest(array['global', %(folder)s]) as d(folder), lateral pg_ls_dir(d.folder) as f(name),
     lateral (select size from pg_stat_file(d.folder || '/' || f.name, true)) s
where f.name ~ '^[0-9]+(_(fsm|vm|init))?([.][0-9]+)?$' and s.size > 0
"""

_RELATIONS = """
select c.relisshared, c.oid::bigint, pg_relation_filenode(c.oid)::bigint as node, n.nspname, c.relname, c.relkind,
       n.nspname in ('pg_catalog', 'pg_toast', 'information_schema') and c.oid < 16384 as catalog,
       i.indrelid::regclass::text as table_of_index
from pg_class c join pg_namespace n on n.oid = c.relnamespace left join pg_index i on i.indexrelid = c.oid
where pg_relation_filenode(c.oid) is not null
"""


@dataclass(frozen=True)
class Relation:
    """What a file belongs to. `kind` is PostgreSQL's relkind (r table, i index, t toast, …)."""

    oid: int
    name: str
    kind: str
    catalog: bool
    table_of_index: str | None


@dataclass(frozen=True)
class BadPage:
    """A page whose checksum does not fit, on disk, repeatedly. `relation` is None for a file no relation owns."""

    path: str
    block: int
    fork: str
    relation: Relation | None

    @property
    def kind(self) -> str:
        """Say what has to be mended: `index`, `catalog`, `map` (rebuilt by itself), `orphan` (nobody's) or `table`."""
        if self.relation is None:
            return "orphan"
        if self.fork in ("fsm", "vm"):
            return "map"
        if self.relation.kind == "i":
            return "catalog_index" if self.relation.catalog else "index"
        return "catalog" if self.relation.catalog else "table"

    def describe(self) -> str:
        """Return the page in words."""
        name = self.relation.name if self.relation else "no relation"
        return f"page {self.block} of {name} ({self.path})"


@dataclass(frozen=True)
class PageScan:
    """What a scan found. `scanned` and `total` are bytes; `complete` tells whether the budget sufficed."""

    bad: tuple[BadPage, ...]
    scanned: int
    total: int

    @property
    def damage(self) -> tuple[BadPage, ...]:
        """Return the bad pages that are somebody's. It means something only where the catalog could be read."""
        return tuple(page for page in self.bad if page.kind != "orphan")

    @property
    def complete(self) -> bool:
        """Whether every file was read."""
        return self.scanned >= self.total


def file_parts(path: str) -> tuple[int, str, int]:
    """Return (file node, fork, segment) of a relation's file; the main fork is ``main``."""
    match = _FILE.fullmatch(path.rpartition("/")[2])
    if match is None:
        raise WhatsAgentError(f"{path!r} is no relation file")
    return int(match["node"]), match["fork"] or "main", int(match["segment"] or 0)


def owner_key(path: str) -> tuple[bool, int]:
    """Return what a file's relation is known by: whether all databases share it, and its file node."""
    return path.startswith("global/"), file_parts(path)[0]


def rank_of(path: str, relations: dict[tuple[bool, int], Relation], suspects: frozenset[tuple[bool, int]]) -> int:
    """Return when a file's turn is: what the log complains of, then the catalog, then the rest."""
    key = owner_key(path)
    if key in suspects:
        return SUSPECT
    relation = relations.get(key)
    catalog = relation.catalog if relation is not None else key[0] or key[1] < FIRST_OWN_NODE
    return CATALOG if catalog else REST


def pieces(ranked: list[tuple[int, str, int]], turn: float) -> Iterator[tuple[str, int, int]]:
    """Yield (path, offset, size) of all chunks of files given as (rank, path, size), in the order to read them in.

    The rest, which may be more than a scan gets through, is a ring that is entered at `turn`, from 0 to below 1.
    """
    first = sorted((rank, size, path) for rank, path, size in ranked if rank != REST)
    yield from _chunks((path, size) for _rank, size, path in first)
    rest = sorted((path, size) for rank, path, size in ranked if rank == REST)
    begin = int(turn * sum(-(-size // CHUNK_BYTES) for _path, size in rest))
    yield from islice(_chunks(rest), begin, None)
    yield from islice(_chunks(rest), begin)


def _chunks(files: Iterable[tuple[str, int]]) -> Iterator[tuple[str, int, int]]:
    for path, size in files:
        for offset in range(0, size, CHUNK_BYTES):
            yield path, offset, min(CHUNK_BYTES, size - offset)


def scan(
    admin: Any,
    relations: dict[tuple[bool, int], Relation],
    database_oid: int,
    *,
    budget_s: float,
    suspects: tuple[str, ...] = (),
    clock: Clock = SYSTEM_CLOCK,
) -> PageScan:
    """Read a database's files and the shared ones and compare page checksums, for at most about `budget_s` seconds.

    `admin` is a superuser's connection to a database that has `pageinspect`; `relations` is what `relations_of` says of
    the database itself (nothing, where its catalog is too damaged to ask). `suspects` are file paths named by the
    server's log, read first. Where a look begins in the rest is the fraction of the second at that moment: a look has no
    memory, and no two looks need begin at the same place.
    """
    suspected = frozenset(owner_key(path) for path in suspects)
    found = admin.execute(_FILES, {"folder": f"base/{database_oid}"}).fetchall()
    files = [(str(path), int(size)) for path, size in found]
    total = sum(size for _path, size in files)
    deadline = clock.boottime() + budget_s
    scanned = 0
    suspicious: list[tuple[str, int, int]] = []  # (path, block, offset in the file)
    ranked = [(rank_of(path, relations, suspected), path, size) for path, size in files]
    for path, offset, size in pieces(ranked, clock.wall() % 1):
        if clock.boottime() > deadline:
            break
        start = file_parts(path)[2] * SEGMENT_PAGES
        for (block,) in _bad_pages(admin, path, offset, CHUNK_BYTES, start + offset // PAGE_BYTES):
            suspicious.append((path, int(block), (int(block) - start) * PAGE_BYTES))
        scanned += size
    for _attempt in range(RECHECKS if suspicious else 0):
        clock.sleep(RECHECK_PAUSE_S)
        suspicious = [s for s in suspicious if _bad_pages(admin, s[0], s[2], PAGE_BYTES, s[1])]
    bad = tuple(
        BadPage(path, block, file_parts(path)[1], relations.get(owner_key(path)))
        for path, block, _offset in suspicious[:MAX_REPORTED]
    )
    return PageScan(bad, scanned, total)


def still_bad(admin: Any, pages: tuple[BadPage, ...]) -> tuple[BadPage, ...]:
    """Return which of these pages are still bad on disk; one whose file is gone or shorter is not."""
    lasting = []
    for page in pages:
        offset = (page.block - file_parts(page.path)[2] * SEGMENT_PAGES) * PAGE_BYTES
        if _bad_pages(admin, page.path, offset, PAGE_BYTES, page.block):
            lasting.append(page)
    return tuple(lasting)


def _bad_pages(admin: Any, path: str, offset: int, size: int, first: int) -> list[tuple[int]]:
    parameters = {"path": path, "offset": offset, "size": size, "first": first}
    return list(admin.execute(_BAD_PAGES, parameters).fetchall())


def relations_of(inside: Any) -> dict[tuple[bool, int], Relation]:
    """Return the database's relations, known by what `owner_key` makes of their files."""
    return {
        (bool(shared), int(node)): Relation(
            oid=int(oid),
            name=f"{schema}.{name}",
            kind=str(kind) if str(kind) != "I" else "i",
            catalog=bool(catalog),
            table_of_index=table,
        )
        for shared, oid, node, schema, name, kind, catalog, table in inside.execute(_RELATIONS).fetchall()
    }
