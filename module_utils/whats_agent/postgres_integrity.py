# SPDX-License-Identifier: GPL-3.0-or-later
"""Check a database's content: pages, structure, sequences, foreign keys, and what the agent's tables promise.

Nothing here writes, so all of it runs on a standby before anybody relies on it.
"""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from . import postgres_pages
from .errors import WhatsAgentError

if TYPE_CHECKING:
    from collections.abc import Callable

    from .docker_host import DockerHost, ExecResult


@dataclass(frozen=True)
class Check:
    """One check's verdict."""

    name: str
    ok: bool
    detail: str

    def as_dict(self) -> dict[str, Any]:
        """Return JSON-able data."""
        return asdict(self)


@dataclass(frozen=True)
class Index:
    """An index, where it is to be found."""

    database: str
    schema: str
    name: str


# What pg_amcheck names a complaint by; what it complains of follows, indented. Of a name with dots in it nothing is concluded.
_OF_AN_INDEX = re.compile(r'btree index "(?P<database>[^."]+)\.(?P<schema>[^."]+)\.(?P<name>[^."]+)":')

_SEQUENCES = """
select s.oid::regclass::text as sequence, t.oid::regclass::text as table, quote_ident(a.attname) as column
from pg_class s
join pg_depend d on d.objid = s.oid and d.classid = 'pg_class'::regclass and d.refclassid = 'pg_class'::regclass
                and d.deptype in ('a', 'i')
join pg_class t on t.oid = d.refobjid
join pg_attribute a on a.attrelid = t.oid and a.attnum = d.refobjsubid
where s.relkind = 'S'
"""

_FOREIGN_KEYS = """
select c.conname, c.conrelid::regclass::text as table, c.confrelid::regclass::text as target,
  array(select quote_ident(attname) from unnest(c.conkey) with ordinality k(num, i)
        join pg_attribute a on a.attrelid = c.conrelid and a.attnum = k.num order by i) as columns,
  array(select quote_ident(attname) from unnest(c.confkey) with ordinality k(num, i)
        join pg_attribute a on a.attrelid = c.confrelid and a.attnum = k.num order by i) as targets
from pg_constraint c where c.contype = 'f'
"""

_TABLES = "select c.oid::regclass::text from pg_class c where relkind = 'r' and relnamespace = 'public'::regnamespace"
# Somebody else's table that the asking role may not read says nothing of the agent; one of its own must be readable.
_COUNTED = f"{_TABLES} and (pg_get_userbyid(c.relowner) = current_user or has_table_privilege(c.oid, 'select'))"

# What the agent's tables promise to each other; each query counts the rows that break the promise. A query runs only
# where all its tables exist: a restore may reach back before a migration.
INVARIANTS: tuple[tuple[str, tuple[str, ...], str], ...] = (
    ("one projection position", ("projection",), "select abs(count(*) - 1) from projection"),
    (
        "no message stored twice",
        ("messages",),
        "select count(*) from (select 1 from messages group by phone_number_id, wamid having count(*) > 1) d",
    ),
)


def check_pages(admin: Any, inside: Any, database: str) -> Check:
    """Compare the checksum of every page on disk."""
    row = admin.execute("select oid::bigint from pg_database where datname = %s", (database,)).fetchone()
    if row is None:
        return Check("pages", False, f"the database {database} does not exist")
    scan = postgres_pages.scan(admin, postgres_pages.relations_of(inside), int(row[0]), budget_s=6 * 3600)
    return judge_pages(scan)


def judge_pages(scan: postgres_pages.PageScan) -> Check:
    """Judge the pages of a database whose catalog could be read: a file that it does not know holds nothing of it."""
    if scan.damage:
        return Check("pages", False, "; ".join(page.describe() for page in scan.damage[:5]))
    fits = f"{scan.scanned} bytes read, every checksum fits"
    ownerless = "; ".join(page.describe() for page in scan.bad[:3])
    return Check("pages", True, f"{fits} but of what is nobody's: {ownerless}" if ownerless else fits)


def check_sequences(inside: Any) -> Check:
    """A sequence behind its column would hand out a key that is taken."""
    behind = []
    rows = inside.execute(_SEQUENCES).fetchall()
    for sequence, table, column in rows:
        # Names come quoted from the catalog itself.
        query = f"select coalesce(max({column}), 0)::bigint, (select last_value from {sequence}) from {table}"  # noqa: S608
        highest, last = inside.execute(query).fetchone()
        if highest > last:
            behind.append(f"{sequence} at {last}, {table} at {highest}")
    return Check("sequences", not behind, "; ".join(behind) or f"{len(rows)} ahead of their columns")


def check_foreign_keys(inside: Any) -> Check:
    """Every reference must have its target; PostgreSQL checks that on writes, not on what a restore brings."""
    broken = []
    rows = inside.execute(_FOREIGN_KEYS).fetchall()
    for name, table, target, columns, targets in rows:
        joined = " and ".join(f"t.{t} = s.{c}" for c, t in zip(columns, targets, strict=True))
        present = " and ".join(f"s.{c} is not null" for c in columns)
        query = (
            f"select count(*) from {table} s where {present} "  # noqa: S608
            f"and not exists (select 1 from {target} t where {joined})"
        )
        (count,) = inside.execute(query).fetchone()
        if count:
            broken.append(f"{name}: {count} rows of {table} without their {target}")
    return Check("foreign keys", not broken, "; ".join(broken) or f"{len(rows)} hold")


def check_invariants(inside: Any) -> list[Check]:
    """Check what the agent's tables promise to each other."""
    tables = {name for (name,) in inside.execute(_TABLES).fetchall()}
    checks = []
    for name, needs, query in INVARIANTS:
        if tables.issuperset(needs):
            (broken,) = inside.execute(query).fetchone()
            checks.append(Check(name, broken == 0, "holds" if broken == 0 else f"broken by {broken}"))
    return checks


def check_collations(admin: Any) -> Check:
    """A collation of another version sorts differently from what its indexes hold."""
    rows = admin.execute(
        "select datname from pg_database where datcollversion is not null "
        "and datcollversion is distinct from pg_database_collation_actual_version(oid)"
    ).fetchall()
    names = ", ".join(name for (name,) in rows)
    return Check("collations", not rows, f"version changed in {names}" if rows else "as they were")


def row_counts(inside: Any) -> dict[str, int]:
    """Return the rows of each table of the schema public that is the asking role's own or that it may read."""
    counts = {}
    for (table,) in inside.execute(_COUNTED).fetchall():
        (counts[table],) = inside.execute(f"select count(*) from {table}").fetchone()  # noqa: S608  quoted by the catalog
    return counts


def check_rows(inside: Any) -> Check:
    """Count the rows: nothing to compare with, but what a person looks at first."""
    counts = row_counts(inside)
    return Check("rows", True, ", ".join(f"{table} {count}" for table, count in sorted(counts.items())) or "no table")


def content_checks() -> list[tuple[str, Callable[[Any], list[Check]]]]:
    """Return the checks over the database itself, cheapest first, each with its name."""
    return [
        ("sequences", lambda inside: [check_sequences(inside)]),
        ("rows", lambda inside: [check_rows(inside)]),
        ("foreign keys", lambda inside: [check_foreign_keys(inside)]),
        ("invariants", check_invariants),
    ]


def run_checks(
    connect: Callable[[str], Any],
    database: str,
    *,
    query_limit_s: float = 0,
    only: frozenset[str] | None = None,
) -> tuple[list[Check], list[str]]:
    """Run the checks; a query that fails is a failed check. Returns the checks and the names of those put off.

    With `query_limit_s` a check whose query takes longer is put off: before a promotion every second is one without
    service, and what is put off is checked once the service is back. `only` names the ones to run, without the pages.
    """
    import psycopg

    later: list[str] = []

    def pages() -> list[Check]:
        """Read the pages, over connections of their own: it takes about as long as all the rest."""
        if only is not None:
            return []
        with connect("postgres") as admin, connect(database) as inside:
            return [check_pages(admin, inside, database), check_collations(admin)]

    def content() -> list[Check]:
        found: list[Check] = []
        with connect(database) as inside:
            inside.execute(f"set statement_timeout = {int(query_limit_s * 1000)}")
            for name, run in content_checks():
                if only is not None and name not in only:
                    continue
                try:
                    found += run(inside)
                except psycopg.errors.QueryCanceled:
                    later.append(name)
        return found

    checks: list[Check] = []
    with ThreadPoolExecutor(max_workers=2) as both:
        for part in (both.submit(pages), both.submit(content)):
            try:
                checks += part.result()
            except psycopg.Error as error:
                checks.append(Check("queries", False, " ".join(str(error).split())[:300]))
    return checks, later


def amcheck_argv(*, jobs: int = 2, tables: tuple[str, ...] = (), database: str = "") -> list[str]:
    """Return the command that checks heaps and indexes against each other: in a database, or in every one that has amcheck."""
    argv = ["pg_amcheck", "--no-strict-names", "--heapallindexed", f"--jobs={jobs}"]
    if tables:
        return [*argv, *(f"--table={table}" for table in tables)]
    return [*argv, f"--database={database}"] if database else [*argv, "--all"]


@dataclass(frozen=True)
class Wrong:
    """What pg_amcheck found wrong: a table or an index, with its schema; `catalog` tells whether it is the system's."""

    kind: str
    name: str
    detail: str

    @property
    def catalog(self) -> bool:
        """Whether it belongs to the system catalog."""
        return self.name.startswith("pg_catalog.")

    def describe(self) -> str:
        """Return it in words."""
        return f"{self.kind} {self.name}: {self.detail}"


_WRONG = re.compile(r'(?P<kind>btree index|heap table) "(?P<name>[^"]+)"(?:, (?P<where>block [^:]*))?:')


def read_amcheck(output: str, database: str) -> tuple[Wrong, ...]:
    """Read what pg_amcheck says of a database: a line that names a table or an index, and indented below it why. Pure.

    Of each the first complaint is kept.
    """
    found: dict[tuple[str, str], Wrong] = {}
    current: tuple[str, str, str] | None = None
    for line in output.splitlines():
        head = _WRONG.fullmatch(line.rstrip())
        if head is not None:
            name = head["name"].removeprefix(f"{database}.")
            current = ("index" if head["kind"] == "btree index" else "table", name, head["where"] or "")
        elif current is not None and line.startswith(" ") and line.strip():
            kind, name, where = current
            detail = ", ".join(part for part in (where, line.strip()) if part)
            found.setdefault((kind, name), Wrong(kind, name, detail[:300]))
    return tuple(found.values())


def find_wrong(docker: DockerHost, container: str, database: str, *, timeout_s: float = 6 * 3600) -> tuple[Wrong, ...]:
    """Run pg_amcheck over one database in the server's container; that it could not look is an error."""
    result = docker.execute(container, amcheck_argv(database=database), timeout=timeout_s)
    found = read_amcheck(result.stdout, database)
    if result.exit_code != 0 and not found:
        words = " ".join((result.stderr or result.stdout).split())[:300]
        raise WhatsAgentError(f"pg_amcheck ended with {result.exit_code}: {words}", rc=result.exit_code)
    return found


def check_structure(docker: DockerHost, container: str, *, timeout_s: float = 6 * 3600) -> Check:
    """Run pg_amcheck in the server's container."""
    return find_damage(docker, container, timeout_s=timeout_s)[0]


def find_damage(docker: DockerHost, container: str, *, timeout_s: float = 6 * 3600) -> tuple[Check, tuple[Index, ...]]:
    """Run pg_amcheck in the server's container; also return the indexes to rebuild where it complains of nothing else."""
    result = docker.execute(container, amcheck_argv(), timeout=timeout_s)
    return structure_verdict(result), damaged_indexes(result.stdout + result.stderr)


def damaged_indexes(said: str) -> tuple[Index, ...]:
    """Return the indexes that pg_amcheck complains of; none where it complains of anything that no rebuilt index mends."""
    found: dict[Index, None] = {}
    for line in said.splitlines():
        if not line.strip() or line.startswith((" ", "pg_amcheck: warning:")):
            continue
        match = _OF_AN_INDEX.match(line)
        if match is None:
            return ()
        found[Index(**match.groupdict())] = None
    return tuple(found)


def rebuild(connect: Callable[[str], Any], indexes: tuple[Index, ...]) -> Check:
    """Rebuild indexes from their tables; a table that its index does not fit any more (a key twice) is a failed check."""
    import psycopg
    from psycopg import sql

    for index in indexes:
        try:
            with connect(index.database) as inside:
                inside.execute(sql.SQL("reindex index {}").format(sql.Identifier(index.schema, index.name)))
        except psycopg.OperationalError:
            raise  # says nothing of the index
        except psycopg.Error as error:
            reason = " ".join(str(error).split())[:300]
            return Check("structure", False, f"the index {index.schema}.{index.name} cannot be rebuilt: {reason}")
    return Check("structure", True, f"rebuilt {', '.join(f'{index.schema}.{index.name}' for index in indexes)}")


def structure_verdict(result: ExecResult) -> Check:
    """Judge what pg_amcheck said."""
    if result.exit_code == 0:
        return Check("structure", True, "pg_amcheck found nothing")
    lines = [line for line in (result.stdout + result.stderr).splitlines() if line.strip()]
    if not lines:
        raise WhatsAgentError(f"pg_amcheck ended with {result.exit_code} and no word", rc=result.exit_code)
    return Check("structure", False, "; ".join(lines[:5])[:500])


def failures(checks: list[Check]) -> str:
    """Return the failed checks in a line, empty when all hold."""
    return "; ".join(f"{check.name}: {check.detail}" for check in checks if not check.ok)
