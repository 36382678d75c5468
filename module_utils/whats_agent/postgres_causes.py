# SPDX-License-Identifier: GPL-3.0-or-later
"""Name the cause of what was observed of the database. Pure: observations in, one finding out.

The list is closed and ordered: the first that fits is the one that has to be mended first, since it hides or causes the
others. What each cause is called in English and Portuguese stands beside its name.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from .postgres_host import EXIT_EMPTY, EXIT_NO_CONTROL_FILE, EXIT_WRONG_MAJOR, MAJOR_VERSION
from .postgres_observe import CRASH_UPTIME_S

if TYPE_CHECKING:
    from .postgres_observe import Observed

HEALTHY = "healthy"
# Causes whose last rung is a restore: for these the repository is looked at before anything is planned.
RESTORED = frozenset(
    [
        "restore_unfinished",
        "volume_lost",
        "volume_empty",
        "control_file_lost",
        "page_corrupt",
        "catalog_corrupt",
        "startup_damaged",
        "wrong_data",
        "undo_wanted",
    ]
)
DISK_LOW_BYTES = 256 * 1024 * 1024  # below this a checkpoint or a new WAL segment may fail
CRASH_RESTARTS = 3
BLOCKED_S = 30
SLOT_HELD_BYTES = 2 * 1024**3
ARCHIVE_LATE_S = 180

SUMMARIES: dict[str, tuple[str, str]] = {
    "healthy": ("PostgreSQL answers and its pages are sound", "O PostgreSQL responde e suas páginas estão íntegras"),
    "engine_down": ("the Docker engine does not answer", "o Docker não responde"),
    "config_invalid": ("the stack's .env cannot be used", "o .env da stack não pode ser usado"),
    "restore_unfinished": ("a restore was begun and not finished", "uma restauração foi iniciada e não terminou"),
    "restore_abandoned": (
        "a restore was begun, and its database is back by other means",
        "uma restauração foi iniciada, e o banco voltou por outro meio",
    ),
    "volume_lost": ("the data volume does not exist", "o volume de dados não existe"),
    "volume_empty": ("the data volume is empty", "o volume de dados está vazio"),
    "wrong_major": ("the data belongs to another PostgreSQL version", "os dados são de outra versão do PostgreSQL"),
    "control_file_lost": ("the data has lost global/pg_control", "os dados perderam global/pg_control"),
    "container_missing": ("there is no postgres container", "não há contêiner postgres"),
    "container_outdated": (
        "the postgres container runs on another volume than .env names",
        "o contêiner postgres usa outro volume que não o do .env",
    ),
    "container_paused": ("the postgres container is paused", "o contêiner postgres está pausado"),
    "container_stopped": ("the postgres container is stopped", "o contêiner postgres está parado"),
    "container_exited": ("the postgres container ended by itself", "o contêiner postgres terminou sozinho"),
    "crash_loop": ("the postgres container starts and dies again", "o contêiner postgres reinicia sem parar"),
    "startup_damaged": ("PostgreSQL cannot start on damaged data", "o PostgreSQL não inicia: dados danificados"),
    "config_refused": ("PostgreSQL refuses its configuration", "o PostgreSQL recusa sua configuração"),
    "disk_full": ("the disk under the database is full", "o disco do banco de dados está cheio"),
    "starting": ("PostgreSQL is starting or replaying after a crash", "o PostgreSQL está iniciando ou se recuperando"),
    "unresponsive": ("PostgreSQL runs and does not answer", "o PostgreSQL está no ar e não responde"),
    "connections_exhausted": ("all connections are taken", "todas as conexões estão ocupadas"),
    "catalog_corrupt": ("the system catalog is damaged", "o catálogo do sistema está corrompido"),
    "page_corrupt": ("data pages are damaged", "páginas de dados estão corrompidas"),
    "index_corrupt": ("an index is damaged", "um índice está corrompido"),
    "database_missing": ("the agent's database does not exist", "o banco de dados do agente não existe"),
    "credentials_wrong": ("the credentials of .env do not fit the database", "as credenciais do .env não servem"),
    "url_wrong": ("DB_HOST of .env is not the stack's database", "DB_HOST do .env não aponta para o banco da stack"),
    "read_only_standby": ("PostgreSQL is a standby, without writes", "o PostgreSQL é um standby: não aceita escritas"),
    "blocked": ("a forgotten transaction blocks the others", "uma transação esquecida bloqueia as outras"),
    "archive_failing": ("WAL does not reach the backup repository", "o WAL não chega ao repositório de backup"),
    "slot_holding_wal": ("a replication slot holds back WAL", "um slot de replicação retém WAL"),
    "wrong_data": ("the operator asks for the data of an earlier time", "o operador pede os dados de um momento anterior"),
    "undo_wanted": ("the operator asks to go back behind a restore", "o operador pede para desfazer uma restauração"),
    "removal_wanted": ("the operator asks to remove an old volume", "o operador pede para remover um volume antigo"),
    "commits_waiting": ("commits wait for the WAL receiver", "commits esperam pelo receptor de WAL"),
    "receiver_bypassed": ("commits go on without the WAL receiver", "commits seguem sem o receptor de WAL"),
    "collation_changed": ("the collation version has changed", "a versão da collation mudou"),
}  # fmt: skip

BELONGS_TO = {"engine_down": "recover_system.yml", "config_invalid": "recover_config.yml"}

# Signs in the log of a server that did not come up, each with the cause it means.
_FATAL_SIGNS = (
    ("disk_full", "disk_full"),
    ("empty", "volume_empty"),
    ("no_control", "control_file_lost"),
    ("wrong_major", "wrong_major"),
    ("bad_configuration", "config_refused"),
    ("control_damaged", "startup_damaged"),
    ("checkpoint_lost", "startup_damaged"),
    ("file_missing", "startup_damaged"),
    ("invalid_page", "startup_damaged"),
    ("panic", "startup_damaged"),
)
_EXIT_CAUSES = {
    EXIT_EMPTY: "volume_empty",
    EXIT_NO_CONTROL_FILE: "control_file_lost",
    EXIT_WRONG_MAJOR: "wrong_major",
}


# What an error says when data is damaged; a time-out, say, tells nothing of the kind.
_DAMAGE = re.compile(
    r"invalid page|could not (?:read|open|access) (?:block|file)|cache lookup failed|missing chunk|unexpected data"
)


@dataclass(frozen=True)
class Finding:
    """A cause and what shows it: `evidence` is a list of (what, value)."""

    cause: str
    evidence: tuple[tuple[str, str], ...] = field(default=())

    @property
    def healthy(self) -> bool:
        """Whether nothing has to be mended."""
        return self.cause == HEALTHY

    @property
    def summary(self) -> dict[str, str]:
        """Return the cause in words, English and Portuguese."""
        english, portuguese = SUMMARIES[self.cause]
        first = f": {self.evidence[0][1]}" if self.evidence and not self.healthy else ""
        return {"en": english + first, "pt": portuguese + first}


def find(seen: Observed) -> Finding:
    """Name the cause."""
    if seen.env_error:
        return _finding("config_invalid", (".env", seen.env_error))
    if seen.engine_error:
        return _finding("engine_down", ("engine", seen.engine_error))
    found = _volume(seen) or _container(seen) or _connection(seen)
    restore = _restore(seen, found)
    if restore is not None:
        return restore
    return found or _server(seen) or _finding(HEALTHY, *_health_evidence(seen))


def _finding(cause: str, *evidence: tuple[str, Any]) -> Finding:
    return Finding(cause, tuple((what, str(value)) for what, value in evidence))


def _restore(seen: Observed, found: Finding | None) -> Finding | None:
    """Judge a restore that has begun: it counts while the database needs it, or once its new volume is in use."""
    state = seen.restore
    if state is None:
        return None
    switched = seen.volume is not None and seen.volume.name == state.get("new_volume")
    needed = found is not None and found.cause != "starting"
    damaged = bool(seen.bad_pages)
    # Somebody may have brought the old database back: nothing was switched, but the writers may still be stopped.
    return _finding(
        "restore_unfinished" if switched or needed or damaged else "restore_abandoned",
        ("step", state.get("step", "")),
        ("restore", state.get("id", "")),
        ("new volume", state.get("new_volume", "")),
        ("old volume", state.get("old_volume", "")),
    )


def _volume(seen: Observed) -> Finding | None:
    volume = seen.volume
    if volume is None or not volume.present:
        return _finding("volume_lost", ("volume", volume.name if volume else ""))
    if volume.empty:
        return _finding("volume_empty", ("volume", volume.name), ("mountpoint", volume.mountpoint))
    if volume.version and volume.version != MAJOR_VERSION:
        return _finding("wrong_major", ("PG_VERSION", volume.version), ("image", MAJOR_VERSION))
    if not volume.control_file:
        return _finding("control_file_lost", ("volume", volume.name))
    return None


def _container(seen: Observed) -> Finding | None:  # noqa: PLR0911 - one return a cause
    container = seen.container
    if container is None:
        return _finding("container_missing", ("service", "postgres"))
    status = container["status"]
    if status == "paused":
        return _finding("container_paused", ("container", container["name"]))
    crashing = status == "restarting" or (
        container["restart_count"] >= CRASH_RESTARTS and (seen.uptime or 0) < CRASH_UPTIME_S and seen.server is None
    )
    if status == "running" and not crashing:
        if seen.container_volume and seen.volume and seen.container_volume != seen.volume.name:
            return _finding(
                "container_outdated", ("container's volume", seen.container_volume), ("DB_VOLUME", seen.volume.name)
            )
        return None
    details = (
        ("status", status),
        ("exit code", container["exit_code"]),
        ("restarts", container["restart_count"]),
        ("killed for memory", container["oom_killed"]),
        ("engine's error", container["error"] or "none"),
    )
    lines = tuple(("log", sign.line) for sign in seen.signs)
    if container["exit_code"] in _EXIT_CAUSES and status != "created":
        return _finding(_EXIT_CAUSES[container["exit_code"]], *details, *lines)
    failed = crashing or container["exit_code"] not in (0, 137, 143)
    if failed:
        for sign, cause in _FATAL_SIGNS:
            telling = [("log", s.line) for s in seen.signs if s.sign == sign]
            if telling:
                return _finding(cause, *telling, *(line for line in lines if line not in telling), *details)
    if crashing:
        return _finding("crash_loop", *details, *lines)
    stopped = container["exit_code"] in (0, 130, 137, 143) and not container["oom_killed"]
    return _finding("container_stopped" if stopped else "container_exited", *details, *lines)


def _connection(seen: Observed) -> Finding | None:  # noqa: PLR0911 - one return a cause
    error = seen.connection_error
    if error is None:
        return None
    lines = tuple(("log", sign.line) for sign in seen.signs)
    text = error.lower()
    if "too many clients" in text or "connection slots are reserved" in text:
        return _finding("connections_exhausted", ("connection", error))
    if any(s.sign == "disk_full" for s in seen.signs):
        return _finding("disk_full", ("connection", error), *lines)
    if "starting up" in text or "recovery" in text or "not yet accepting" in text or "shutting down" in text:
        return _finding("starting", ("connection", error), *lines)
    if any(s.sign in ("catalog_damaged", "invalid_page", "file_missing") for s in seen.signs):
        return _finding("catalog_corrupt", ("connection", error), *lines)
    if (seen.uptime or 0) < CRASH_UPTIME_S and ("no such file" in text or "refused" in text):
        return _finding("starting", ("connection", error), *lines)
    return _finding("unresponsive", ("connection", error), *lines)


def _server(seen: Observed) -> Finding | None:
    server, volume = seen.server, seen.volume
    if server is None:
        if any(_DAMAGE.search(error) for error in seen.errors):
            return _finding("catalog_corrupt", *(("query", error) for error in seen.errors))
        return _finding("unresponsive", *(("query", error) for error in seen.errors or ("no answer",)))
    return _damage(seen) or _access(seen) or _resources(seen, volume.free if volume else None)


def _damage(seen: Observed) -> Finding | None:
    """Judge the pages; what the log says counts only as far as the pages on disk bear it out."""
    by_kind: dict[str, list[str]] = {}
    for page in seen.bad_pages:
        by_kind.setdefault(page["kind"], []).append(page["what"])
    failures = seen.server.checksum_failures if seen.server else 0
    counted = (("checksum failures", failures),)
    for kinds, cause in (
        (("catalog", "catalog_index", "orphan"), "catalog_corrupt"),
        (("table",), "page_corrupt"),
        (("index", "map"), "index_corrupt"),
    ):
        found = [what for kind in kinds for what in by_kind.get(kind, [])]
        if found:
            return _finding(cause, *(("damaged", what) for what in found[:10]), *counted)
    complaints = [error for error in seen.errors if _DAMAGE.search(error)]
    if complaints:
        return _finding("catalog_corrupt", *(("query", error) for error in complaints), *counted)
    missing = [s.line for s in seen.signs if s.sign == "file_missing"]
    if missing:
        return _finding("page_corrupt", *(("log", line) for line in missing))
    if seen.server is not None and seen.server.invalid_indexes:
        return _finding("index_corrupt", *(("invalid index", name) for name in seen.server.invalid_indexes))
    return None


def _access(seen: Observed) -> Finding | None:  # noqa: PLR0911 - one return a cause
    server = seen.server
    if server is None:
        return None
    if server.in_recovery:
        return _finding("read_only_standby", ("in recovery", True))
    if seen.database not in server.databases:
        return _finding("database_missing", ("databases", ", ".join(server.databases)))
    error = (seen.login_error or "").lower()
    if "too many clients" in error or "connection slots are reserved" in error:
        return _finding("connections_exhausted", ("login", seen.login_error))
    if error:
        return _finding("credentials_wrong", ("login", seen.login_error))
    if not seen.host_expected:
        return _finding("url_wrong", ("DB_HOST", "does not name the service postgres"))
    return None


def _resources(seen: Observed, free: int | None) -> Finding | None:  # noqa: PLR0911 - one return a cause
    server = seen.server
    if server is None:
        return None
    if free is not None and free < DISK_LOW_BYTES:
        return _finding("disk_full", ("free bytes", free), ("needed", DISK_LOW_BYTES))
    if server.connections >= server.max_connections - server.reserved_connections:
        return _finding("connections_exhausted", ("connections", f"{server.connections} of {server.max_connections}"))
    if server.waiting_commits:
        return _finding("commits_waiting", ("commits that wait for the WAL receiver", server.waiting_commits))
    stuck = [
        b
        for b in server.blockers
        if b["state"].startswith("idle in transaction") and (b["idle_s"] > BLOCKED_S or b["waited_s"] > BLOCKED_S)
    ]
    if stuck:
        return _finding("blocked", *(("blocker", _describe_blocker(b)) for b in stuck))
    if server.archive_failing and server.archive_mode == "on":
        ready = ("waiting segments", server.archive_ready)
        return _finding("archive_failing", *(("log", s.line) for s in seen.signs if s.sign == "archive_failed"), ready)
    held = [s for s in server.slots if s["held"] > SLOT_HELD_BYTES and not s["active"]]
    if held:
        return _finding("slot_holding_wal", *(("slot", f"{s['slot_name']} holds {s['held']} bytes") for s in held))
    if server.receiver_bypassed:
        return _finding("receiver_bypassed", ("synchronous_standby_names", "emptied by ALTER SYSTEM"))
    if server.collation_mismatch:
        return _finding("collation_changed", *(("collation", name) for name in server.collation_mismatch))
    return None


def _describe_blocker(blocker: dict[str, Any]) -> str:
    who = blocker["application"] or blocker["user"]
    return f"pid {blocker['pid']} ({who}), idle {blocker['idle_s']:.0f} s, blocks {blocker['blocked']}"


def _health_evidence(seen: Observed) -> list[tuple[str, Any]]:
    server = seen.server
    if server is None:
        return []
    pages = seen.pages or {}
    return [
        ("uptime", f"{server.uptime:.0f} s"),
        ("connections", f"{server.connections} of {server.max_connections}"),
        ("pages read on disk", f"{pages.get('scanned', 0)} of {pages.get('total', 0)} bytes"),
        ("segments waiting for the archive", server.archive_ready),
    ]
