# SPDX-License-Identifier: GPL-3.0-or-later
"""Which files are wanted, and what became of each. A row is made with its message, by the projection."""

from dataclasses import dataclass

from whats_agent.database.connection import Connection
from whats_agent.media.download import Fetched

MAX_ATTEMPTS = 6
# Nobody else takes a row for so long; a fetcher that died leaves it to the next.
LEASE_SECONDS = 180.0
ADVISORY_LOCK = 7_264_103


@dataclass(frozen=True, slots=True)
class Wanted:
    """One file to fetch; ``attempts`` counts this one too."""

    message_id: int
    media_id: str
    phone_number_id: str
    attempts: int


def want(connection: Connection, message_id: int, media_id: str) -> None:
    """Have the file of a message fetched."""
    connection.execute(
        "insert into media (message_id, media_id) values (%s, %s) on conflict do nothing", (message_id, media_id)
    )


def claim(connection: Connection) -> Wanted | None:
    """Take the oldest file that is due, or None."""
    row = connection.execute(
        """
        update media set attempts = attempts + 1, next_attempt_at = now() + make_interval(secs => %s)
        from messages m
        where m.id = media.message_id and media.message_id = (
            select message_id from media where state = 'wanted' and next_attempt_at <= now()
            order by next_attempt_at, message_id limit 1 for update skip locked)
        returning media.message_id, media.media_id, m.phone_number_id, media.attempts
        """,
        (LEASE_SECONDS,),
    ).fetchone()
    return Wanted(*row) if row is not None else None


def have_turn(connection: Connection) -> None:
    """Wait, until the transaction ends, for the only right to move files."""
    connection.execute("select pg_advisory_xact_lock(%s)", (ADVISORY_LOCK,))


def stored(connection: Connection, wanted: Wanted, fetched: Fetched) -> None:
    """The file is in the folder."""
    connection.execute(
        """
        update media set state = 'stored', mime_type = %s, sha256 = %s, bytes = %s, error = null, stored_at = now()
        where message_id = %s
        """,
        (fetched.mime_type, fetched.sha256, fetched.size, wanted.message_id),
    )


def failed(connection: Connection, wanted: Wanted, reason: str, *, retry: bool) -> None:
    """It was not to be had: try again later (1, 4, 16 … minutes, six times in all), or never."""
    again = retry and wanted.attempts < MAX_ATTEMPTS
    connection.execute(
        """
        update media set state = %s, error = %s, next_attempt_at = now() + make_interval(mins => (4 ^ (attempts - 1))::integer)
        where message_id = %s
        """,
        ("wanted" if again else "failed", reason[:300], wanted.message_id),
    )


def over_quota(connection: Connection, quota: int) -> list[str]:
    """Mark the oldest files as dropped until the rest fits into ``quota`` bytes; the digests that no row wants any more."""
    rows = connection.execute(
        """
        with files as (
            select sha256, max(bytes) as bytes, max(stored_at) as at from media where state = 'stored' group by sha256),
        kept as (select sha256, sum(bytes) over (order by at desc, sha256) as total from files)
        update media set state = 'dropped' from kept
        where media.sha256 = kept.sha256 and media.state = 'stored' and kept.total > %s
        returning media.sha256
        """,
        (quota,),
    ).fetchall()
    return sorted({str(row[0]) for row in rows})
