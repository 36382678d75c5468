# SPDX-License-Identifier: GPL-3.0-or-later
"""What the agent does for the business, from PostgreSQL: the last 24 hours and the present queue."""

from typing import Any

from whats_agent.database.connection import Connection
from whats_agent.settings import WebSettings


def figures(connection: Connection, settings: WebSettings) -> dict[str, Any]:
    """Counts, shares 0 to 1, seconds, tokens and dollars. Raises psycopg.Error."""
    with connection.transaction():
        # One snapshot, so that the figures fit each other.
        connection.execute("set transaction isolation level repeatable read, read only")
        return {
            "window_hours": 24,
            "messages": _messages(connection),
            "answers": _answers(connection),
            "deliveries": _deliveries(connection),
            "tokens": _tokens(connection, settings),
            "conversations": _conversations(connection, settings),
            "queue": _queue(connection),
        }


def _messages(connection: Connection) -> dict[str, int]:
    rows = connection.execute(
        """
        select action, count(*) from messages
        where received_at > now() - interval '24 hours' and direction = 'inbound' group by action
        """
    ).fetchall()
    by_action = {str(action): int(count) for action, count in rows}
    return {"received": sum(by_action.values()), **by_action}


def _answers(connection: Connection) -> dict[str, Any]:
    row = connection.execute(
        """
        select count(*) filter (where state = 'sent'), count(*) filter (where state = 'failed'),
            count(*) filter (where state = 'expired'), count(*) filter (where state = 'cancelled'),
            count(*) filter (where state = 'sent' and reply_source = 'openai'),
            count(*) filter (where state = 'sent' and reply_source = 'fallback'),
            percentile_cont(0.5) within group (order by extract(epoch from sent_at - received_at)),
            percentile_cont(0.95) within group (order by extract(epoch from sent_at - received_at))
        from outbox where received_at > now() - interval '24 hours'
        """
    ).fetchone()
    names = ("sent", "failed", "expired", "cancelled", "by_openai", "by_fallback", "median_seconds", "p95_seconds")
    return dict(zip(names, row or (), strict=True))


def _deliveries(connection: Connection) -> dict[str, int]:
    rows = connection.execute(
        """
        select coalesce(delivery, 'unknown'), count(*) from outbox
        where sent_at > now() - interval '24 hours' and state in ('sent', 'failed') group by 1
        """
    ).fetchall()
    return {str(delivery): int(count) for delivery, count in rows}


def _tokens(connection: Connection, settings: WebSettings) -> dict[str, Any]:
    row = connection.execute(
        """
        select coalesce(sum(prompt_tokens), 0), coalesce(sum(completion_tokens), 0) from outbox
        where received_at > now() - interval '24 hours'
        """
    ).fetchone()
    prompt, completion = (int(row[0]), int(row[1])) if row else (0, 0)
    cost = (prompt * settings.openai_input_price + completion * settings.openai_output_price) / 1_000_000
    return {"prompt": prompt, "completion": completion, "cost_usd": round(cost, 6)}


def _conversations(connection: Connection, settings: WebSettings) -> dict[str, int]:
    row = connection.execute(
        """
        select count(*), count(*) filter (where last_inbound_at > now() - interval '24 hours'),
            count(*) filter (where handed_over_at > now() - make_interval(secs => %s))
        from conversations
        """,
        (settings.handover_hours * 3600,),
    ).fetchone()
    return dict(zip(("total", "active", "handed_over"), row or (), strict=True))


def _queue(connection: Connection) -> dict[str, Any]:
    row = connection.execute(
        """
        select count(*) filter (where state = 'queued'), count(*) filter (where state <> 'queued'),
            extract(epoch from now() - min(received_at))::float8
        from outbox where state in ('queued', 'leased', 'sending', 'unknown')
        """
    ).fetchone()
    return dict(zip(("queued", "in_flight", "oldest_seconds"), row or (), strict=True))
