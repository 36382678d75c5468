# SPDX-License-Identifier: GPL-3.0-or-later
"""Remedies for sessions and processes: those that block, those that are too many, those that stand still or are missing."""

from __future__ import annotations

import signal
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from . import postgres_processes, postgres_receiver
from .clock import SYSTEM_CLOCK
from .errors import WhatsAgentError
from .postgres_backup import DEFAULT_KEEP_FULL
from .postgres_causes import DEFAULT_LIMITS, Limits, is_stuck
from .postgres_host import database
from .postgres_server import BLOCKERS, rows

if TYPE_CHECKING:
    from .postgres_backrest import Backrest

RECEIVER_DEADLINE_S = 20.0
RECEIVER_DEATHS = 3  # after so many it is not waited for any longer
KEEP_FREE = 0.2  # share of the connections that are to be free afterwards
TOO_MANY_CONNECTIONS = "53300"

_SPARE_SESSIONS = """
select pid, coalesce(nullif(application_name, ''), usename, '') as who
from pg_stat_activity
where backend_type = 'client backend' and pid <> pg_backend_pid() and state like 'idle%%'
order by count(*) over (partition by usename, client_addr, application_name) desc, state_change
limit greatest(0, (select count(*) from pg_stat_activity where backend_type = 'client backend')
                  - (current_setting('max_connections')::int * (1 - %(free)s::float8))::int)
"""


@dataclass(frozen=True)
class Order:
    """How a remedy is to go about: whether to change anything, from where on something is too much, full backups to keep.

    `indexes` are found wrong by other means than their pages, and rebuilt whatever those say.
    """

    write: bool
    limits: Limits = DEFAULT_LIMITS
    keep_full: int = DEFAULT_KEEP_FULL
    indexes: tuple[str, ...] = ()


def mend_blockers(backrest: Backrest, order: Order) -> list[str]:
    """End the sessions that hold a transaction open, do nothing, and block others."""
    with database(backrest.place, "postgres") as admin:
        found = [b for b in rows(admin.execute(BLOCKERS)) if is_stuck(b, order.limits)]
        if order.write:
            _terminate(admin, [b["pid"] for b in found])
    return [f"ended the idle session {b['pid']} of {b['application'] or b['user']}" for b in found]


def mend_connections(backrest: Backrest, order: Order) -> list[str]:
    """End idle sessions, those of who holds most and of these the longest idle first, until a fifth of the connections is free.

    Where not even the superuser gets in any more, idle backends are ended by the same signal from outside.
    """
    try:
        with database(backrest.place, "postgres") as admin:
            found = admin.execute(_SPARE_SESSIONS, {"free": KEEP_FREE}).fetchall()
            if order.write:
                _terminate(admin, [pid for pid, _who in found])
            return [f"ended the idle session {pid} of {who}" for pid, who in found]
    except WhatsAgentError as error:
        if error.details.get("sqlstate") != TOO_MANY_CONNECTIONS and "too many clients" not in error.message:
            raise
    container = backrest.docker.require_running(backrest.place.project, backrest.place.service)
    processes = postgres_processes.processes_of(backrest.docker.main_process(container.id))
    spare = postgres_processes.idle(processes)
    ended = spare[: max(1, int(len(spare) * KEEP_FREE))]
    if not ended:
        raise WhatsAgentError(
            "all connections are taken, and none of them is idle",
            pt="todas as conexões estão ocupadas, e nenhuma está ociosa",
        )
    if order.write:
        postgres_processes.send(ended, signal.SIGTERM)
    return [f"ended the idle backend {process.describe()}" for process in ended]


def _terminate(admin: Any, pids: list[int]) -> None:
    for pid in pids:
        admin.execute("select pg_terminate_backend(%s, 5000)", (pid,))


def mend_processes(backrest: Backrest, order: Order) -> list[str]:
    """Let processes go on that a signal has stopped."""
    container = backrest.docker.require_running(backrest.place.project, backrest.place.service)
    found = postgres_processes.stopped(postgres_processes.processes_of(backrest.docker.main_process(container.id)))
    if order.write:
        postgres_processes.send(found, signal.SIGCONT)
    return [f"let the process {process.describe()} go on" for process in found]


def mend_receiver(backrest: Backrest, order: Order) -> list[str]:
    """Bring the WAL receiver back; where commits wait for it and it does not come, let them go without it.

    Where they go without it already, have them wait again as soon as it is back. That it does not come is an error there, and where
    none ever wait for it (`async`).
    """
    done = ["started the WAL receiver"]
    if not order.write:
        return done
    failure = ""
    try:
        backrest.compose.start(postgres_receiver.SERVICE)
        _restart_if_dying(backrest)
    except WhatsAgentError as error:
        failure = error.message
    with database(backrest.place, "postgres") as admin:
        (bypassed,) = admin.execute(
            "select exists (select from pg_file_settings where name = 'synchronous_standby_names' and setting = '' "
            "and sourcefile like '%/postgresql.auto.conf')"
        ).fetchone()
        back = not failure and _receiver_is_back(backrest, admin)
        (waited_for,) = admin.execute("select current_setting('synchronous_standby_names') <> ''").fetchone()
        if not back and not waited_for:
            raise WhatsAgentError(
                f"the WAL receiver does not come back: {failure or 'it does not connect'}",
                pt=f"o receptor de WAL não volta: {failure or 'ele não conecta'}",
            )
        if bypassed:
            admin.execute("alter system reset synchronous_standby_names")
            done.append("had commits wait for it again")
        elif not back:
            # No time-out frees a commit that waits: only the setting does.
            admin.execute("alter system set synchronous_standby_names = ''")
            done = ["let commits go on without the WAL receiver, which does not come back, and stopped it"]
        admin.execute("select pg_reload_conf()")
    if not back:
        # Else the engine starts it in vain for ever; the next run, which finds commits going on without it, does.
        backrest.compose.stop(postgres_receiver.SERVICE, timeout_s=10)
    return done


def _restart_if_dying(backrest: Backrest) -> None:
    """Start a receiver anew that has died by itself: the engine waits up to a minute between its own attempts."""
    container = backrest.docker.container(backrest.place.project, postgres_receiver.SERVICE)
    if container is not None and container.restart_count > 0:
        backrest.docker.restart(container.id, grace=10)


def _receiver_is_back(backrest: Backrest, admin: Any) -> bool:
    """Wait until the receiver streams; tell whether it does. One that dies again and again is not waited for."""
    deadline = SYSTEM_CLOCK.boottime() + RECEIVER_DEADLINE_S
    first = backrest.docker.container(backrest.place.project, postgres_receiver.SERVICE)
    while SYSTEM_CLOCK.boottime() < deadline:
        (streaming,) = admin.execute(
            "select exists (select from pg_stat_replication where application_name = 'whats_agent_receiver' "
            "and state = 'streaming')"
        ).fetchone()
        if streaming:
            return True
        container = backrest.docker.container(backrest.place.project, postgres_receiver.SERVICE)
        if first is None or container is None or container.restart_count - first.restart_count >= RECEIVER_DEATHS:
            return False
        SYSTEM_CLOCK.sleep(0.5)
    return False
