# SPDX-License-Identifier: GPL-3.0-or-later
"""Rebuild a table's maps, of free space and of visibility, whose pages are damaged: they hold nothing that is nowhere else.

PostgreSQL takes a damaged page of a map for an empty one, and VACUUM fills it again from the table, beside reads and writes. A
page of the map of free space that belongs empty is never written, though, so it stays damaged on disk; nothing but the map's
file can go then, which takes a server that is stopped for as long as that needs.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import env_file
from .errors import WhatsAgentError
from .postgres_host import DATA_DIR
from .postgres_pages import file_parts
from .postgres_verify import wait_serving

if TYPE_CHECKING:
    from .postgres_backrest import Backrest
    from .postgres_pages import BadPage

STOP_GRACE_S = 60
START_DEADLINE_S = 120.0
LOCK_TIMEOUT = "10s"
# Every page is looked at, whatever the maps say; indexes are left alone, and the table is not shortened, which would lock it.
VACUUM = "vacuum (disable_page_skipping, index_cleanup off, truncate off) {}"


def rebuild(inside: Any, pages: tuple[BadPage, ...], *, write: bool) -> list[str]:
    """Rebuild the maps that these damaged pages are of; return what was done, or would be."""
    done = []
    owners = {page.relation: {p.fork for p in pages if p.relation == page.relation} for page in pages if page.relation}
    for owner, forks in sorted(owners.items(), key=lambda found: found[0].name):
        if owner.kind == "i":
            done.append(f"rebuilt the index {owner.name}, with its map of free space")
            if write:
                inside.execute(statement("reindex index {}", owner.name))
            continue
        told = " and ".join(word for fork, word in (("fsm", "free space"), ("vm", "visibility")) if fork in forks)
        done.append(f"rebuilt the map of {told} of {owner.name}")
        if write:
            if "vm" in forks:
                _empty_visibility_map(inside, owner.oid)
            inside.execute(statement(VACUUM, owner.name))
    return done


def _empty_visibility_map(inside: Any, oid: int) -> None:
    """Cut the map to nothing, by PostgreSQL's own function for that; the extension stays only where it was."""
    with inside.transaction():
        # Whoever reads the table for long is not to be what all others wait for behind this.
        inside.execute(f"set local lock_timeout = '{LOCK_TIMEOUT}'")
        there = inside.execute("select from pg_extension where extname = 'pg_visibility'").fetchone() is not None
        if not there:
            inside.execute("create extension pg_visibility schema pg_catalog")
        (schema,) = inside.execute(
            "select nspname::text from pg_extension join pg_namespace n on n.oid = extnamespace "
            "where extname = 'pg_visibility'"
        ).fetchone()
        function = statement("select {}(%s::oid::regclass)", f"{schema}.pg_truncate_visibility_map")
        inside.execute(function, (oid,))
        if not there:
            inside.execute("drop extension pg_visibility")


def statement(template: str, qualified: str) -> Any:
    """Compose a statement over a qualified name."""
    from psycopg import sql

    return sql.SQL(template).format(sql.Identifier(*qualified.split(".", 1)))


def files_of(pages: tuple[BadPage, ...], data: Path) -> list[Path]:
    """Return the files, segments and all, of the maps that these pages are of. Nothing but a map's file is ever among them."""
    found: set[Path] = set()
    for page in pages:
        node, fork, _segment = file_parts(page.path)
        if fork not in ("fsm", "vm"):
            raise WhatsAgentError(f"{page.path} is no map's file", pt=f"{page.path} não é arquivo de um mapa")
        folder = data / page.path.rpartition("/")[0]
        first = folder / f"{node}_{fork}"
        found.update([first] if first.exists() else [], folder.glob(f"{node}_{fork}.*"))
    return sorted(found)


def cut(backrest: Backrest, pages: tuple[BadPage, ...]) -> list[str]:
    """Remove the maps' files while the server is stopped; it makes them anew."""
    place, docker = backrest.place, backrest.docker
    container = docker.require_running(place.project, place.service)
    volume = docker.volume(container.mounts[DATA_DIR])
    if volume is None:
        raise WhatsAgentError("the database's volume is gone", pt="o volume do banco não existe mais")
    files = files_of(pages, Path(volume.mountpoint))
    docker.stop(container.id, grace=STOP_GRACE_S)
    try:
        for path in files:
            path.unlink(missing_ok=True)
    finally:
        docker.start(container.id)
    wait_serving(place, docker, env_file.read_env(place.env_path), START_DEADLINE_S)
    return [f"removed {path.name}, a map that was damaged and empty, in a stopped server" for path in files]
