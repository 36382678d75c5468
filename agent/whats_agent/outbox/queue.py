# SPDX-License-Identifier: GPL-3.0-or-later
"""Taking rows from the outbox. One in flight per conversation, the order of the questions kept."""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID, uuid4

from whats_agent.database.connection import Connection


@dataclass(frozen=True, slots=True)
class Claim:
    """A row that this sender holds until its lease ends."""

    id: UUID
    lease: str
    conversation_id: int
    message_id: int
    phone_number_id: str
    inbound_wamid: str
    kind: str
    reply_text: str | None
    reply_source: str | None
    attempts: int
    received_at: datetime
    wa_id: str | None
    user_id: str | None


_CLAIM = """
    update outbox set state = 'leased', lease_owner = %(lease)s, lease_until = now() + make_interval(secs => %(seconds)s),
        updated_at = now()
    from conversations c
    where c.id = outbox.conversation_id and outbox.id = (
        select o.id from outbox o
        where o.state = 'queued' and o.next_attempt_at <= now()
            and not exists (
                select 1 from outbox earlier
                where earlier.conversation_id = o.conversation_id and earlier.seq < o.seq
                    and earlier.state in ('queued', 'leased', 'sending', 'unknown'))
        order by o.seq
        limit 1
        for update skip locked)
    returning outbox.id, outbox.conversation_id, outbox.message_id, outbox.phone_number_id, outbox.inbound_wamid, outbox.kind,
        outbox.reply_text, outbox.reply_source, outbox.attempts, outbox.received_at, c.wa_id, c.user_id, outbox.expires_at <= now()
"""


def claim(connection: Connection, lease_seconds: float) -> Claim | None:
    """Lease the oldest row that may go now, or None. Rows past Meta's window are closed as ``expired`` on the way."""
    while True:
        lease = uuid4().hex
        row = connection.execute(_CLAIM, {"lease": lease, "seconds": lease_seconds}).fetchone()
        if row is None:
            return None
        *values, expired = row
        if not expired:
            return Claim(values[0], lease, *values[1:])
        close(connection, values[0], lease, "expired", "Meta's window for a free-form answer is over")


def close(connection: Connection, row_id: UUID, lease: str, state: str, reason: str) -> None:
    """End a leased row without sending: ``expired``, ``failed`` or ``cancelled``."""
    connection.execute(
        """
        update outbox set state = %s, error = %s, lease_owner = null, lease_until = null, updated_at = now()
        where id = %s and lease_owner = %s and state = 'leased'
        """,
        (state, reason, row_id, lease),
    )


def give_back(connection: Connection, row_id: UUID, lease: str, delay: float) -> None:
    """Return a leased row to the queue untried, not to be taken for ``delay`` seconds."""
    connection.execute(
        """
        update outbox set state = 'queued', lease_owner = null, lease_until = null, updated_at = now(),
            next_attempt_at = now() + make_interval(secs => %s)
        where id = %s and lease_owner = %s and state = 'leased'
        """,
        (delay, row_id, lease),
    )


@dataclass(frozen=True, slots=True)
class Reply:
    """What is to be sent: the text, where it came from (``openai``, ``fallback``, ``polite``…) and what it cost in tokens."""

    text: str
    source: str
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    model: str | None = None


def keep_reply(connection: Connection, claimed: Claim, reply: Reply) -> bool:
    """Store the answer before it is sent, so that a repeat sends the same words. False when the lease was lost."""
    return (
        connection.execute(
            """
            update outbox set reply_text = %s, reply_source = %s, prompt_tokens = %s, completion_tokens = %s, model = %s,
                updated_at = now()
            where id = %s and lease_owner = %s and state = 'leased'
            """,
            (
                reply.text,
                reply.source,
                reply.prompt_tokens,
                reply.completion_tokens,
                reply.model,
                claimed.id,
                claimed.lease,
            ),
        ).rowcount
        == 1
    )


def start_sending(connection: Connection, claimed: Claim, seconds: float) -> bool:
    """Mark the attempt as begun; the row now counts as possibly sent. False when the lease was lost meanwhile."""
    return (
        connection.execute(
            """
            update outbox set state = 'sending', attempts = attempts + 1, updated_at = now(),
                lease_until = now() + make_interval(secs => %s)
            where id = %s and lease_owner = %s and state = 'leased' and attempts = %s
            """,
            (seconds, claimed.id, claimed.lease, claimed.attempts),
        ).rowcount
        == 1
    )


def totals(connection: Connection) -> dict[str, int]:
    """How many rows wait (``queued``) and how many are being worked on or awaited (``in_flight``)."""
    row = connection.execute(
        """
        select count(*) filter (where state = 'queued'), count(*) filter (where state in ('leased', 'sending', 'unknown'))
        from outbox where state in ('queued', 'leased', 'sending', 'unknown')
        """
    ).fetchone()
    assert row is not None  # noqa: S101 - an aggregate always has its row
    return {"queued": int(row[0]), "in_flight": int(row[1])}
