# SPDX-License-Identifier: GPL-3.0-or-later
"""Remedies that a running server needs, each by its name: how the server is reached, and its indexes.

Each looks first, does what is needed, and says what it did; asked again, it does nothing. The sessions' remedies are in
`postgres_mend_sessions`, those of disk and archive in `postgres_mend_storage`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import env_file, postgres_maps, postgres_pages
from .errors import WhatsAgentError
from .postgres_foreign import mend_outdated
from .postgres_host import DATA_DIR, ENV_NAMES, PORT, application_login, database
from .postgres_mend_sessions import mend_blockers, mend_connections, mend_processes, mend_receiver
from .postgres_mend_storage import mend_archiving, mend_slots, mend_space
from .postgres_server import INVALID_INDEXES, holds_the_agents_tables, owner_of_the_agents_tables

if TYPE_CHECKING:
    from collections.abc import Callable

    from .postgres_backrest import Backrest
    from .postgres_mend_sessions import Order

# Replaced when what they reach the database by has changed: what holds connections, and what tells of the database's health.
WRITERS = ("worker",)


def mend_indexes(backrest: Backrest, order: Order) -> list[str]:
    """Rebuild the indexes that are damaged on disk, invalid or named by the order, and the maps of tables that are damaged."""
    place = backrest.place
    name = env_file.read_env(place.env_path)["DB_NAME"]
    done = []
    # A damaged index of the catalog must not be asked for what it would have to be rebuilt from.
    whole = "-c ignore_system_indexes=on"
    with database(place, "postgres") as admin, database(place, name, options=whole) as inside:
        (oid,) = admin.execute("select oid::bigint from pg_database where datname = %s", (name,)).fetchone()
        bad = postgres_pages.scan(admin, postgres_pages.relations_of(inside), int(oid), budget_s=3600).damage
        beyond = [page.describe() for page in bad if page.kind not in ("index", "map", "catalog_index")]
        if beyond:
            raise WhatsAgentError(
                f"more than indexes is damaged: {'; '.join(beyond[:3])}",
                pt=f"há mais do que índices danificado: {'; '.join(beyond[:3])}",
            )
        indexes = {p.relation.name for p in bad if p.relation and p.kind in ("index", "catalog_index")}
        indexes.update(row[0] for row in inside.execute(INVALID_INDEXES).fetchall())
        indexes.update(order.indexes)
        for index in sorted(indexes):
            done.append(f"rebuilt the index {index}")
            if order.write:
                inside.execute(postgres_maps.statement("reindex index {}", index))
        maps = tuple(page for page in bad if page.kind == "map")
        done += postgres_maps.rebuild(inside, maps, write=order.write)
        if order.write and done:
            inside.execute("checkpoint")
        lasting = postgres_pages.still_bad(admin, maps) if order.write and maps else ()
    if lasting:
        done += postgres_maps.cut(backrest, lasting)
    return done


def mend_credentials(backrest: Backrest, order: Order) -> list[str]:
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
        if order.write:
            encrypted = admin.pgconn.encrypt_password(
                env["DB_PASSWORD"].encode(), env["DB_USER"].encode(), b"scram-sha-256"
            ).decode()
            verb = "alter" if exists else "create"
            statement = verb + " role {} login password {} valid until 'infinity'"
            admin.execute(sql.SQL(statement).format(role, sql.Literal(encrypted)))
            admin.execute(
                sql.SQL("grant connect, temporary on database {} to {}").format(sql.Identifier(env["DB_NAME"]), role)
            )
    if order.write:
        failure = application_login(env, address)
        if failure is not None:
            raise WhatsAgentError(
                f"the agent's login still does not work: {failure}",
                pt=f"o login do agente ainda não funciona: {failure}",
            )
        # A worker that was started with other credentials is replaced, one with these stays.
        backrest.compose.start(*WRITERS)
    return done


def mend_url(backrest: Backrest, order: Order) -> list[str]:
    """Have `.env` lead to the stack's own database: its host, its port, the database with the agent's tables, their owner."""
    place = backrest.place
    env = env_file.read_env(place.env_path)
    name = _agent_database(backrest, env["DB_NAME"])
    with database(place, name) as inside:
        owner = owner_of_the_agents_tables(inside) or env["DB_USER"]
    wanted = {"DB_HOST": place.service, "DB_PORT": str(PORT), "DB_NAME": name, "DB_USER": owner}
    changes = {name: value for name, value in wanted.items() if env.get(name, value) != value}
    container = backrest.docker.require_running(place.project, place.service)
    failure = application_login({**env, **changes}, next(iter(container.addresses.values()), ""))
    if failure is not None:
        raise WhatsAgentError(
            f"the agent cannot log in with {', '.join(f'{n}={v}' for n, v in changes.items())}: {failure}",
            pt=f"o agente não consegue entrar com {', '.join(f'{n}={v}' for n, v in changes.items())}: {failure}",
        )
    if order.write and changes:
        env_file.set_env(place.env_path, changes)
        backrest.compose.start(*WRITERS)
    return [f"set {name}={value} in .env" for name, value in changes.items()]


def _agent_database(backrest: Backrest, named: str) -> str:
    """Return the database that holds the agent's tables; the one that `.env` names where it exists."""
    with database(backrest.place, "postgres") as admin:
        rows = admin.execute("select datname::text from pg_database where not datistemplate").fetchall()
    names = [str(name) for (name,) in rows]
    if named in names:
        return named
    found = []
    for name in names:
        with database(backrest.place, name) as inside:
            if holds_the_agents_tables(inside):
                found.append(name)
    if len(found) != 1:
        raise WhatsAgentError(
            f"{named} does not exist, and the agent's tables are in {', '.join(found) or 'no database'}",
            pt=f"{named} não existe, e as tabelas do agente estão em {', '.join(found) or 'nenhum banco'}",
        )
    return found[0]


def mend_volume_name(backrest: Backrest, order: Order) -> list[str]:
    """Have `.env` name the volume that the container uses, where the one it names does not exist."""
    place = backrest.place
    env = env_file.read_env(place.env_path)
    container = backrest.docker.container(place.project, place.service)
    used = container.mounts.get(DATA_DIR) if container is not None else None
    if used is None or backrest.docker.volume(used) is None:
        raise WhatsAgentError(
            "no container uses a data volume that exists", pt="nenhum contêiner usa um volume de dados que exista"
        )
    if backrest.docker.volume(env["DB_VOLUME"]) is not None:
        return []
    if order.write:
        env_file.set_env(place.env_path, {"DB_VOLUME": used})
        backrest.forget_service()
        backrest.compose.start(place.service)
    return [f"set DB_VOLUME={used} in .env"]


def mend_standby(backrest: Backrest, order: Order) -> list[str]:
    """Promote a standby that follows nobody; one that follows another server is that one's copy, and stays."""
    with database(backrest.place, "postgres") as admin:
        standby, follows = admin.execute(
            "select pg_is_in_recovery(), current_setting('primary_conninfo') <> '' "
            "or exists (select from pg_stat_wal_receiver)"
        ).fetchone()
        if not standby:
            return []
        if follows:
            raise WhatsAgentError(
                "this database follows another server: promote it by hand once that one is down for good",
                pt="este banco segue outro servidor: promova-o à mão quando aquele estiver fora do ar de vez",
            )
        if order.write:
            (promoted,) = admin.execute("select pg_promote(true, 60)").fetchone()
            if not promoted:
                raise WhatsAgentError(
                    "the standby was told to take writes, and does not within 60 s",
                    pt="o standby recebeu ordem de aceitar escritas e não o fez em 60 s",
                )
    return ["promoted the standby"]


def mend_collation(backrest: Backrest, order: Order) -> list[str]:
    """Rebuild the indexes of databases whose collation version has changed, then accept the version."""
    from psycopg import sql

    done = []
    with database(backrest.place, "postgres") as admin:
        databases = admin.execute(
            "select datname::text, datallowconn from pg_database where datcollversion is not null "
            "and datcollversion is distinct from pg_database_collation_actual_version(oid)"
        ).fetchall()
        for name, connectable in databases:
            identifier = sql.Identifier(name)
            # template0 lets nobody in: it holds no index of anybody's, and only its version is to be accepted.
            done.append(
                f"{'rebuilt the indexes of' if connectable else 'looked at'} {name}, accepted its collation version"
            )
            if order.write and connectable:
                with database(backrest.place, name) as inside:
                    inside.execute(sql.SQL("reindex database {}").format(identifier))
            if order.write:
                admin.execute(sql.SQL("alter database {} refresh collation version").format(identifier))
    return done


REMEDIES: dict[str, Callable[..., list[str]]] = {
    "indexes": mend_indexes,
    "credentials": mend_credentials,
    "url": mend_url,
    "volume_name": mend_volume_name,
    "outdated": mend_outdated,
    "standby": mend_standby,
    "processes": mend_processes,
    "blockers": mend_blockers,
    "connections": mend_connections,
    "archiving": mend_archiving,
    "slots": mend_slots,
    "receiver": mend_receiver,
    "collation": mend_collation,
    "space": mend_space,
}
