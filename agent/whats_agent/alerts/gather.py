# SPDX-License-Identifier: GPL-3.0-or-later
"""Look at everything the rules speak about."""

from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import psycopg

from whats_agent import clock
from whats_agent.alerts import backups
from whats_agent.alerts.certificate import shown_by
from whats_agent.alerts.rules import Facts
from whats_agent.database.connection import Connection, connect
from whats_agent.disk import free_share
from whats_agent.errors import MessageLogError
from whats_agent.graph import versions
from whats_agent.message_log import MessageLog
from whats_agent.metrics import layout
from whats_agent.metrics.reading import Snapshot
from whats_agent.settings import WebSettings
from whats_agent.views.health import Part

RECENT_SECONDS = 300.0
# Account-level fields that call for a person, and the words that make them good news.
_WARNING_FIELDS = ("phone_number_quality_update", "account_update", "account_alerts", "business_capability_update")
_GOOD_NEWS = ("UNFLAGGED", "UPGRADE", "ONBOARDING", "VERIFIED_ACCOUNT", "PARTNER_ADDED", "ACCOUNT_UPDATE_OK")


def gather(settings: WebSettings, message_log: MessageLog, parts: dict[str, Part]) -> Facts:
    """The facts of this moment; ``parts`` as ``/health`` shows them. What cannot be seen stays None."""
    snapshot = Snapshot(settings.message_log_dir)
    requests = snapshot.recent(layout.REQUEST, RECENT_SECONDS)
    answers = snapshot.recent(layout.ANSWER, RECENT_SECONDS)
    worker = parts["worker"]
    version = worker.get("graph_version")
    return Facts(
        message_log_state=parts["message_log"]["state"],
        message_log_reason=parts["message_log"].get("reason"),
        postgres_state=parts["postgres"]["state"],
        redis_state=parts["redis"]["state"],
        worker_state=worker["state"],
        sender_stopped=worker.get("sender_stopped"),
        breaker_open=worker.get("breaker_open"),
        disk_free=_disk_free(settings.message_log_dir),
        requests=requests.count,
        response_p95=requests.percentile(0.95),
        request_error_rate=requests.error_rate,
        answers=answers.count,
        answer_error_rate=answers.error_rate,
        refused=snapshot.recent(layout.REFUSED, RECENT_SECONDS).count,
        backups=backups.read(settings.backup_status(), clock.now()),
        certificate_days=_certificate_days(settings.certificate_address),
        graph_version=version,
        graph_version_days=_version_days(worker),
        graph_version_served=worker.get("graph_version_served"),
        **_of_the_database(settings, message_log, parts["postgres"]["state"]),
    )


def _of_the_database(settings: WebSettings, message_log: MessageLog, state: str) -> dict[str, Any]:
    if state != "up":
        return {}
    try:
        with connect(settings, "alerts", statement_timeout="5s") as connection:
            return {**_queue(connection, message_log), **_archive(connection), **_stored(connection)}
    except (psycopg.Error, MessageLogError):
        return {}  # the next round will say that it is down


def _queue(connection: Connection, message_log: MessageLog) -> dict[str, Any]:
    """Age of the oldest message without an answer, and for how long the projection has not moved though the log went on."""
    end = message_log.last_id()
    row = connection.execute(
        """
        select (select extract(epoch from now() - min(received_at))::float8 from outbox
                where state in ('queued', 'leased', 'sending', 'unknown')),
            position, extract(epoch from now() - updated_at)::float8
        from projection
        """
    ).fetchone()
    if row is None:
        return {}
    return {"queue_age": row[0], "projection_lag_seconds": row[2] if end > row[1] else 0.0}


def _archive(connection: Connection) -> dict[str, Any]:
    """Archiving fails when the last failure is newer than the last success; it is late when a whole segment waits for long.

    The segment being written is not due yet, and after a restore names of the older timeline are as good as those of the new one:
    so the number in the name is compared, with that of the segment before.
    """
    row = connection.execute(
        """
        select current_setting('archive_mode'),
            case when last_failed_time > coalesce(last_archived_time, '-infinity') then last_failed_wal end,
            extract(epoch from now() - coalesce(last_archived_time, stats_reset))::float8,
            case when last_archived_wal ~ '^[0-9A-F]{24}' then substr(last_archived_wal, 9, 16)
                < substr(pg_walfile_name(pg_current_wal_lsn() - pg_size_bytes(current_setting('wal_segment_size'))), 9, 16) end
        from pg_stat_archiver where not pg_is_in_recovery()
        """
    ).fetchone()
    if row is None or row[0] == "off":
        return {}
    return {"archive_failing": row[1], "archive_age": row[2] if row[3] or row[1] else None}


def _stored(connection: Connection) -> dict[str, Any]:
    unreadable = connection.execute(
        "select count(*) from unreadable_items where received_at > now() - interval '1 hour'"
    ).fetchone()
    warnings = connection.execute(
        """
        select distinct on (field) field, coalesce(value ->> 'event', value ->> 'alert_type', value ->> 'decision', '')
        from account_events where field = any(%s) and received_at > now() - interval '1 day' order by field, id desc
        """,
        (list(_WARNING_FIELDS),),
    ).fetchall()
    return {
        "unreadable_last_hour": unreadable[0] if unreadable else None,
        "account_warnings": tuple(f"{name} {event}".strip() for name, event in warnings if event not in _GOOD_NEWS),
    }


def _disk_free(directory: Path) -> float | None:
    try:
        return free_share(directory)
    except OSError:
        return None


def _certificate_days(address: str) -> float | None:
    host, _, port = address.rpartition(":")
    end = shown_by(host, int(port)) if host else None
    return (end - clock.now()).total_seconds() / 86_400 if end else None


def _version_days(worker: Part) -> int | None:
    version, override = worker.get("graph_version"), worker.get("graph_version_expires")
    if not isinstance(version, str):
        return None
    return versions.days_left(version, datetime.now(UTC).date(), date.fromisoformat(override) if override else None)
