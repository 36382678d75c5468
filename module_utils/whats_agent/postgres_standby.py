# SPDX-License-Identifier: GPL-3.0-or-later
"""Wait for a restored server: until it opens as a standby, until it has replayed all there is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from . import pgbackrest
from .clock import SYSTEM_CLOCK, Clock
from .errors import WhatsAgentError
from .postgres_host import DatabasePlace, connect
from .postgres_observe import read_signs
from .postgres_wal import reached

if TYPE_CHECKING:
    from .docker_host import DockerHost
    from .journal import Progress
    from .lock import Heart, Idle

START_DEADLINE_S = 900.0  # a standby opens once it is consistent; it may have much to replay until then
POLL_S = 0.1
WAITING = "RecoveryRetrieveRetryInterval"
# What keeps a server from starting whatever backup it stands on.
NOT_THE_BACKUP = frozenset(["bad_configuration", "disk_full", "lock_file"])

_POSITION = """
select pg_is_in_recovery(), coalesce(pg_last_wal_replay_lsn()::text, '0/0'),
  pg_is_in_recovery() and pg_get_wal_replay_pause_state() = 'paused',
  (select wait_event from pg_stat_activity where backend_type = 'startup')
"""


class UnsoundBackupError(WhatsAgentError):
    """A backup turned out not to be restorable, or not sound: another one has to be tried."""


class UnsoundServiceError(WhatsAgentError):
    """What was restored serves already and turned out not to be sound: no rerun of its checks mends that."""


class UnsoundContentError(UnsoundBackupError):
    """What was restored breaks a promise of its content: the backup's fault only if another one turns out to keep it."""


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
                raise WhatsAgentError(
                    "the postgres container was removed while it started; run this again",
                    pt="o contêiner postgres foi removido enquanto iniciava; execute de novo",
                ) from error
            if container.status in ("exited", "dead", "restarting") or container.restart_count > 0:
                words = docker.logs(container.id, tail=8).strip()
                raise death(words) from error
            if clock.boottime() > deadline:
                reason = " ".join(str(error).split())
                raise WhatsAgentError(
                    f"PostgreSQL did not open within {START_DEADLINE_S:.0f} s: {reason}",
                    pt=f"o PostgreSQL não abriu em {START_DEADLINE_S:.0f} s: {reason}",
                ) from error
            clock.sleep(POLL_S)
        else:
            return


def death(words: str) -> WhatsAgentError:
    """Tell from a server's last words whether it died of its data or of something that no other backup mends."""
    last = words.splitlines()[-1] if words else "it said nothing"
    if any(sign.sign in NOT_THE_BACKUP for sign in read_signs(words, None)):
        return WhatsAgentError(
            f"PostgreSQL does not start, and not because of its data: {last}",
            pt=f"o PostgreSQL não inicia, e não por causa dos dados: {last}",
            log=words,
        )
    return UnsoundBackupError(
        f"PostgreSQL does not start on what was restored: {last}",
        pt=f"o PostgreSQL não inicia com o que foi restaurado: {last}",
        log=words,
    )


def follow_replay(
    admin: Any,
    end: int | None,
    newest: str | None,
    *,
    stall_s: float,
    target_time: str | None = None,
    progress: Progress,
    heart: Heart | Idle,
    clock: Clock = SYSTEM_CLOCK,
) -> int:
    """Follow a standby's replay to where it must come, or until it stands still; return the position.

    `end` is the LSN to reach, where it is known; `newest` the newest archived segment. That the server waits for WAL
    proves nothing by itself: it waits as well at a hole, and for a moment whenever fetching a segment fails. So short of
    the goal only a long standstill ends the wait. At `target_time` the server pauses by itself; one that never pauses has
    no commit after that time, and that is an error which names the last one.
    """
    position, since, first = -1, clock.boottime(), 0
    while True:
        heart.check()
        standby, lsn, paused, waits = admin.execute(_POSITION).fetchone()
        if not standby:
            raise WhatsAgentError(
                "the restored server is no standby any more: somebody else has promoted it",
                pt="o servidor restaurado não é mais standby: outra pessoa o promoveu",
            )
        now = clock.boottime()
        current = pgbackrest.lsn_value(lsn)
        if current != position:
            position, since = current, now
        first = first or position
        goal = end or (pgbackrest.segment_start(newest) if newest else 0)
        if goal:
            progress.update(max(0, min(position, goal) - first), max(1, goal - first))
        if paused or (end is not None and position >= end):
            return position
        if target_time is None and waits == WAITING and end is None and reached(position, None, newest):
            return position
        if now - since > stall_s:
            if target_time is not None:
                (last,) = admin.execute("select pg_last_xact_replay_timestamp()::text").fetchone()
                raise WhatsAgentError(
                    f"{target_time} lies after the last commit that can be had ({last})",
                    pt=f"{target_time} é posterior ao último commit que se pode obter ({last})",
                    latest=last,
                )
            return position
        clock.sleep(POLL_S)
