# SPDX-License-Identifier: GPL-3.0-or-later
"""Name the cause of what was observed of the database. Pure: observations in, one finding out.

The list is closed and ordered: the first that fits is the one that has to be mended first, since it hides or causes the
others. What each is called stands in `postgres_words`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from .postgres_host import MAJOR_VERSION
from .postgres_observe import CRASH_UPTIME_S
from .postgres_receiver import SLOT as RECEIVER_SLOT
from .postgres_unfinished import goes_on
from .postgres_words import HEALTHY, SUMMARIES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .postgres_observe import LogSign, Observed

ALL_PAGES = "-e database_page_budget=3600"
CRASH_RESTARTS = 3
# After the server was away the engine lets up to a minute pass before it starts the receiver again.
RECEIVER_QUIET_S = 120.0
# Free bytes below which nothing starts, and what lies on its own file system fails.
FULL_BYTES = 32 * 1024 * 1024


@dataclass(frozen=True)
class Limits:
    """From where on something is a cause: seconds and bytes."""

    blocked_s: float = 30  # idle in a transaction while others wait
    slot_bytes: int = 2 * 1024**3  # WAL held back by an inactive slot
    disk_bytes: int = 256 * 1024 * 1024  # free under the database; below it a checkpoint or a new WAL segment may fail


DEFAULT_LIMITS = Limits()


def limits_of(parameters: Mapping[str, Any]) -> Limits:
    """Return the limits that a module was given, in seconds and megabytes."""
    return Limits(
        blocked_s=float(parameters["blocked_after"]),
        slot_bytes=int(parameters["slot_limit_mb"]) * 1024**2,
        disk_bytes=int(parameters["low_space_mb"]) * 1024**2,
    )


# What keeps a restore from being closed whose database serves, and has a remedy of its own: it goes first.
KEEPS_OPEN = frozenset(["disk_full", "archive_failing", "commits_waiting", "connections_exhausted", "index_corrupt"])

# Signs in the log of a server that did not come up, each with the cause it means. What the entry point refuses is not among
# them: the volume itself tells that, and the log of a container that dies again and again also what is over.
_FATAL_SIGNS = (
    ("disk_full", "disk_full"),
    ("bad_configuration", "config_refused"),
    ("control_damaged", "startup_damaged"),
    ("checkpoint_lost", "startup_damaged"),
    ("file_missing", "startup_damaged"),
    ("invalid_page", "startup_damaged"),
    ("panic", "startup_damaged"),
)
# What a server says that is alive and busy with its start.
_STARTING = re.compile(r"starting up|recovery|not yet accepting|shutting down")
_ONE_DEATH_S = 10.0  # what a server says in its last attempt to start, it says within this time


# What an error says when data is damaged; a time-out, say, tells nothing of the kind.
_DAMAGE = re.compile(
    r"invalid page|could not (?:read|open|access) (?:block|file)|cache lookup failed|missing chunk|unexpected data"
)


# What a server says to credentials that it does not take; anything else is no question of credentials.
_REJECTED = re.compile(
    r"password authentication failed|role .* does not exist|no pg_hba\.conf entry|rejects connection|not permitted to log in"
    r"|permission denied|no password supplied"
)


@dataclass(frozen=True)
class Finding:
    """A cause and what shows it: `evidence` is a list of (what, value).

    `first_pt` is the first value in Portuguese, where that is a sentence and not a name or a number. `read` is how much was read
    of the pages, where not all were.
    """

    cause: str
    evidence: tuple[tuple[str, str], ...] = field(default=())
    first_pt: str | None = None
    read: str = ""

    @property
    def healthy(self) -> bool:
        """Whether nothing has to be mended."""
        return self.cause == HEALTHY

    @property
    def summary(self) -> dict[str, str]:
        """Return the cause in words, English and Portuguese."""
        english, portuguese = SUMMARIES[self.cause]
        if self.healthy and self.read:
            amount = self.read.replace(" of ", " de ").replace(".", ",")
            return {"en": f"{english}: {self.read} were read", "pt": f"{portuguese}: foram lidos {amount}"}
        if not self.evidence or self.healthy:
            return {"en": english, "pt": portuguese}
        first = self.evidence[0][1]
        return {"en": f"{english}: {first}", "pt": f"{portuguese}: {self.first_pt or first}"}


def find(seen: Observed, limits: Limits = DEFAULT_LIMITS) -> Finding:
    """Name the cause."""
    if seen.env_error:
        return Finding("config_invalid", ((".env", seen.env_error),), seen.env_error_pt)
    if seen.engine_error:
        return _finding("engine_down", ("engine", seen.engine_error))
    found = _volume(seen) or _container(seen) or _connection(seen)
    restore = _restore(seen, found, limits)
    if restore is not None:
        return restore
    return (
        found
        or _server(seen, limits)
        or _unsound(seen)
        or replace(_finding(HEALTHY, *_health_evidence(seen)), read=_partly_read(seen))
    )


def _finding(cause: str, *evidence: tuple[str, Any]) -> Finding:
    return Finding(cause, tuple((what, str(value)) for what, value in evidence))


def _restore(seen: Observed, found: Finding | None, limits: Limits) -> Finding | None:
    """Judge a restore that has begun: it counts while the database needs it, or once its new volume is in use.

    One that cannot go on, since `.env` names another volume by now, finishes nothing: what is wrong with that one counts.
    """
    state = seen.restore
    if state is None:
        return None
    volume, there = (seen.volume.name, seen.volume.present) if seen.volume else ("", False)
    switched = volume == state.get("new_volume")
    needed = found is not None and found.cause != "starting"
    if switched and state.get("held_up"):
        other = found or _server(seen, limits)
        if other is not None and other.cause in KEEPS_OPEN:
            return None
    damaged = any(page["kind"] != "orphan" or not _catalog_read(seen) for page in seen.bad_pages)
    if (switched or needed or damaged) and not goes_on(state, volume, present=there):
        return None
    # Somebody may have brought the old database back: nothing was switched, but the writers may still be stopped.
    return _finding(
        "restore_unfinished" if switched or needed or damaged else "restore_abandoned",
        ("step", state.get("step", "")),
        ("restore", state.get("id", "")),
        ("new volume", state.get("new_volume", "")),
        ("old volume", state.get("old_volume", "")),
        *([("held up by", state.get("reason", ""))] if state.get("held_up") else []),
    )


def _unsound(seen: Observed) -> Finding | None:
    """Judge what a restore has left: what takes long to check is not looked at each time, and does not mend itself."""
    state = seen.unsound
    if state is None:
        return None
    return _finding(
        "restored_unsound",
        ("found", state["unsound"]),
        ("restore", state.get("run") or state.get("id", "")),
        ("closed", state["finished_at"]),
    )


def _volume(seen: Observed) -> Finding | None:
    volume = seen.volume
    if volume is not None and not volume.present and seen.container_volume_there:
        return _finding("volume_misnamed", ("DB_VOLUME", volume.name), ("container's volume", seen.container_volume))
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
    young = seen.server is None and (seen.uptime or 0) < CRASH_UPTIME_S
    died = container["restart_count"] > 0 and bool(_last_words(seen.signs)) and not _STARTING.search(_said(seen))
    crashing = status == "restarting" or (young and (container["restart_count"] >= CRASH_RESTARTS or died))
    if seen.container_volume and seen.volume and seen.container_volume != seen.volume.name:
        # Also of one that is stopped, as it is in the middle of this one's remedy.
        return _finding(
            "container_outdated", ("container's volume", seen.container_volume), ("DB_VOLUME", seen.volume.name)
        )
    if status == "running" and not crashing:
        return None
    details = (
        ("status", status),
        ("exit code", container["exit_code"]),
        ("restarts", container["restart_count"]),
        ("killed for memory", container["oom_killed"]),
        ("engine's error", container["error"] or "none"),
    )
    lines = tuple(("log", sign.line) for sign in seen.signs)
    if seen.volume is not None and seen.volume.present and seen.volume.free < FULL_BYTES:
        return _finding("disk_full", ("free bytes", seen.volume.free), *details, *lines)
    failed = crashing or container["exit_code"] not in (0, 137, 143)
    if failed:
        last_words = _last_words(seen.signs)
        for sign, cause in _FATAL_SIGNS:
            telling = [("log", s.line) for s in last_words if s.sign == sign]
            if telling:
                return _finding(cause, *telling, *(line for line in lines if line not in telling), *details)
    if crashing:
        return _finding("crash_loop", *details, *lines)
    stopped = container["exit_code"] in (0, 130, 137, 143) and not container["oom_killed"]
    return _finding("container_stopped" if stopped else "container_exited", *details, *lines)


def _said(seen: Observed) -> str:
    return (seen.connection_error or "").lower()


def _last_words(signs: tuple[LogSign, ...]) -> list[LogSign]:
    """Return the fatal signs of the last attempt to start; earlier ones may have been about what is mended by now."""
    fatal = {sign for sign, _cause in _FATAL_SIGNS}
    timed = [(sign, sign.said_at) for sign in signs if sign.sign in fatal]
    newest = max((at for _sign, at in timed if at is not None), default=None)
    return [s for s, at in timed if at is None or newest is None or (newest - at).total_seconds() < _ONE_DEATH_S]


def _connection(seen: Observed) -> Finding | None:  # noqa: PLR0911 - one return a cause
    error = seen.connection_error
    if error is None:
        return None
    lines = tuple(("log", sign.line) for sign in seen.signs)
    text = error.lower()
    if "too many clients" in text or "connection slots are reserved" in text:
        return _finding("connections_exhausted", ("connection", error))
    if seen.stopped_processes:
        return _finding(
            "process_stopped",
            *(("stopped process", process) for process in seen.stopped_processes),
            ("connection", error),
        )
    if any(s.sign == "disk_full" for s in seen.signs):
        return _finding("disk_full", ("connection", error), *lines)
    if _STARTING.search(text):
        return _finding("starting", ("connection", error), *lines)
    if any(s.sign in ("catalog_damaged", "invalid_page", "file_missing") for s in seen.signs):
        return _finding("catalog_corrupt", ("connection", error), *lines)
    if (seen.uptime or 0) < CRASH_UPTIME_S and ("no such file" in text or "refused" in text):
        return _finding("starting", ("connection", error), *lines)
    return _finding("unresponsive", ("connection", error), *lines)


def _server(seen: Observed, limits: Limits) -> Finding | None:
    server = seen.server
    if server is None:
        if any(_DAMAGE.search(error) for error in seen.errors):
            return _finding("catalog_corrupt", *(("query", error) for error in seen.errors))
        return _finding("unresponsive", *(("query", error) for error in seen.errors or ("no answer",)))
    return _damage(seen) or _access(seen) or _resources(seen, limits)


def _damage(seen: Observed) -> Finding | None:
    """Judge the pages; what the log says counts only as far as the pages on disk bear it out."""
    by_kind: dict[str, list[str]] = {}
    for page in seen.bad_pages:
        by_kind.setdefault(page["kind"], []).append(page["what"])
    failures = seen.server.checksum_failures if seen.server else 0
    counted = (("checksum failures", failures),)
    # A page that no relation owns is the catalog's fault only where that could not be asked; else the file is nobody's.
    unread = () if _catalog_read(seen) else ("orphan",)
    for kinds, cause in (
        (("catalog", *unread), "catalog_corrupt"),
        (("table",), "page_corrupt"),
        (("index", "catalog_index", "map"), "index_corrupt"),
    ):
        found = [what for kind in kinds for what in by_kind.get(kind, [])]
        if found:
            return _finding(cause, *(("damaged", what) for what in found[:10]), *counted)
    wrong = [("catalog" if w["catalog"] and w["kind"] == "table" else w["kind"], w["what"]) for w in seen.wrong]
    for kind, cause in (("catalog", "catalog_corrupt"), ("table", "page_corrupt"), ("index", "index_corrupt")):
        found = [what for of_kind, what in wrong if of_kind == kind]
        if found:
            return _finding(cause, *(("structure", what) for what in found[:10]), *counted)
    complaints = [error for error in seen.errors if _DAMAGE.search(error)]
    if complaints:
        return _finding("catalog_corrupt", *(("query", error) for error in complaints), *counted)
    missing = [s.line for s in seen.signs if s.sign == "file_missing"]
    if missing:
        return _finding("page_corrupt", *(("log", line) for line in missing))
    if seen.server is not None and seen.server.invalid_indexes:
        return _finding("index_corrupt", *(("invalid index", name) for name in seen.server.invalid_indexes))
    return None


def _catalog_read(seen: Observed) -> bool:
    return bool((seen.pages or {}).get("catalog_read"))


def _access(seen: Observed) -> Finding | None:  # noqa: PLR0911 - one return a cause
    server = seen.server
    if server is None:
        return None
    if server.in_recovery:
        return _finding("read_only_standby", ("in recovery", True))
    if seen.database not in server.databases:
        if len(seen.agent_databases) == 1:
            return _finding(
                "url_wrong", ("DB_NAME", seen.database), ("the agent's tables are in", seen.agent_databases[0])
            )
        there = ", ".join(server.databases)
        return _finding("database_missing", ("DB_NAME", seen.database), ("databases", there))
    if seen.wrong_user:
        # Before the credentials: giving that role a password helps nobody, since it has no right to the agent's tables.
        named, owner = seen.wrong_user
        return _finding("url_wrong", (".env", named), ("the agent's tables belong to", owner))
    error = (seen.login_error or "").lower()
    if "too many c" in error or "connection slots are reserved" in error:
        return _finding("connections_exhausted", ("login", seen.login_error))
    if _REJECTED.search(error):
        return _finding("credentials_wrong", ("login", seen.login_error))
    if error:
        return _finding("unresponsive", ("login", seen.login_error))
    if seen.wrong_address:
        return _finding("url_wrong", *((".env", line) for line in seen.wrong_address))
    return None


def _resources(seen: Observed, limits: Limits) -> Finding | None:  # noqa: PLR0911 - one return a cause
    server = seen.server
    if server is None:
        return None
    full = space_finding(seen, limits)
    if full is not None:
        return full
    if server.connections >= server.max_connections - server.reserved_connections:
        return _finding("connections_exhausted", ("connections", f"{server.connections} of {server.max_connections}"))
    if server.waiting_commits:
        return _finding("commits_waiting", ("commits that wait for the WAL receiver", server.waiting_commits))
    stuck = [b for b in server.blockers if is_stuck(b, limits)]
    if stuck:
        return _finding("blocked", *(("blocker", _describe_blocker(b)) for b in stuck))
    # What opens the repository may be gone before WAL is refused: that of the backups is not asked for until one is taken.
    if (server.archive_failing or seen.repository_lacks) and server.archive_mode == "on":
        ready = ("waiting segments", server.archive_ready)
        lost = (("backup repository", f"{name} is missing, both copies") for name in seen.repository_lacks)
        lines = (("log", s.line) for s in seen.signs if s.sign == "archive_failed")
        return _finding("archive_failing", *lost, *lines, ready)
    away = _receiver_away(seen)
    if away is not None:
        return away
    held = [s for s in server.slots if holds_too_much(s, limits)]
    if held:
        return _finding("slot_holding_wal", *(("slot", f"{s['slot_name']} holds {s['held']} bytes") for s in held))
    if server.receiver_bypassed:
        return _finding("receiver_bypassed", ("synchronous_standby_names", "emptied by ALTER SYSTEM"))
    if server.collation_mismatch:
        return _finding("collation_changed", *(("collation", name) for name in server.collation_mismatch))
    return None


def _receiver_away(seen: Observed) -> Finding | None:
    """Judge a WAL receiver that does not follow the server, though nothing waits for it: what it protects from is unprotected.

    One that is only just coming back is left to it. While commits go on without it on purpose, that is another cause.
    """
    receiver, server = seen.receiver, seen.server
    if receiver is None or server is None or server.receiver_bypassed:
        return None
    slot = next((s for s in server.slots if s["slot_name"] == RECEIVER_SLOT), None)
    if slot is not None and slot["active"]:
        return None
    # The first thing it does is to make its slot: where there is none, it has not come that far since it, or the server, started.
    since_start = server.uptime if receiver["restarts"] else receiver["uptime"]
    quiet = (since_start if slot is None else slot["idle_s"]) or 0.0
    if receiver["status"] in ("running", "restarting") and quiet < RECEIVER_QUIET_S:
        return None
    return _finding("receiver_stopped", ("WAL receiver", receiver["status"]), ("seconds without it", f"{quiet:.0f}"))


def space_finding(seen: Observed, limits: Limits) -> Finding | None:
    """Judge the free space: under the database some is needed to go on, elsewhere only that it is not full."""
    low = [s for s in seen.spaces if s.free < FULL_BYTES]
    told: list[tuple[str, Any]] = [(f"free bytes under {s.what} {s.path}", s.free) for s in low]
    if seen.volume is not None and seen.volume.free < limits.disk_bytes:
        told.insert(0, ("free bytes under the database", f"{seen.volume.free}, and {limits.disk_bytes} are needed"))
    return _finding("disk_full", *told) if told else None


def is_stuck(blocker: Mapping[str, Any], limits: Limits) -> bool:
    """Tell whether a session that blocks others does nothing itself, and has for too long, or they have waited too long."""
    waits = max(blocker["idle_s"], blocker["waited_s"])
    return bool(blocker["state"].startswith("idle in transaction") and waits > limits.blocked_s)


def holds_too_much(slot: Mapping[str, Any], limits: Limits) -> bool:
    """Tell whether nobody reads a replication slot while it holds back WAL."""
    return bool(slot["held"] > limits.slot_bytes and not slot["active"])


def _describe_blocker(blocker: dict[str, Any]) -> str:
    who = blocker["application"] or blocker["user"]
    return f"pid {blocker['pid']} ({who}), idle {blocker['idle_s']:.0f} s, blocks {blocker['blocked']}"


def _partly_read(seen: Observed) -> str:
    """Return how much of the database was read, as `1.8 of 12.0 GB`; nothing where all was, or none."""
    pages = seen.pages or {}
    if not pages or pages["complete"]:
        return ""
    unit, name = (1e9, "GB") if pages["total"] >= 1e9 else (1e6, "MB")
    return f"{pages['scanned'] / unit:.1f} of {pages['total'] / unit:.1f} {name}"


def _pages_read(seen: Observed) -> str:
    if not seen.pages:
        return "none"
    partly = _partly_read(seen)
    return f"{partly}, another part each time; all: {ALL_PAGES}" if partly else f"all {seen.pages['total']} bytes"


def _health_evidence(seen: Observed) -> list[tuple[str, Any]]:
    server = seen.server
    if server is None:
        return []
    ownerless = [("bad page of a file that is nobody's", page["what"]) for page in seen.bad_pages[:3]]
    return [
        ("uptime", f"{server.uptime:.0f} s"),
        ("connections", f"{server.connections} of {server.max_connections}"),
        ("pages read on disk", _pages_read(seen)),
        *([("checksum failures", server.checksum_failures)] if server.checksum_failures else []),
        *([("structure", seen.structure)] if seen.structure else []),
        ("segments waiting for the archive", server.archive_ready),
        *ownerless,
    ]
