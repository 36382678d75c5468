# SPDX-License-Identifier: GPL-3.0-or-later
"""Health and the operators' views, without any of the services behind them."""

import ipaddress
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from werkzeug.test import Client

from whats_agent import heartbeat
from whats_agent.addresses import client_address, contains, networks
from whats_agent.alerts.keeper import Keeper
from whats_agent.alerts.rules import Facts
from whats_agent.app import create_app
from whats_agent.views.health import check_message_log, check_worker

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment


@pytest.fixture
def client(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Client:
    """The application with neither PostgreSQL nor Redis to be reached."""
    monkeypatch.setenv("DB_HOST", "127.0.0.1")
    monkeypatch.setenv("DB_PORT", "9")
    monkeypatch.setenv("REDIS_URL", "redis://127.0.0.1:9/0")
    application = create_app()

    def from_this_host(environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        environ.setdefault("REMOTE_ADDR", "127.0.0.1")
        return application(environ, start_response)

    return Client(from_this_host)


def test_health_is_200_while_webhooks_can_be_accepted(client: Client, environment: dict[str, str]) -> None:
    heartbeat.write(
        Path(environment["MESSAGE_LOG_DIR"]), {"pid": 1, "projector": "running", "position": 5, "log_end": 5}
    )
    response = client.get("/health")
    assert response.status_code == 200
    body = response.get_json()
    assert body["status"] == "degraded"
    states = {name: part["state"] for name, part in body["parts"].items()}
    assert states == {"message_log": "up", "postgres": "down", "redis": "down", "worker": "up"}
    assert body["parts"]["worker"]["position"] == 5
    assert environment["DB_PASSWORD"] not in response.text


def test_health_is_503_when_the_log_cannot_be_written(client: Client, environment: dict[str, str]) -> None:
    Path(environment["MESSAGE_LOG_DIR"]).rename(environment["MESSAGE_LOG_DIR"] + ".gone")
    response = client.get("/health")
    assert response.status_code == 503
    assert response.get_json()["parts"]["message_log"] == {"state": "down", "reason": "No such file or directory"}


def test_probing_the_disk_leaves_nothing_behind(tmp_path: Path) -> None:
    assert check_message_log(tmp_path)["state"] == "up"
    assert list(tmp_path.iterdir()) == []


def test_a_worker_that_fell_silent_is_stale(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert check_worker(tmp_path, 30)["state"] == "down"
    heartbeat.write(tmp_path, {"pid": 1})
    assert check_worker(tmp_path, 30)["state"] == "up"
    assert check_worker(tmp_path, -1)["state"] == "stale"
    assert check_worker(tmp_path, -1)["workers"] == 0
    heartbeat.remove(tmp_path)
    assert heartbeat.read_all(tmp_path) == []


def test_performance_counts_what_was_asked(client: Client) -> None:
    for _ in range(5):
        client.get("/webhook")
    body = client.get("/production/metrics/performance").get_json()
    assert body["sla_metrics"]["response_time"]["count"] == 5
    assert body["sla_metrics"]["response_time"]["p95_ms"] > 0
    assert body["sla_metrics"]["error_rate"]["requests"] == 0
    assert body["sla_metrics"]["compliant"] is True


def test_business_without_its_database_says_so(client: Client) -> None:
    response = client.get("/production/metrics/business")
    assert (response.status_code, response.get_json()) == (503, {"error": "PostgreSQL does not answer"})


def test_alerts_are_shown_once_evaluated(client: Client, environment: dict[str, str]) -> None:
    assert client.get("/production/alerts/active").get_json() == {
        "evaluated_at": None,
        "stale": True,
        "count": 0,
        "alerts": [],
    }
    watching = Keeper(Path(environment["MESSAGE_LOG_DIR"]), lambda: Facts(redis_state="down", postgres_state="down"))
    watching.evaluate()
    watching.evaluate()
    body = client.get("/production/alerts/active").get_json()
    assert (body["count"], body["stale"]) == (2, False)
    assert [(alert["name"], alert["severity"], alert["runbook"]) for alert in body["alerts"]] == [
        ("postgres_down", "P0", "recover_db.yml"),
        ("redis_down", "P2", "recover_redis.yml"),
    ]


def test_metrics_page(client: Client) -> None:
    response = client.get("/metrics")
    assert response.status_code == 200
    assert "whats_agent_message_log_up 1.0" in response.text
    assert "whats_agent_postgres_up 0.0" in response.text


VIEWS = ["/production/metrics/performance", "/production/metrics/business", "/production/alerts/active", "/metrics"]


@pytest.mark.parametrize("path", VIEWS)
def test_views_are_closed_to_strangers(client: Client, path: str, caplog: pytest.LogCaptureFixture) -> None:
    response = client.get(path, environ_base={"REMOTE_ADDR": "203.0.113.9"})
    assert response.status_code == 403
    assert "event=view_refused" in caplog.text
    assert "address=203.0.113.9" in caplog.text
    forged = client.get(path, environ_base={"REMOTE_ADDR": "203.0.113.9"}, headers={"X-Forwarded-For": "127.0.0.1"})
    assert forged.status_code == 403


def test_every_answer_carries_the_security_headers(client: Client) -> None:
    for path in ("/health", "/nothing", "/webhook", "/metrics"):
        headers = client.get(path).headers
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Content-Security-Policy"].startswith("default-src 'none'")
        assert headers["Cache-Control"] == "no-store"


PROXIES = networks("172.18.0.0/16, fd00::/8")


@pytest.mark.parametrize(
    ("remote", "forwarded", "address"),
    [
        ("203.0.113.9", None, "203.0.113.9"),
        ("203.0.113.9", "1.2.3.4", "203.0.113.9"),
        ("172.18.0.5", None, "172.18.0.5"),
        ("172.18.0.5", "203.0.113.9", "203.0.113.9"),
        ("172.18.0.5", "127.0.0.1, 203.0.113.9", "203.0.113.9"),
        ("172.18.0.5", "203.0.113.9, 172.18.0.7", "203.0.113.9"),
        ("172.18.0.5", "nonsense", "172.18.0.5"),
        ("172.18.0.5", "203.0.113.9, <script>", "172.18.0.5"),
        ("172.18.0.5", "2001:db8::9", "2001:db8::9"),
        ("::ffff:172.18.0.5", "203.0.113.9", "203.0.113.9"),
        ("", "203.0.113.9", "-"),
    ],
)
def test_the_address_behind_the_proxy(remote: str, forwarded: str | None, address: str) -> None:
    environ = {"REMOTE_ADDR": remote} | ({"HTTP_X_FORWARDED_FOR": forwarded} if forwarded is not None else {})
    assert client_address(environ, PROXIES) == address


def test_networks() -> None:
    assert networks("10.0.0.1/8,,::1") == (ipaddress.ip_network("10.0.0.0/8"), ipaddress.ip_network("::1/128"))
    assert contains(networks("::1/128"), "::1")
    assert not contains(networks("10.0.0.0/8"), "unix")
    with pytest.raises(ValueError, match="host"):
        networks("host")


def test_several_workers_are_seen_as_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    facts = {"pid": 1, "sender_stopped": None, "breaker_open": False, "graph_version_served": "v25.0"}
    for host, more in (
        ("projects", {"projector": "running", "position": 41, "log_end": 42, "breaker_open": True}),
        ("stands-by", {"projector": "standby", "position": 0, "log_end": 42, "sender_stopped": "190 expired"}),
    ):
        monkeypatch.setattr("socket.gethostname", lambda host=host: host)
        heartbeat.write(tmp_path, {**facts, **more})
    part = check_worker(tmp_path, 30)
    assert (part["workers"], part["projector"], part["position"]) == (2, "running", 41)
    assert (part["sender_stopped"], part["breaker_open"]) == ("190 expired", True)
    assert part["graph_version_served"] == "v25.0"
