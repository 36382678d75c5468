# SPDX-License-Identifier: GPL-3.0-or-later
"""Look at the stack's database from all sides and touch nothing. `postgres_causes` decides what it means."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import env_file, postgres_integrity, postgres_pages, postgres_receiver, postgres_repository
from .errors import WhatsAgentError
from .files import read_json
from .postgres_host import (
    DATA_DIR,
    ENV_NAMES,
    PORT,
    REPOSITORY_DIR,
    DatabasePlace,
    application_login,
    connect,
    free_bytes,
)
from .postgres_processes import processes_of, stopped, stopped_server
from .postgres_server import (
    ServerFacts,
    holds_the_agents_tables,
    invalid_indexes,
    owner_of_the_agents_tables,
    server_facts,
)
from .postgres_unsound import closed_unsound

if TYPE_CHECKING:
    from .docker_host import ContainerState, DockerHost

PAGE_BUDGET_S = 2.0
WHOLE_BUDGET_S = 3600.0  # for a look at all pages
LOG_LINES = 300
CRASH_UPTIME_S = 60  # a container that was restarted and is younger than this has not proven that it stays
_TIMESTAMP = re.compile(r"^(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d+) UTC ")

# What the server's log says when it matters. The first group, if any, is kept as detail.
_SIGN_PATTERNS = {
    "disk_full": r"No space left on device",
    "invalid_page": r"invalid page in block \d+ of relation \"?([^\s\"]+)",
    "checksum_failed": r"page verification failed",
    # Of another version only if PG_VERSION says so too, which the entry point looks at first: else it is the control file's noise.
    "control_damaged": (
        r"incorrect checksum in control file|could not (?:open|read) file \"global/pg_control\""
        r"|database files are incompatible with server"
    ),
    "checkpoint_lost": r"could not locate a valid checkpoint record|invalid checkpoint record",
    "file_missing": r"could not open file \"((?:base|global|pg_xact|pg_multixact)[^\"]*)\": No such file",
    "catalog_damaged": r"cache lookup failed|could not open relation with OID|relation mapping file",
    "wrong_major": r"database files are incompatible|data directory belongs to PostgreSQL",
    "empty": r"whats-postgres: the data directory is empty",
    "no_control": r"whats-postgres: the data directory has no global/pg_control",
    "bad_configuration": (
        r"configuration file \"[^\"]+\" contains errors|unrecognized configuration parameter"
        r"|invalid value for parameter|could not load .*pg_hba\.conf"
    ),
    "lock_file": r"lock file \"postmaster\.pid\" already exists",
    "archive_failed": r"archive command (?:failed|was terminated)",
    "recovering": r"database system was (?:interrupted|not properly shut down)|redo (?:starts|in progress)",
    "panic": r"PANIC:\s+(.*)",
}
LOG_SIGNS = {sign: re.compile(pattern) for sign, pattern in _SIGN_PATTERNS.items()}


@dataclass(frozen=True)
class VolumeFacts:
    """The data volume as it lies on the host. `version` is PG_VERSION's text."""

    name: str
    present: bool
    mountpoint: str = ""
    empty: bool = False
    version: str = ""
    control_file: bool = False
    standby: bool = False
    free: int = 0
    total: int = 0


@dataclass(frozen=True)
class Space:
    """A file system that the database depends on beside its volume's: `what` lies at `path`. Bytes."""

    what: str
    path: str
    free: int


@dataclass(frozen=True)
class LogSign:
    """A telling line of the container's log since its last start."""

    sign: str
    line: str
    detail: str = ""

    @property
    def said_at(self) -> datetime | None:
        """Return when it was said, None for a line without a time."""
        stamp = _TIMESTAMP.match(self.line)
        return datetime.fromisoformat(stamp[1] + "+00:00") if stamp else None


@dataclass(frozen=True)
class Observed:
    """Everything one look saw; None where a part could not be looked at, with the reason in `errors`.

    `restore` is the state of one that has not ended, `unsound` that of one whose volume is in use and was found not sound.
    `structure` says how the comparison of tables and indexes went, where it was asked for, and `wrong` what it found.
    """

    database: str
    engine_error: str | None = None
    env_error: str | None = None
    env_error_pt: str | None = None
    volume: VolumeFacts | None = None
    container: dict[str, Any] | None = None
    container_volume: str | None = None
    uptime: float | None = None
    signs: tuple[LogSign, ...] = ()
    connection_error: str | None = None
    server: ServerFacts | None = None
    login_error: str | None = None
    wrong_address: tuple[str, ...] = ()
    wrong_user: tuple[str, ...] = ()
    agent_databases: tuple[str, ...] = ()
    container_volume_there: bool = False
    stopped_processes: tuple[str, ...] = ()
    spaces: tuple[Space, ...] = ()
    repository_lacks: tuple[str, ...] = ()
    pages: dict[str, Any] | None = None
    bad_pages: tuple[dict[str, Any], ...] = ()
    structure: str = ""
    wrong: tuple[dict[str, Any], ...] = ()
    restore: dict[str, Any] | None = None
    unsound: dict[str, Any] | None = None
    receiver: dict[str, Any] | None = None
    errors: tuple[str, ...] = field(default=())

    def as_dict(self) -> dict[str, Any]:
        """Return JSON-able data."""
        return asdict(self)


def volume_facts(name: str, mountpoint: Path | None) -> VolumeFacts:
    """Look into a volume's directory on the host; None for a volume that is not there."""
    if mountpoint is None or not mountpoint.is_dir():
        return VolumeFacts(name, present=False)
    entries = {entry.name for entry in mountpoint.iterdir()} - {"lost+found"}
    version = mountpoint / "PG_VERSION"
    control = mountpoint / "global" / "pg_control"
    status = free_bytes(mountpoint)
    return VolumeFacts(
        name=name,
        present=True,
        mountpoint=str(mountpoint),
        empty=not entries or ".initialising" in entries,
        version=version.read_text(encoding="ascii", errors="replace").strip() if version.is_file() else "",
        control_file=control.is_file() and control.stat().st_size > 0,
        standby=(mountpoint / "standby.signal").exists() or (mountpoint / "recovery.signal").exists(),
        free=status,
        total=_total_bytes(mountpoint),
    )


def _total_bytes(path: Path) -> int:
    import os

    status = os.statvfs(path)
    return status.f_blocks * status.f_frsize


def parse_docker_time(text: str) -> datetime | None:
    """Read the engine's RFC 3339 time with nanoseconds; None for its zero time."""
    if not text or text.startswith("0001-"):
        return None
    match = re.fullmatch(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d+))?(Z|[+-]\d\d:\d\d)", text)
    if match is None:
        return None
    fraction = (match[2] or "0")[:6].ljust(6, "0")
    return datetime.fromisoformat(f"{match[1]}.{fraction}{'+00:00' if match[3] == 'Z' else match[3]}")


def read_signs(log: str, since: datetime | None) -> tuple[LogSign, ...]:
    """Pick the telling lines of a log since the container's last start, the newest of each sign."""
    found: dict[tuple[str, str], LogSign] = {}
    current = since is None
    for line in log.splitlines():
        stamp = _TIMESTAMP.match(line)
        if stamp is not None and since is not None:
            current = datetime.fromisoformat(stamp[1] + "+00:00") >= since
        elif line.startswith("whats-postgres: "):
            current = True  # the entry point says its word last, whenever that was
        if not current:
            continue
        for sign, pattern in LOG_SIGNS.items():
            match = pattern.search(line)
            if match is not None:
                detail = match[1] if pattern.groups and match[1] else ""
                found[(sign, detail)] = LogSign(sign, line.strip()[:300], detail)
    return tuple(found.values())


def unfinished_restore(place: DatabasePlace) -> dict[str, Any] | None:
    """Return the state of a restore that has begun and not ended, or None."""
    state = read_json(place.restore_path)
    if isinstance(state, dict) and not state.get("finished_at"):
        return state
    return None


def observe(
    place: DatabasePlace, docker: DockerHost, *, page_budget_s: float = PAGE_BUDGET_S, structure: bool = False
) -> Observed:
    """Look at everything, quickest first, as far as it can be looked at; at the structure only where that is asked for."""
    try:
        env = env_file.read_env(place.env_path)
        env_file.require(env, ENV_NAMES, str(place.env_path))
    except WhatsAgentError as error:
        return Observed(database="", env_error=error.message, env_error_pt=error.details.get("pt"))
    name = env["DB_NAME"]
    restore = unfinished_restore(place)
    try:
        volume = docker.volume(env["DB_VOLUME"])
        container = docker.container(place.project, place.service)
        mounted = container.mounts.get(DATA_DIR) if container else None
        facts = volume_facts(env["DB_VOLUME"], Path(volume.mountpoint) if volume else None)
        since = parse_docker_time(container.started_at) if container else None
        signs = _signs(docker, container, since)
    except WhatsAgentError as error:
        return Observed(database=name, engine_error=error.message, restore=restore)
    seen: dict[str, Any] = {
        "database": name,
        "volume": facts,
        "container": container.as_dict() if container else None,
        "container_volume": mounted,
        "container_volume_there": mounted is not None and docker.volume(mounted) is not None,
        "uptime": _age(since) if since else None,
        "signs": signs,
        "restore": restore,
        "unsound": closed_unsound(place, env["DB_VOLUME"]),
        "wrong_address": wrong_address(place, env),
        "spaces": spaces(place, container),
        "repository_lacks": repository_lacks(container),
    }
    if container is None or not container.running:
        return Observed(**seen)
    seen["receiver"] = receiver_facts(place, docker)
    root = docker.main_process(container.id)
    held = stopped_server(processes_of(root), root)
    if held is not None:
        # Its socket is there, and whoever calls waits until they give up.
        inside: dict[str, Any] = {"connection_error": f"not tried: the server's process {held.pid} is stopped"}
    else:
        inside = _inside(place, container, env, signs, page_budget_s)
    if inside.get("connection_error"):
        found = stopped(processes_of(root))
        inside["stopped_processes"] = tuple(process.describe() for process in found)
    elif structure and not inside.get("bad_pages"):
        inside |= _structure(docker, container.id, name)
    return Observed(**seen, **inside)


def _structure(docker: DockerHost, container: str, name: str) -> dict[str, Any]:
    """Compare tables and indexes, on pages that are sound as far as they were read."""
    try:
        found = postgres_integrity.find_wrong(docker, container, name)
    except WhatsAgentError as error:
        return {"structure": f"could not be checked: {error.message}"}
    wrong = tuple({**asdict(one), "catalog": one.catalog, "what": one.describe()} for one in found)
    return {"structure": f"pg_amcheck found {len(found) or 'nothing'} wrong", "wrong": wrong}


def page_budget(asked_s: float, server: ServerFacts) -> float:
    """Return for how long pages may be read: all of them once the server itself has met a bad one, whatever became of that."""
    return max(asked_s, WHOLE_BUDGET_S) if asked_s > 0 and server.checksums_failed_lately else asked_s


def wrong_address(place: DatabasePlace, env: dict[str, str]) -> tuple[str, ...]:
    """Return what of `.env` does not lead to the stack's own database, as `NAME=value`."""
    wanted = {"DB_HOST": place.service, "DB_PORT": str(PORT)}
    return tuple(f"{name}={env.get(name, '')}" for name, value in wanted.items() if env.get(name, value) != value)


def receiver_facts(place: DatabasePlace, docker: DockerHost) -> dict[str, Any] | None:
    """Return how the WAL receiver is meant to follow the server and what became of its container; None without one.

    `uptime` is in seconds since its last start, None where it has none.
    """
    try:
        mode = postgres_receiver.mode_of((place.stack_dir / "compose.yml").read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError):
        return None  # what is wrong with the file is for recover_config.yml
    if mode == "off":
        return None
    container = docker.container(place.project, postgres_receiver.SERVICE)
    started = parse_docker_time(container.started_at) if container else None
    return {
        "mode": mode,
        "status": container.status if container else "missing",
        "restarts": container.restart_count if container else 0,
        "uptime": _age(started) if started else None,
    }


def repository_lacks(container: ContainerState | None) -> tuple[str, ...]:
    """Return what the backup repository has lost without which nothing in it can be read."""
    repository = container.mounts.get(REPOSITORY_DIR) if container else None
    return postgres_repository.lacks(Path(repository)) if repository is not None else ()


def spaces(place: DatabasePlace, container: ContainerState | None) -> tuple[Space, ...]:
    """Return the free space under the backup repository and the agent's logs, as far as they are there."""
    repository = container.mounts.get(REPOSITORY_DIR) if container else None
    found = [("logs", place.stack_dir / "logs")]
    if repository is not None:
        found.append(("backup repository", Path(repository)))
    return tuple(Space(what, str(path), free_bytes(path)) for what, path in found if path.is_dir())


def _signs(docker: DockerHost, container: ContainerState | None, since: datetime | None) -> tuple[LogSign, ...]:
    """Read the container's log. Of one that dies again and again, also what it said before its last start."""
    if container is None or since is None:
        return ()
    crashing = container.restart_count > 0 and (container.status == "restarting" or _age(since) < CRASH_UPTIME_S)
    return read_signs(docker.logs(container.id, tail=LOG_LINES), None if crashing else since)


def _age(moment: datetime) -> float:
    return (datetime.now(moment.tzinfo) - moment).total_seconds()


def _inside(
    place: DatabasePlace,
    container: ContainerState,
    env: dict[str, str],
    signs: tuple[LogSign, ...],
    page_budget_s: float,
) -> dict[str, Any]:
    """Look inside a running server: connection, what it says of itself, the agent's login, pages on disk."""
    import psycopg

    try:
        admin = connect(place, "postgres", statement_timeout_s=10)
    except psycopg.Error as error:
        return {"connection_error": " ".join(str(error).split())[:400]}
    name = env["DB_NAME"]
    errors: list[str] = []
    seen: dict[str, Any] = {}
    with admin:
        try:
            seen["server"] = server = server_facts(admin, name)
            address = next(iter(container.addresses.values()), None)
            if address is None:
                seen["login_error"] = "the container is in no network"
            elif name in server.databases:
                seen["login_error"] = application_login(env, address)
                seen["wrong_user"] = _wrong_user(place, env)
            if name not in server.databases:
                seen["agent_databases"] = _agent_databases(place, server.databases)
            elif page_budget_s > 0:
                budget_s = page_budget(page_budget_s, server)
                found, problems = _pages(place, admin, name, _suspects(signs), budget_s)
                seen["server"] = replace(server, invalid_indexes=found.pop("invalid_indexes", ()))
                seen.update(found)
                errors += problems
        except psycopg.Error as error:
            errors.append(" ".join(str(error).split())[:400])
    seen["errors"] = tuple(errors)
    return seen


def _wrong_user(place: DatabasePlace, env: dict[str, str]) -> tuple[str, ...]:
    """Return `.env`'s role as `NAME=value` and the one that the agent's tables belong to, where they are two; else nothing.

    Whatever its password, it can read and write none of them.
    """
    import psycopg

    try:
        with connect(place, env["DB_NAME"], statement_timeout_s=10) as inside:
            owner = owner_of_the_agents_tables(inside)
    except psycopg.Error:
        return ()  # a damaged catalog is told by what looks for that
    return () if owner in (None, env["DB_USER"]) else (f"DB_USER={env['DB_USER']}", str(owner))


def _agent_databases(place: DatabasePlace, names: tuple[str, ...]) -> tuple[str, ...]:
    """Return the databases that hold the agent's tables, for when the one that `.env` names is not there."""
    found = []
    for name in names:
        with connect(place, name, statement_timeout_s=10) as inside:
            if holds_the_agents_tables(inside):
                found.append(name)
    return tuple(found)


def _suspects(signs: tuple[LogSign, ...]) -> tuple[str, ...]:
    """Return the files whose pages the log complains of."""
    return tuple(s.detail for s in signs if s.sign == "invalid_page" and s.detail.startswith(("base/", "global/")))


def _pages(
    place: DatabasePlace, admin: Any, name: str, suspects: tuple[str, ...], budget_s: float
) -> tuple[dict[str, Any], list[str]]:
    """Scan the pages on disk, the suspects first; return what was found and what could not be asked."""
    import psycopg

    errors: list[str] = []
    try:
        inside = connect(place, name, statement_timeout_s=10)
    except psycopg.Error as error:
        errors.append(" ".join(str(error).split())[:400])
        inside = None
    oid = admin.execute("select oid::bigint from pg_database where datname = %s", (name,)).fetchone()[0]
    relations: dict[tuple[bool, int], postgres_pages.Relation] = {}
    unused: tuple[str, ...] = ()
    try:
        if inside is not None:
            relations = postgres_pages.relations_of(inside)
            unused = invalid_indexes(inside)
    except psycopg.Error as error:
        # A damaged catalog names nothing any more; its pages can be read all the same.
        errors.append(" ".join(str(error).split())[:400])
    finally:
        if inside is not None:
            inside.close()
    try:
        scan = postgres_pages.scan(admin, relations, int(oid), budget_s=budget_s, suspects=suspects)
    except psycopg.Error as error:
        return {}, [*errors, " ".join(str(error).split())[:400]]
    return {
        "invalid_indexes": unused,
        "pages": {
            "scanned": scan.scanned,
            "total": scan.total,
            "complete": scan.complete,
            "catalog_read": bool(relations),
        },
        "bad_pages": tuple({"kind": p.kind, "what": p.describe(), **asdict(p)} for p in scan.bad),
    }, errors
