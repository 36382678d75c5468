# SPDX-License-Identifier: GPL-3.0-or-later
"""Moving outbox rows on: what the sender does at once, and what the projection does again when it reads the log.

Each statement is idempotent and only moves a row forward, so it does not matter which of the two comes first or whether a
restore made one of them happen twice. An attempt is applied when it is newer than what the row knows; its result when the row is
still at that attempt; success always.
"""

from collections.abc import Mapping
from datetime import datetime
from uuid import UUID

from whats_agent.database.connection import Connection
from whats_agent.graph.outcome import RETRY_CODES
from whats_agent.outbox.records import Outcome, SendAttempt, SendResult
from whats_agent.whatsapp.items import StatusUpdate

MAX_FAILED_DELIVERIES = 8
# Later in this list wins; a failure counts only while nothing better is known.
_DELIVERIES = ["sent", "delivered", "read", "played"]


def apply_attempt(connection: Connection, attempt: SendAttempt, echo_wait: float) -> None:
    """A send began. Does nothing when the row already knows of it, which is so unless the database was restored."""
    connection.execute(
        """
        update outbox set attempts = %(attempt)s, state = 'unknown', reply_text = %(text)s, reply_source = %(source)s,
            lease_owner = null, lease_until = now() + make_interval(secs => %(wait)s), updated_at = now()
        where id = %(id)s and attempts < %(attempt)s and state in ('queued', 'leased', 'sending', 'unknown')
        """,
        {
            "id": attempt.outbox_id,
            "attempt": attempt.attempt,
            "text": attempt.text,
            "source": attempt.source,
            "wait": echo_wait,
        },
    )


def apply_result(connection: Connection, result: SendResult, at: datetime, echo_wait: float) -> None:
    """A send ended at ``at`` with ``result``."""
    values = {
        "id": result.outbox_id,
        "attempt": result.attempt,
        "wamid": result.wamid,
        "code": result.error_code,
        "error": result.error,
        "at": at,
        "delay": result.delay,
        "wait": echo_wait,
    }
    if result.outcome is Outcome.SENT:
        connection.execute(
            """
            update outbox set state = 'sent', wamid = %(wamid)s, sent_at = %(at)s, attempts = greatest(attempts, %(attempt)s),
                lease_owner = null, lease_until = null, error = null, error_code = null, updated_at = now()
            where id = %(id)s and state <> 'sent' and not (state = 'failed' and wamid is not distinct from %(wamid)s)
            """,
            values,
        )
    elif result.outcome is Outcome.FAILED:
        connection.execute(
            """
            update outbox set state = 'failed', error = %(error)s, error_code = %(code)s, lease_owner = null, lease_until = null,
                updated_at = now()
            where id = %(id)s and attempts <= %(attempt)s and state in ('queued', 'leased', 'sending', 'unknown')
            """,
            values,
        )
    elif result.outcome is Outcome.UNKNOWN:
        connection.execute(
            """
            update outbox set state = 'unknown', error = %(error)s, error_code = %(code)s, lease_owner = null,
                lease_until = now() + make_interval(secs => %(wait)s), updated_at = now()
            where id = %(id)s and attempts = %(attempt)s and state = 'sending'
            """,
            values,
        )
    else:
        connection.execute(
            """
            update outbox set state = 'queued', error = %(error)s, error_code = %(code)s, lease_owner = null, lease_until = null,
                next_attempt_at = %(at)s + make_interval(secs => %(delay)s), updated_at = now()
            where id = %(id)s and attempts = %(attempt)s and state in ('sending', 'unknown')
            """,
            values,
        )


def apply_status(connection: Connection, status: StatusUpdate, own_id: UUID | None, at: datetime) -> None:
    """Meta told what became of a message; ``own_id`` is the outbox id it carried, when it carried one.

    A status is also proof of acceptance: it closes a send whose own answer was lost.
    """
    values = {
        "id": own_id,
        "phone": status.phone_number_id,
        "wamid": status.wamid,
        "status": status.status,
        "at": at,
        "ranks": _DELIVERIES,
        "code": status.error_codes[0] if status.error_codes else None,
    }
    if status.status in _DELIVERIES:
        connection.execute(
            """
            update outbox set state = 'sent', wamid = coalesce(wamid, %(wamid)s), sent_at = coalesce(sent_at, %(at)s),
                lease_owner = null, lease_until = null, error = null, error_code = null, updated_at = now(),
                delivery = case
                    when coalesce(array_position(%(ranks)s::text[], delivery), 0)
                        < array_position(%(ranks)s::text[], %(status)s::text) then %(status)s else delivery end
            where (id = %(id)s or (%(id)s::uuid is null and wamid = %(wamid)s and phone_number_id = %(phone)s))
                and (wamid is null or wamid = %(wamid)s)
            """,
            values,
        )
    elif status.status == "failed" and not _send_again(connection, values):
        connection.execute(
            """
            update outbox set state = 'failed', delivery = 'failed', wamid = coalesce(wamid, %(wamid)s), error_code = %(code)s,
                error = 'Meta reported the message as failed', lease_owner = null, lease_until = null, updated_at = now()
            where (id = %(id)s or (%(id)s::uuid is null and wamid = %(wamid)s and phone_number_id = %(phone)s))
                and (wamid is null or wamid = %(wamid)s)
                and coalesce(delivery, 'sent') = 'sent'
            """,
            values,
        )


def _send_again(connection: Connection, values: Mapping[str, object]) -> bool:
    """A message that Meta took and then gave up on for a passing reason goes back into the queue; whether it did."""
    if values["code"] not in RETRY_CODES:
        return False
    return (
        connection.execute(
            """
            update outbox set state = 'queued', wamid = null, delivery = null, sent_at = null, lease_owner = null,
                lease_until = null, error_code = %(code)s, error = 'Meta reported the message as failed', updated_at = now(),
                next_attempt_at = now() + make_interval(secs => least(4 ^ least(attempts, 6), 300))
            where (id = %(id)s or (%(id)s::uuid is null and wamid = %(wamid)s and phone_number_id = %(phone)s))
                and (wamid is null or wamid = %(wamid)s)
                and coalesce(delivery, 'sent') = 'sent' and state in ('sending', 'unknown', 'sent') and attempts < %(most)s
            """,
            {**values, "most": MAX_FAILED_DELIVERIES},
        ).rowcount
        > 0
    )


def release_expired(connection: Connection, *, echoes_due: bool) -> int:
    """Give back rows whose time is over: a preparation nobody finished and, if ``echoes_due``, a send whose status never came.

    To be called only by the projection and only when it has read the log to its end: until then the missing result or status may
    simply not have been read yet. Returns how many rows went back into the queue.
    """
    return connection.execute(
        """
        update outbox set state = 'queued', lease_owner = null, lease_until = null, next_attempt_at = now(), updated_at = now()
        where state = any(%s) and lease_until < now()
        """,
        (["leased", "sending", "unknown"] if echoes_due else ["leased"],),
    ).rowcount
