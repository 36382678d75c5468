# SPDX-License-Identifier: GPL-3.0-or-later
"""Meta's limits on sending, kept in PostgreSQL so that every worker counts together.

Each limit is one timestamp (GCRA): the moment at which the bucket would be full again. A send moves it on by one interval; when
it would lie further ahead than the burst allows, the send must wait.
"""

from dataclasses import dataclass

from whats_agent.database.connection import Connection


@dataclass(frozen=True, slots=True)
class Rate:
    """One send per ``interval`` seconds, ``burst`` of them at once."""

    interval: float
    burst: int


def take_for_conversation(connection: Connection, conversation_id: int, rate: Rate) -> float:
    """Count one send to this user; returns 0.0, or the seconds to wait when the limit is reached (then nothing is counted)."""
    row = connection.execute(
        """
        with due as (
            select id, greatest(now(), coalesce(next_send_at, now())) + make_interval(secs => %(interval)s) as next
            from conversations where id = %(id)s for update),
        taken as (
            update conversations c set next_send_at = due.next from due
            where c.id = due.id and due.next <= now() + make_interval(secs => %(interval)s * %(burst)s) returning 1)
        select extract(epoch from due.next - now()) - %(interval)s * %(burst)s, exists (select 1 from taken) from due
        """,
        {"id": conversation_id, "interval": rate.interval, "burst": rate.burst},
    ).fetchone()
    return 0.0 if row is None or row[1] else max(float(row[0]), 0.01)


def take_for_number(connection: Connection, phone_number_id: str, rate: Rate) -> float:
    """Reserve the next slot of a business number; returns the seconds until it (0.0 within the burst)."""
    row = connection.execute(
        """
        insert into send_rates (phone_number_id, next_send_at)
        values (%(phone)s, now() + make_interval(secs => %(interval)s))
        on conflict (phone_number_id) do update
            set next_send_at = greatest(now(), send_rates.next_send_at) + make_interval(secs => %(interval)s)
        returning extract(epoch from next_send_at - now()) - %(interval)s * %(burst)s
        """,
        {"phone": phone_number_id, "interval": rate.interval, "burst": rate.burst},
    ).fetchone()
    return max(float(row[0]), 0.0) if row is not None else 0.0
