# SPDX-License-Identifier: GPL-3.0-or-later
"""What a running PostgreSQL server says of itself, over a superuser's connection. It only asks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class ServerFacts:
    """What the server says of itself. Seconds for ages, bytes for sizes."""

    in_recovery: bool
    uptime: float
    checksums: bool
    checksum_failures: int
    max_connections: int
    reserved_connections: int
    connections: int
    idle_in_transaction: int
    databases: tuple[str, ...]
    database_size: int
    archive_mode: str
    archive_ready: int
    archive_last_ok_age: float | None
    archive_last_failed_age: float | None
    archive_failing: bool
    blockers: tuple[dict[str, Any], ...] = ()
    slots: tuple[dict[str, Any], ...] = ()
    collation_mismatch: tuple[str, ...] = ()
    invalid_indexes: tuple[str, ...] = ()
    waiting_commits: int = 0
    receiver_bypassed: bool = False
    receiver_streams: bool = False
    follows_another: bool = False
    checksums_failed_lately: bool = False


_SERVER = """
select pg_is_in_recovery(),
  extract(epoch from now() - pg_postmaster_start_time())::float8,
  current_setting('data_checksums') = 'on',
  coalesce((select sum(checksum_failures) from pg_stat_database), 0)::bigint,
  current_setting('max_connections')::int,
  current_setting('superuser_reserved_connections')::int + current_setting('reserved_connections')::int,
  (select count(*) from pg_stat_activity where backend_type = 'client backend')::int,
  (select count(*) from pg_stat_activity where state like 'idle in transaction%%')::int,
  (select array_agg(datname::text order by datname) from pg_database where not datistemplate),
  coalesce((select pg_database_size(oid) from pg_database where datname = %(name)s), 0)::bigint,
  current_setting('archive_mode'),
  (select count(*) from pg_ls_archive_statusdir() where name like '%%.ready')::int,
  (select extract(epoch from now() - last_archived_time)::float8 from pg_stat_archiver),
  (select extract(epoch from now() - last_failed_time)::float8 from pg_stat_archiver),
  (select count(*) from pg_stat_activity
     where wait_event = 'SyncRep' and clock_timestamp() - state_change > interval '5 s')::int,
  exists (select from pg_file_settings where name = 'synchronous_standby_names' and setting = ''
     and sourcefile like '%%/postgresql.auto.conf'),
  (select last_failed_time is not null and (last_archived_time is null or last_failed_time > last_archived_time)
     from pg_stat_archiver),
  current_setting('primary_conninfo') <> '' or exists (select from pg_stat_wal_receiver),
  exists (select from pg_stat_database
     where checksum_last_failure > greatest(pg_postmaster_start_time(), now() - interval '1 day'))
"""

BLOCKERS = """
select a.pid, coalesce(a.usename, '') as user, coalesce(a.application_name, '') as application, a.state,
  extract(epoch from clock_timestamp() - a.state_change)::float8 as idle_s, count(*)::int as blocked,
  max(extract(epoch from clock_timestamp() - b.query_start))::float8 as waited_s
from (select pid, query_start, unnest(pg_blocking_pids(pid)) as blocker
        from pg_stat_activity where wait_event_type = 'Lock') b
join pg_stat_activity a on a.pid = b.blocker
group by 1, 2, 3, 4, 5 order by blocked desc limit 10
"""

SLOTS = """
select slot_name::text, active, coalesce(wal_status, '') as wal_status,
  coalesce(pg_wal_lsn_diff(case when pg_is_in_recovery() then pg_last_wal_replay_lsn() else pg_current_wal_lsn() end,
                           restart_lsn), 0)::bigint as held,
  extract(epoch from clock_timestamp() - inactive_since)::float8 as idle_s
from pg_replication_slots
"""

_COLLATIONS = """
select 'database ' || datname from pg_database
where datcollversion is not null and datcollversion is distinct from pg_database_collation_actual_version(oid)
"""

INVALID_INDEXES = """
select n.nspname || '.' || c.relname
from pg_index i join pg_class c on c.oid = i.indexrelid
join pg_namespace n on n.oid = c.relnamespace
where not i.indisvalid and i.indislive and c.relkind = 'i'
  and not exists (select from pg_stat_progress_create_index p where p.index_relid = i.indexrelid)
"""


def server_facts(admin: Any, database: str) -> ServerFacts:
    """Ask a running server, over a superuser's connection to database `postgres`."""
    row = admin.execute(_SERVER, {"name": database}).fetchone()
    blockers = rows(admin.execute(BLOCKERS))
    slots = rows(admin.execute(SLOTS))
    collations = tuple(name for (name,) in admin.execute(_COLLATIONS).fetchall())
    return ServerFacts(
        in_recovery=row[0],
        uptime=row[1],
        checksums=row[2],
        checksum_failures=int(row[3]),
        max_connections=row[4],
        reserved_connections=row[5],
        connections=row[6],
        idle_in_transaction=row[7],
        databases=tuple(row[8] or ()),
        database_size=int(row[9]),
        archive_mode=row[10],
        archive_ready=row[11],
        archive_last_ok_age=row[12],
        archive_last_failed_age=row[13],
        waiting_commits=row[14],
        receiver_bypassed=row[15],
        archive_failing=bool(row[16]),
        follows_another=row[17],
        checksums_failed_lately=row[18],
        blockers=tuple(blockers),
        slots=tuple(slots),
        collation_mismatch=collations,
    )


def invalid_indexes(inside: Any) -> tuple[str, ...]:
    """Return the indexes of one database that PostgreSQL does not use, and that nobody is building."""
    return tuple(name for (name,) in inside.execute(INVALID_INDEXES).fetchall())


def holds_the_agents_tables(inside: Any) -> bool:
    """Tell whether a database is the agent's, whatever it is called."""
    return bool(inside.execute("select to_regclass('public.projection') is not null").fetchone()[0])


def owner_of_the_agents_tables(inside: Any) -> str | None:
    """Return the role that the agent's tables belong to; None where there are none, or where that is a superuser."""
    row = inside.execute(
        "select rolname::text from pg_class join pg_roles on pg_roles.oid = relowner "
        "where pg_class.oid = to_regclass('public.projection') and not rolsuper"
    ).fetchone()
    return str(row[0]) if row else None


def rows(cursor: Any) -> list[dict[str, Any]]:
    names = [column.name for column in cursor.description]
    return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]
