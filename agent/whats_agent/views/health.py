# SPDX-License-Identifier: GPL-3.0-or-later
"""``GET /health``: 200 while webhooks can be accepted, 503 otherwise; with the state of every part."""

import contextlib
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psycopg
import redis
from flask import Blueprint, Response, jsonify

from whats_agent import __version__, heartbeat
from whats_agent.database.connection import connect
from whats_agent.database.redis_client import redis_client
from whats_agent.settings import WebSettings

KEEP_SECONDS = 2.0
PROBE_BYTES = 4096
BEAT_FACTS = (
    *("age", "projector", "position", "log_end", "sender_stopped", "breaker_open"),
    *("graph_version", "graph_version_served", "graph_version_expires"),
)

Part = dict[str, Any]


def check_message_log(directory: Path) -> Part:
    """Whether the disk under the message log takes and keeps data: a few bytes are written and fsynced."""
    probe = directory / f".probe_{os.getpid()}"
    try:
        descriptor = os.open(probe, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o660)
        try:
            os.write(descriptor, b"\0" * PROBE_BYTES)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        usage = os.statvfs(directory)
    except OSError as error:
        return {"state": "down", "reason": error.strerror or type(error).__name__}
    finally:
        with contextlib.suppress(OSError):
            probe.unlink(missing_ok=True)
    return {"state": "up", "free_bytes": usage.f_bavail * usage.f_frsize}


def check_postgres(settings: WebSettings) -> Part:
    """Whether PostgreSQL answers, and where the projection is."""
    try:
        with connect(settings, "health", statement_timeout="2s") as connection:
            row = connection.execute("select position from projection").fetchone()
    except psycopg.Error as error:
        return {"state": "down", "reason": type(error).__name__}
    return {"state": "up", "position": int(row[0]) if row else 0}


def check_redis(settings: WebSettings) -> Part:
    """Whether Redis answers. Losing it costs speed, nothing else."""
    try:
        with redis_client(settings, timeout=2) as client:
            client.ping()
    except redis.RedisError as error:
        return {"state": "down", "reason": type(error).__name__}
    return {"state": "up"}


def check_worker(directory: Path, stale_seconds: float) -> Part:
    """What the heartbeats of all workers come to.

    The position is that of the one that projects (the others stand by at 0); what goes wrong in any of them goes wrong.
    """
    beats = heartbeat.read_all(directory)
    if not beats:
        return {"state": "down", "reason": "no heartbeat"}
    fresh = [beat for beat in beats if float(beat["age"]) <= stale_seconds]
    seen = fresh or beats[:1]
    furthest = max(seen, key=lambda beat: int(beat.get("position") or 0))
    facts = {name: furthest.get(name) for name in BEAT_FACTS}
    facts["age"] = seen[0]["age"]
    for name in ("sender_stopped", "graph_version_served"):
        facts[name] = next((beat[name] for beat in seen if beat.get(name)), None)
    facts["breaker_open"] = any(beat.get("breaker_open") for beat in seen)
    return {"state": "up" if fresh else "stale", "workers": len(fresh), **facts}


class Health:
    """Runs the checks side by side and remembers them for two seconds, so that polling costs nothing."""

    def __init__(self, settings: WebSettings) -> None:
        directory = settings.message_log_dir
        self._checks: dict[str, Callable[[], Part]] = {
            "message_log": lambda: check_message_log(directory),
            "postgres": lambda: check_postgres(settings),
            "redis": lambda: check_redis(settings),
            "worker": lambda: check_worker(directory, settings.worker_stale_seconds),
        }
        self._mutex = threading.Lock()
        self._parts: dict[str, Part] = {}
        self._checked_at = -KEEP_SECONDS

    def parts(self) -> dict[str, Part]:
        """Every part's state, at most two seconds old."""
        with self._mutex:
            if time.monotonic() - self._checked_at >= KEEP_SECONDS:
                with ThreadPoolExecutor(max_workers=len(self._checks)) as pool:
                    running = {name: pool.submit(check) for name, check in self._checks.items()}
                self._parts = {name: future.result() for name, future in running.items()}
                self._checked_at = time.monotonic()
            return self._parts


def blueprint(health: Health) -> Blueprint:
    """The route."""
    routes = Blueprint("health", __name__)

    @routes.get("/health", endpoint="health")
    def show() -> Response:
        parts = health.parts()
        accepts = parts["message_log"]["state"] == "up"
        degraded = any(part["state"] != "up" for part in parts.values())
        status = "down" if not accepts else "degraded" if degraded else "healthy"
        response = jsonify({"status": status, "version": __version__, "parts": parts})
        response.status_code = 200 if accepts else 503
        response.headers["Cache-Control"] = "no-store"
        return response

    return routes
