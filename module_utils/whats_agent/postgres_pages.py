# SPDX-License-Identifier: GPL-3.0-or-later
"""Check the pages of a database where they lie, on disk, while the server runs, within a time budget.

A cached page hides what happened to its copy on disk, and `pg_checksums` needs a stopped server. The extension
`pageinspect` computes the same checksum in C over what `pg_read_binary_file` reads: about 0.9 GB per second. A page
that is being written at that moment may look torn, so what looks bad is read again before it is believed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from .clock import SYSTEM_CLOCK, Clock
from .errors import WhatsAgentError

PAGE_BYTES = 8192
SEGMENT_PAGES = 131072  # a relation's file is cut at 1 GB
CHUNK_BYTES = 1 << 20
RECHECKS = 3
RECHECK_PAUSE_S = 0.15
MAX_REPORTED = 50

_FILE = re.compile(r"(?P<node>\d+)(?:_(?P<fork>fsm|vm|init))?(?:\.(?P<segment>\d+))?")

# Page 8–9 hold the stored checksum; an all-zero page is new and has none.
_BAD_PAGES = """
select page.block
from (
  select %(first)s + i as block, substring(chunk.content from i * 8192 + 1 for 8192) as content
  from (select pg_read_binary_file(%(path)s, %(offset)s, %(size)s, true) as content offset 0) chunk,
       generate_series(0, length(chunk.content) / 8192 - 1) i
  offset 0
) page
where (page_checksum(page.content, page.block::bigint)::int & 65535)
      <> get_byte(page.content, 8) + 256 * get_byte(page.content, 9)
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


def scan_order(files: list[tuple[str, int]], rank: dict[tuple[bool, int], int]) -> list[tuple[str, int]]:
    """Order files for a scan that may be cut short: by the rank of their relation (lower first), then by size."""
    last = max(rank.values(), default=0) + 1
    return sorted(files, key=lambda f: (rank.get(owner_key(f[0]), last), f[1]))


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
    server's log, read first.
    """
    rank = {key: 2 if relation.catalog else 1 for key, relation in relations.items()}
    rank.update({owner_key(path): 0 for path in suspects})
    found = admin.execute(_FILES, {"folder": f"base/{database_oid}"}).fetchall()
    files = [(str(path), int(size)) for path, size in found]
    total = sum(size for _path, size in files)
    deadline = clock.boottime() + budget_s
    scanned = 0
    suspicious: list[tuple[str, int, int]] = []  # (path, block, offset in the file)
    for path, size in scan_order(files, rank):
        segment = file_parts(path)[2]
        for offset in range(0, size, CHUNK_BYTES):
            if clock.boottime() > deadline:
                break
            first = segment * SEGMENT_PAGES + offset // PAGE_BYTES
            for (block,) in _bad_pages(admin, path, offset, CHUNK_BYTES, first):
                suspicious.append((path, int(block), (int(block) - segment * SEGMENT_PAGES) * PAGE_BYTES))
            scanned += min(CHUNK_BYTES, size - offset)
    for _attempt in range(RECHECKS if suspicious else 0):
        clock.sleep(RECHECK_PAUSE_S)
        suspicious = [s for s in suspicious if _bad_pages(admin, s[0], s[2], PAGE_BYTES, s[1])]
    bad = tuple(
        BadPage(path, block, file_parts(path)[1], relations.get(owner_key(path)))
        for path, block, _offset in suspicious[:MAX_REPORTED]
    )
    return PageScan(bad, scanned, total)


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
