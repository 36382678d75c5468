# SPDX-License-Identifier: GPL-3.0-or-later
"""Killed, set back in time, out of disk: no acknowledged message is lost, none is answered twice."""

from __future__ import annotations

import time

import httpx

from tests.integration.agent.containers import Service
from tests.integration.agent.stack import MESSAGE_LOG, Stack
from tests.integration.agent.traffic import Traffic, new_phone, post, text_message, webhook
from tests.integration.agent.waiting import eventually


def test_one_gunicorn_process_killed_under_load(stack: Stack, traffic: Traffic) -> None:
    """The others go on; the master starts another one."""
    stop = traffic.until_stopped(people=4, pause=0.05)
    try:
        for _ in range(5):
            children = sorted(
                pid for pid, line in stack.app.process_ids().items() if "gunicorn" in line or "serve" in line
            )
            stack.app.run(["python3", "-c", _KILL_A_WORKER])
            eventually(lambda c=children: sorted(stack.app.process_ids()) != c, "another process")  # type: ignore[misc]
            time.sleep(0.5)  # load between two kills
    finally:
        stop()
    assert traffic.verify()["not_200"] == 0


# Kills the newest process that has the container's gunicorn master as its parent.
_KILL_A_WORKER = """
import os, pathlib, signal
def parent(pid): return int(pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
pids = [int(p.name) for p in pathlib.Path("/proc").iterdir() if p.name.isdigit() and int(p.name) != os.getpid()]
parents = {pid: parent(pid) for pid in pids}
children = [pid for pid in pids if parents.get(parents[pid]) == 1 and parents[pid] != 1]
os.kill(max(children), signal.SIGKILL)
"""


def test_a_database_set_back_to_an_older_copy_catches_up_and_answers_nothing_twice(
    stack: Stack, traffic: Traffic
) -> None:
    traffic.conversations(people=3, each=3)
    traffic.verify()
    older = stack.session.volume("pgdata-older")
    stack.postgres.stop()
    stack.copy_volume(stack.pgdata, older)
    stack.postgres.start()
    stack.wait_for_database()
    # Answered after the copy: the older database knows nothing of these and must not answer them again.
    traffic.conversations(people=4, each=4)
    traffic.verify()
    # Accepted after the copy, not yet answered: these must still be.
    stack.worker.kill()
    traffic.conversations(people=2, each=3)
    stack.replace_database_volume(older)
    traffic.conversations(people=1, each=2)
    stack.worker.start()
    counts = traffic.verify(limit=90)
    status = stack.replay_status()
    assert status["lag"] == 0, status
    assert counts["acknowledged"] == 9 + 16 + 6 + 2


def test_a_delivery_repeated_after_everything_was_restarted_changes_nothing(stack: Stack, traffic: Traffic) -> None:
    message = text_message(new_phone(), "uma vez só")
    assert post(stack, webhook([message])).status_code == 200
    eventually(lambda: [s for s in stack.sends() if s["to"] == message["from"]], "the answer")
    for service in (stack.app, stack.worker, stack.redis, stack.postgres):
        service.kill()
        service.start()
    stack.wait_until_ready()
    assert post(stack, webhook([message])).status_code == 200
    traffic.conversations(people=2, each=2)
    traffic.verify()
    assert len([s for s in stack.sends() if s["to"] == message["from"]]) == 1


def test_a_full_disk_is_503_and_recovers_by_itself(stack: Stack) -> None:
    """On a message log of 12 MB of its own, with an app, a worker and a database of their own."""
    small = stack.session.volume(
        "message-log-small", {"type": "tmpfs", "device": "tmpfs", "o": "size=12m,uid=64010,gid=64000,mode=0750"}
    )
    stack.superuser_sql("create database small owner whats_agent")
    stack.migrate({"DB_NAME": "small"})
    app = stack.agent_service("app_small", "serve", {"DB_NAME": "small"}, small)
    worker = stack.agent_service("worker_small", "worker", {"DB_NAME": "small"}, small)
    try:
        app.start()
        worker.start()
        eventually(lambda: _accepts_connections(stack, "app_small"), "the small app", 60)
        _fill_and_free(stack, app)
    finally:
        stack.session.discard(app)
        stack.session.discard(worker)


def _fill_and_free(stack: Stack, app: Service) -> None:
    acknowledged: list[str] = []

    def deliver(text: str) -> int:
        message = text_message(new_phone(), text)
        status = post(stack, webhook([message]), app="app_small").status_code
        if status == 200:
            acknowledged.append(message["id"])
        return status

    assert deliver("antes") == 200
    filler = f"{MESSAGE_LOG}/filler"
    app.run(
        [
            "python3",
            "-c",
            f"f = open({filler!r}, 'wb', buffering=0)\ntry:\n  while f.write(bytes(4096)): pass\nexcept OSError: pass",
        ]
    )
    statuses = [deliver("x" * 4000) for _ in range(40)]
    assert set(statuses) <= {200, 503}, statuses
    assert statuses[-10:] == [503] * 10, statuses
    app.run(["rm", filler])
    eventually(lambda: deliver("depois") == 200, "the app to accept again by itself", 15)
    assert [deliver("mais") for _ in range(5)] == [200] * 5
    eventually(
        lambda: (
            {row["wamid"] for row in stack.sql("select wamid from messages", database="small")} == set(acknowledged)
        ),
        "exactly what was acknowledged to be stored",
    )
    check = (
        f"import sqlite3; log = sqlite3.connect('file:{MESSAGE_LOG}/messages.sqlite3?mode=ro', uri=True); "
        "print(log.execute('pragma integrity_check').fetchone()[0])"
    )
    assert app.run(["python3", "-c", check]).strip() == "ok"
    print(f"counts: acknowledged {len(acknowledged)}, refused with 503 {statuses.count(503)}, lost 0")


def _accepts_connections(stack: Stack, name: str) -> bool:
    try:
        return stack.http(name).get("/health").status_code in (200, 503)
    except httpx.HTTPError:
        return False
