# SPDX-License-Identifier: GPL-3.0-or-later
"""Wait for a restored server: until it opens as a standby, until it has replayed all there is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import pgbackrest
from .clock import SYSTEM_CLOCK, Clock
from .errors import WhatsAgentError
from .postgres_host import DatabasePlace, connect
from .postgres_observe import read_signs

if TYPE_CHECKING:
    from .docker_host import DockerHost
    from .journal import Progress
    from .lock import Heart, Idle

START_DEADLINE_S = 900.0  # a standby opens once it is consistent; it may have much to replay until then
STALL_S = 20.0  # replay that stands still this long without saying that it waits has ended
POLL_S = 0.1
# What keeps a server from starting whatever backup it stands on.
NOT_THE_BACKUP = frozenset(["bad_configuration", "disk_full", "lock_file"])

_POSITION = """
select pg_is_in_recovery(), coalesce(pg_last_wal_replay_lsn()::text, '0/0'),
  pg_is_in_recovery() and pg_get_wal_replay_pause_state() = 'paused',
  (select wait_event from pg_stat_activity where backend_type = 'startup')
"""


class UnsoundBackupError(WhatsAgentError):
    """A backup turned out not to be restorable, or not sound: another one has to be tried."""


def wait_open(place: DatabasePlace, docker: DockerHost, heart: Heart | Idle, clock: Clock = SYSTEM_CLOCK) -> None:
    """Wait until the server takes connections. One that died on its data is an unsound backup, with its last words."""
    import psycopg

    deadline = clock.boottime() + START_DEADLINE_S
    while True:
        heart.check()
        try:
            connect(place, "postgres").close()
        except psycopg.OperationalError as error:
            container = docker.container(place.project, place.service)
            if container is None:
                raise WhatsAgentError("the postgres container was removed while it started; run this again") from error
            if container.status in ("exited", "dead", "restarting") or container.restart_count > 0:
                words = docker.logs(container.id, tail=8).strip()
                raise death(words) from error
            if clock.boottime() > deadline:
                reason = " ".join(str(error).split())
                raise WhatsAgentError(f"PostgreSQL did not open within {START_DEADLINE_S:.0f} s: {reason}") from error
            clock.sleep(POLL_S)
        else:
            return


def death(words: str) -> WhatsAgentError:
    """Tell from a server's last words whether it died of its data or of something that no other backup mends."""
    last = words.splitlines()[-1] if words else "it said nothing"
    if any(sign.sign in NOT_THE_BACKUP for sign in read_signs(words, None)):
        return WhatsAgentError(f"PostgreSQL does not start, and not because of its data: {last}", log=words)
    return UnsoundBackupError(f"PostgreSQL does not start on what was restored: {last}", log=words)


def follow_replay(
    place: DatabasePlace, end: int | None, progress: Progress, heart: Heart | Idle, clock: Clock = SYSTEM_CLOCK
) -> int:
    """Follow replay until `end`, until the server waits for WAL that is not there, or pauses at the wanted time.

    Returns the position. `end` and the position are LSNs as numbers.
    """
    with connect(place, "postgres") as admin:
        position, since, first = -1, clock.boottime(), 0
        while True:
            heart.check()
            standby, lsn, paused, waits = admin.execute(_POSITION).fetchone()
            if not standby:
                raise WhatsAgentError("the restored server is no standby any more: somebody else has promoted it")
            now = clock.boottime()
            current = pgbackrest.lsn_value(lsn)
            if current != position:
                position, since = current, now
            first = first or position
            if end:
                progress.update(max(0, position - first), max(1, end - first))
            if paused or (end and position >= end):
                return position
            if waits == "RecoveryRetrieveRetryInterval" or now - since > STALL_S:
                return position
            clock.sleep(POLL_S)
