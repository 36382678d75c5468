# SPDX-License-Identifier: GPL-3.0-or-later
"""Every alert that the outside can cause: raised with its evidence and runbook, cleared once mended, both told in the history.

On an app, a worker, a PostgreSQL and a small disk of their own. What needs five minutes of traffic (response time, error rate,
refused calls) or a calendar (the Graph version) is tried with a clock of its own in the unit tests.
"""

from __future__ import annotations

import json
import secrets
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.integration.agent.containers import Service, Spec
from tests.integration.agent.stack import LOGS, MESSAGE_LOG, Stack
from tests.integration.agent.traffic import encode, new_phone, post, signed_headers, text_message, webhook
from tests.integration.agent.waiting import eventually

LIMIT_S = 120.0
SETTINGS = {
    "DB_HOST": "postgres_watched",
    "ALERT_ROUND_SECONDS": "1",
    "WORKER_STALE_SECONDS": "15",
    "BREAKER_FAILURES": "1",
    "CERTIFICATE_ADDRESS": "tls:8443",
}
ARCHIVE = ["-c", "archive_mode=on", "-c", "archive_timeout=5", "-c", "archive_command=test -e /tmp/archive_works"]
_SERVE_TLS = """
import socket, ssl
listener = socket.create_server(("0.0.0.0", 8443))
while True:
    connection, _ = listener.accept()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain("/tls/cert.pem", "/tls/key.pem")
    try:
        context.wrap_socket(connection, server_side=True).close()
    except OSError as error:
        print(error, flush=True)
"""


def make_certificate(folder: Path, days: int) -> None:
    """A self-signed certificate of so many days, in the place of the one before."""
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=tls", "-days", str(days)]
    files = ["-keyout", str(folder / "key.pem"), "-out", str(folder / "cert.pem")]
    subprocess.run([*command, *files], check=True, capture_output=True)
    (folder / "key.pem").chmod(0o644)


class Watched:
    """An agent with everything that its alerts look at; each ``break_…`` has its ``mend_…``."""

    def __init__(self, stack: Stack, tls: Path) -> None:
        self.stack = stack
        self._tls = tls
        session, own = stack.session, secrets.token_hex(3)
        disk = session.volume(
            f"message-log-{own}", {"type": "tmpfs", "device": "tmpfs", "o": "size=64m,uid=64010,gid=64000,mode=0750"}
        )
        data = session.volume(f"pgdata-{own}")
        stack.initialise_database(data)
        self.postgres = session.service(stack.postgres_spec(data, name="postgres_watched", arguments=ARCHIVE))
        self.tls = session.service(
            Spec(
                "tls",
                stack.images.doubles,
                ["-c", _SERVE_TLS],
                read_only_paths={str(tls): "/tls"},
                entrypoint=["python3"],
            )
        )
        self.app = stack.agent_service("app_watched", "serve", SETTINGS, disk)
        self.worker = stack.agent_service("worker_watched", "worker", SETTINGS, disk)
        self._told_before = 0
        self._services: list[Service] = [self.postgres, self.tls, self.app, self.worker]

    def start(self) -> None:
        make_certificate(self._tls, 60)
        self.postgres.start()
        self.tls.start()
        eventually(self._database_answers, "the watched PostgreSQL", LIMIT_S)
        self.postgres.run(["touch", "/tmp/archive_works"])  # noqa: S108 - in its container
        self.stack.migrate(SETTINGS)
        self.app.start()
        self.worker.start()
        self._backup(hours=1)
        eventually(self._accepts, "the watched app", LIMIT_S)
        # The first rounds may still see the worker on its way up.
        eventually(lambda: self.alerts() == {} and self._seen_by_the_worker(), "all to be well", LIMIT_S)
        self._told_before = len(self._history_lines())

    def _database_answers(self) -> bool:
        return self.postgres.container.exec_run(["pg_isready", "--quiet"]).exit_code == 0

    def _accepts(self) -> bool:
        try:
            return self.stack.http("app_watched").get("/health").status_code == 200
        except httpx.HTTPError:
            return False

    def _seen_by_the_worker(self) -> bool:
        health = self.stack.http("app_watched").get("/health").json()
        return str(health["parts"]["worker"]["state"]) == "up"

    def discard(self) -> None:
        for service in self._services:
            self.stack.session.discard(service)

    # What is seen.

    def alerts(self) -> dict[str, dict[str, Any]]:
        shown = self.stack.http("app_watched").get("/production/alerts/active").raise_for_status().json()
        return {alert["name"]: alert for alert in shown["alerts"]}

    def history(self, event: str) -> list[str]:
        """The names of the alerts that the history tells this of since all was well."""
        lines = self._history_lines()[self._told_before :]
        told = [dict(part.split("=", 1) for part in line.split() if "=" in part) for line in lines]
        return [line["alert"] for line in told if line.get("event") == event]

    def _history_lines(self) -> list[str]:
        # Touched first: until the first alert there is no such file.
        return self.app.run(
            ["sh", "-c", f"touch {LOGS}/alerts/alerts.log && cat {LOGS}/alerts/alerts.log"]
        ).splitlines()

    # What is done to it.

    def deliver(self, body: Any) -> None:
        assert post(self.stack, body, app="app_watched").status_code == 200

    def sql(self, statement: str) -> None:
        self.postgres.run(["psql", "-XAtq", "-v", "ON_ERROR_STOP=1", "-d", "whats_agent", "-c", statement])

    def _backup(self, hours: float) -> None:
        at = (datetime.now(UTC) - timedelta(hours=hours)).isoformat()
        script = (
            f"import pathlib; p = pathlib.Path({LOGS!r}, 'status', 'backup.json'); p.parent.mkdir(exist_ok=True); "
            f"p.write_text({json.dumps({'last_proven_at': at})!r})"
        )
        self.app.run(["python3", "-c", script])

    def break_everything(self) -> None:
        stack = self.stack
        stack.redis.kill()
        stack.fail("graph_double", "token_expired")
        stack.fail("openai_double", "bad_key")
        self.postgres.run(["rm", "/tmp/archive_works"])  # noqa: S108 - in its container
        self._backup(hours=27)
        make_certificate(self._tls, 2)
        filler = f"{MESSAGE_LOG}/filler"
        self.app.run(["python3", "-c", f"open({filler!r}, 'wb').write(bytes(58 * 2**20))"])
        self.deliver(webhook([text_message(new_phone(), "ninguém responde")]))
        self.deliver(b"not json")
        flagged = {"field": "phone_number_quality_update", "value": {"event": "FLAGGED", "current_limit": "TIER_50"}}
        self.deliver({"object": "whatsapp_business_account", "entry": [{"id": "1", "changes": [flagged]}]})
        eventually(lambda: self._queued() == 1, "the message to be queued", LIMIT_S)
        self.sql("update outbox set received_at = now() - interval '10 minutes'")
        self.sql("select pg_switch_wal()")

    def _queued(self) -> int:
        counted = self.postgres.run(["psql", "-XAtq", "-d", "whats_agent", "-c", "select count(*) from outbox"])
        return int(counted)

    def mend_everything(self) -> None:
        stack = self.stack
        stack.redis.start()
        stack.fail("graph_double", "off")
        stack.fail("openai_double", "off")
        self.postgres.run(["touch", "/tmp/archive_works"])  # noqa: S108 - in its container
        self._backup(hours=1)
        make_certificate(self._tls, 60)
        self.app.run(["rm", f"{MESSAGE_LOG}/filler"])
        # An hour and a day go by.
        self.sql("update unreadable_items set received_at = received_at - interval '2 hours'")
        self.sql("update account_events set received_at = received_at - interval '2 days'")
        # The breaker closes with the first call that goes well.
        self.deliver(webhook([text_message(new_phone(), "agora sim")]))
        # After failures the archiver rests for a minute, unless another segment wakes it.
        self.sql("select pg_switch_wal()")


EXPECTED = {
    # name: severity, runbook, a key of its evidence
    "redis_down": ("P2", "recover_redis.yml", "state"),
    "sender_stopped": ("P1", "recover_dependencies.yml", "reason"),
    "queue_age": ("P1", "recover_dependencies.yml", "oldest_seconds"),
    "openai_breaker_open": ("P2", "recover_dependencies.yml", None),
    "archive_late": ("P1", "recover_db.yml", "failed_segment"),
    "backup_late": ("P1", "backup.yml", "hours"),
    "certificate": ("P0", "recover_webhook.yml", "days_left"),
    "disk_low": ("P1", "reclaim_disk.yml", "free"),
    "unreadable_items": ("P2", "analyze_logs.yml", "last_hour"),
    "account_warning": ("P1", "recover_dependencies.yml", "events"),
}


@pytest.fixture
def watched(stack: Stack, tmp_path: Path) -> Iterator[Watched]:
    tls = tmp_path / "tls"
    tls.mkdir()
    tmp_path.chmod(0o755)
    made = Watched(stack, tls)
    try:
        made.start()
        yield made
    finally:
        made.discard()


def test_alerts_are_raised_and_cleared(watched: Watched) -> None:
    watched.break_everything()
    eventually(lambda: EXPECTED.keys() <= watched.alerts().keys(), "every alert to be raised", LIMIT_S, pause=0.5)
    raised = watched.alerts()
    for name, (severity, runbook, key) in EXPECTED.items():
        alert = raised[name]
        assert (alert["severity"], alert["runbook"]) == (severity, runbook), name
        assert alert["first_seen"] <= alert["last_seen"]
        assert alert["summary"]["en"]
        assert alert["summary"]["pt"]
        if key is not None:
            assert alert["evidence"][key] is not None, name
    assert raised.keys() == EXPECTED.keys(), "something else is said to be wrong"

    watched.mend_everything()
    eventually(lambda: watched.alerts() == {}, "every alert to be cleared", LIMIT_S, pause=0.5)
    assert sorted(watched.history("alert_raised")) == sorted(EXPECTED)
    assert sorted(watched.history("alert_cleared")) == sorted(EXPECTED)


def test_alerts_about_whole_parts(watched: Watched) -> None:
    """The message log itself: 503 while its disk is full. The worker and PostgreSQL: gone and back."""
    filler = f"{MESSAGE_LOG}/filler"
    watched.app.run(
        [
            "python3",
            "-c",
            f"f = open({filler!r}, 'wb', buffering=0)\ntry:\n  while f.write(bytes(4096)): pass\nexcept OSError: pass",
        ]
    )
    watched.worker.kill()
    watched.postgres.kill()
    expected = {"message_log_down": "P0", "disk_low": "P0", "worker_down": "P1", "postgres_down": "P0"}
    eventually(lambda: expected.keys() <= watched.alerts().keys(), "the alerts to be raised", LIMIT_S, pause=0.5)
    raised = watched.alerts()
    assert {name: raised[name]["severity"] for name in expected} == expected
    refused = encode(webhook([text_message(new_phone(), "agora não")]))
    answer = watched.stack.http("app_watched").post(
        "/webhook", content=refused, headers=signed_headers(watched.stack.app_secret, refused)
    )
    assert answer.status_code == 503

    watched.app.run(["rm", filler])
    watched.postgres.start()
    watched.worker.start()
    eventually(lambda: watched.alerts() == {}, "the alerts to be cleared", LIMIT_S, pause=0.5)
    assert set(watched.history("alert_raised")) >= expected.keys()
    assert sorted(watched.history("alert_cleared")) == sorted(watched.history("alert_raised"))
