# SPDX-License-Identifier: GPL-3.0-or-later
"""Remedies that a running server needs: an index rebuilt, a role's password, sessions ended, archiving, slots, space.

Each looks first, does what is needed, and says what it did; asked again, it does nothing.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import env_file, postgres_pages, postgres_proof, postgres_receiver
from .clock import SYSTEM_CLOCK
from .errors import WhatsAgentError
from .postgres_backup import DEFAULT_KEEP_FULL, Outcome, expire
from .postgres_host import ENV_NAMES, GID, UID, application_login, database
from .postgres_observe import observe

if TYPE_CHECKING:
    from collections.abc import Callable

    from .postgres_backrest import Backrest

RECEIVER_DEADLINE_S = 20.0
IDLE_S = 30  # as long as this a session must have been idle before it may be ended
KEEP_FREE = 0.2  # share of the connections that are to be free afterwards
RESTORED_WRITERS = ("worker",)


def mend_indexes(backrest: Backrest, *, write: bool) -> list[str]:
    """Rebuild the indexes (and the maps of free space) whose pages are damaged, and those that are invalid."""
    place = backrest.place
    name = env_file.read_env(place.env_path)["DB_NAME"]
    done = []
    with database(place, "postgres") as admin, database(place, name) as inside:
        (oid,) = admin.execute("select oid::bigint from pg_database where datname = %s", (name,)).fetchone()
        bad = postgres_pages.scan(admin, postgres_pages.relations_of(inside), int(oid), budget_s=3600).bad
        beyond = [page.describe() for page in bad if page.kind not in ("index", "map", "catalog_index")]
        if beyond:
            raise WhatsAgentError(f"more than indexes is damaged: {'; '.join(beyond[:3])}")
        indexes = {p.relation.name for p in bad if p.relation and p.kind in ("index", "catalog_index")}
        rows = inside.execute(
            "select n.nspname || '.' || c.relname from pg_index i join pg_class c on c.oid = i.indexrelid "
            "join pg_namespace n on n.oid = c.relnamespace where not i.indisvalid and i.indislive and c.relkind = 'i'"
        ).fetchall()
        indexes.update(row[0] for row in rows)
        maps = {p.relation.name for p in bad if p.relation and p.kind == "map"}
        for index in sorted(indexes):
            done.append(f"rebuilt the index {index}")
            if write:
                inside.execute(_statement("reindex index {}", index))
        for table in sorted(maps):
            done.append(f"rewrote the table {table}, with its maps")
            if write:
                inside.execute(_statement("vacuum full {}", table))
        if write and done:
            inside.execute("checkpoint")
    return done


def _statement(template: str, qualified: str) -> Any:
    """Compose a statement over a qualified name."""
    from psycopg import sql

    return sql.SQL(template).format(sql.Identifier(*qualified.split(".", 1)))


def mend_credentials(backrest: Backrest, *, write: bool) -> list[str]:
    """Give the agent's role the password of `.env`; the server sees only the SCRAM verifier, nor does its log."""
    from psycopg import sql

    place = backrest.place
    env = env_file.read_env(place.env_path)
    env_file.require(env, ENV_NAMES, str(place.env_path))
    container = backrest.docker.require_running(place.project, place.service)
    address = next(iter(container.addresses.values()), "")
    if application_login(env, address) is None:
        return []
    role = sql.Identifier(env["DB_USER"])
    done = [f"gave the role {env['DB_USER']} the password of .env"]
    with database(place, "postgres") as admin:
        exists = admin.execute("select from pg_roles where rolname = %s", (env["DB_USER"],)).fetchone() is not None
        if write:
            encrypted = admin.pgconn.encrypt_password(
                env["DB_PASSWORD"].encode(), env["DB_USER"].encode(), b"scram-sha-256"
            ).decode()
            verb = "alter role {} login password {}" if exists else "create role {} login password {}"
            admin.execute(sql.SQL(verb).format(role, sql.Literal(encrypted)))
            admin.execute(
                sql.SQL("grant connect, temporary on database {} to {}").format(sql.Identifier(env["DB_NAME"]), role)
            )
    if write:
        failure = application_login(env, address)
        if failure is not None:
            raise WhatsAgentError(f"the agent's login still does not work: {failure}")
        # A worker that was started with other credentials is replaced, one with these stays.
        backrest.compose.start(*RESTORED_WRITERS)
    return done


def mend_url(backrest: Backrest, *, write: bool) -> list[str]:
    """Point DB_HOST of `.env` at the stack's own database."""
    place = backrest.place
    wanted = {"DB_HOST": place.service, "DB_PORT": "5432"}
    env = env_file.read_env(place.env_path)
    changes = {name: value for name, value in wanted.items() if env.get(name) != value}
    if write and changes:
        env_file.set_env(place.env_path, changes)
        backrest.compose.start(*RESTORED_WRITERS)
    return [f"set {name}={value} in .env" for name, value in changes.items()]


def mend_blockers(backrest: Backrest, *, write: bool) -> list[str]:
    """End the sessions that hold a transaction open, do nothing, and block others."""
    return _terminate(
        backrest,
        """
        select distinct a.pid, coalesce(nullif(a.application_name, ''), a.usename, '') as who
        from (select unnest(pg_blocking_pids(pid)) as blocker from pg_stat_activity where wait_event_type = 'Lock') b
        join pg_stat_activity a on a.pid = b.blocker
        where a.state like 'idle in transaction%%' and a.state_change < clock_timestamp() - make_interval(secs => %(idle)s)
        """,
        {"idle": IDLE_S},
        write=write,
    )


def mend_connections(backrest: Backrest, *, write: bool) -> list[str]:
    """End idle sessions, the longest idle first, until a fifth of the connections is free."""
    return _terminate(
        backrest,
        """
        select pid, coalesce(nullif(application_name, ''), usename, '') as who
        from pg_stat_activity
        where backend_type = 'client backend' and pid <> pg_backend_pid() and state like 'idle%%'
        order by state_change
        limit greatest(0, (select count(*) from pg_stat_activity where backend_type = 'client backend')
                          - (current_setting('max_connections')::int * (1 - %(free)s::float8))::int)
        """,
        {"free": KEEP_FREE},
        write=write,
    )


def _terminate(backrest: Backrest, query: str, parameters: dict[str, Any], *, write: bool) -> list[str]:
    with database(backrest.place, "postgres") as admin:
        found = admin.execute(query, parameters).fetchall()
        if write:
            for pid, _who in found:
                admin.execute("select pg_terminate_backend(%s, 5000)", (pid,))
    return [f"ended the idle session {pid} of {who}" for pid, who in found]


def mend_archiving(backrest: Backrest, *, write: bool) -> list[str]:
    """Make WAL reach the repository again: its owner and modes, its stanza; then prove it."""
    done = []
    repository = backrest.service.binds.get("/var/lib/pgbackrest")
    if repository is not None:
        wrong = [p for p in _walk(Path(repository[0])) if not _owned(p)]
        if wrong:
            done.append(f"gave {len(wrong)} files of {repository[0]} back to the server's user")
            if write:
                for path in wrong:
                    _own(path)
    info = backrest.info()
    if info.problem and info.status != 2:
        if "passphrase" in info.problem:
            raise WhatsAgentError(info.problem)
        done.append("prepared the repository")
        if write:
            backrest.stanza_create()
    if write:
        backrest.check(timeout_s=120)
        done.append("proved that WAL reaches the repository")
    return done


def _walk(root: Path) -> list[Path]:
    return [root, *(Path(folder) / name for folder, names, files in os.walk(root) for name in (*names, *files))]


def _owned(path: Path) -> bool:
    status = path.lstat()
    wanted = 0o700 if path.is_dir() else 0o600
    return status.st_uid == UID and status.st_mode & wanted == wanted


def _own(path: Path) -> None:
    os.chown(path, UID, GID, follow_symlinks=False)
    if not path.is_symlink():
        path.chmod(path.stat().st_mode | (0o700 if path.is_dir() else 0o600))


def mend_slots(backrest: Backrest, *, write: bool) -> list[str]:
    """Drop the inactive replication slots that hold back WAL; a receiver makes its own anew."""
    seen = observe(backrest.place, backrest.docker, page_budget_s=0)
    slots = [s["slot_name"] for s in (seen.server.slots if seen.server else ()) if not s["active"]]
    with database(backrest.place, "postgres") as admin:
        if write:
            for slot in slots:
                admin.execute("select pg_drop_replication_slot(%s)", (slot,))
            admin.execute("checkpoint")
    return [f"dropped the inactive slot {slot}" for slot in slots]


def mend_receiver(backrest: Backrest, *, write: bool) -> list[str]:
    """Bring the WAL receiver back, since commits wait for it; where it does not come, let commits go without it.

    Where they go without it already, have them wait again as soon as it is back; that it does not come is then an error.
    """
    done = ["started the WAL receiver"]
    if not write:
        return done
    failure = ""
    try:
        backrest.compose.start(postgres_receiver.SERVICE)
    except WhatsAgentError as error:
        failure = error.message
    with database(backrest.place, "postgres") as admin:
        (bypassed,) = admin.execute(
            "select exists (select from pg_file_settings where name = 'synchronous_standby_names' and setting = '' "
            "and sourcefile like '%/postgresql.auto.conf')"
        ).fetchone()
        back = not failure and _receiver_is_back(admin)
        if bypassed and not back:
            raise WhatsAgentError(f"the WAL receiver does not come back: {failure or 'it does not connect'}")
        if bypassed:
            admin.execute("alter system reset synchronous_standby_names")
            done.append("had commits wait for it again")
        elif not back:
            # No time-out frees a commit that waits: only the setting does.
            admin.execute("alter system set synchronous_standby_names = ''")
            done = ["let commits go on without the WAL receiver, which does not come back"]
        admin.execute("select pg_reload_conf()")
    return done


def _receiver_is_back(admin: Any) -> bool:
    """Wait until the receiver streams; tell whether it does."""
    deadline = SYSTEM_CLOCK.boottime() + RECEIVER_DEADLINE_S
    while SYSTEM_CLOCK.boottime() < deadline:
        (streaming,) = admin.execute(
            "select exists (select from pg_stat_replication where application_name = 'whats_agent_receiver' "
            "and state = 'streaming')"
        ).fetchone()
        if streaming:
            return True
        SYSTEM_CLOCK.sleep(0.5)
    return False


def mend_collation(backrest: Backrest, *, write: bool) -> list[str]:
    """Rebuild the indexes of databases whose collation version has changed, then accept the version."""
    from psycopg import sql

    done = []
    with database(backrest.place, "postgres") as admin:
        names = [
            row[0]
            for row in admin.execute(
                "select datname from pg_database where datallowconn and datcollversion is not null "
                "and datcollversion is distinct from pg_database_collation_actual_version(oid)"
            ).fetchall()
        ]
    for name in names:
        done.append(f"rebuilt the indexes of {name} and accepted its collation version")
        if write:
            with database(backrest.place, name) as inside:
                identifier = sql.Identifier(name)
                inside.execute(sql.SQL("reindex database {}").format(identifier))
                inside.execute(sql.SQL("alter database {} refresh collation version").format(identifier))
    return done


def mend_space(backrest: Backrest, *, write: bool, keep_full: int = DEFAULT_KEEP_FULL) -> list[str]:
    """Free what the database itself holds needlessly: scratch volumes, expired backups, WAL past its use."""
    import psycopg

    done = []
    scratch = backrest.docker.client.api.volumes(filters={"label": [postgres_proof.SCRATCH_LABEL]})["Volumes"] or []
    if scratch:
        done.append(f"removed {len(scratch)} scratch volumes of proofs")
        if write:
            postgres_proof.sweep(backrest.docker)
    if write and backrest.docker.container(backrest.place.project, backrest.place.service) is not None:
        outcome = Outcome()
        expire(backrest, keep_full, outcome)
        done += outcome.steps
        try:
            with database(backrest.place, "postgres") as admin:
                admin.execute("checkpoint")
        except (WhatsAgentError, psycopg.Error) as error:
            done.append(f"no checkpoint: {error}")
    return done


REMEDIES: dict[str, Callable[..., list[str]]] = {
    "indexes": mend_indexes,
    "credentials": mend_credentials,
    "url": mend_url,
    "blockers": mend_blockers,
    "connections": mend_connections,
    "archiving": mend_archiving,
    "slots": mend_slots,
    "receiver": mend_receiver,
    "collation": mend_collation,
    "space": mend_space,
}
