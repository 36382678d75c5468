# SPDX-License-Identifier: GPL-3.0-or-later
"""``/production/metrics/…``, ``/production/alerts/active``, ``/metrics`` and ``/openapi.json``: for operators."""

import threading
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import psycopg
from flask import Blueprint, Response, abort, jsonify, request

from whats_agent import clock
from whats_agent.addresses import client_address, contains
from whats_agent.alerts import keeper
from whats_agent.alerts.rules import ERROR_TARGET, RESPONSE_TARGET_SECONDS
from whats_agent.database.connection import connect
from whats_agent.metrics import layout, prometheus
from whats_agent.metrics.reading import Distribution, Snapshot
from whats_agent.settings import WebSettings
from whats_agent.views.business import figures
from whats_agent.views.health import Health

WINDOW_SECONDS = 300
KEEP_SECONDS = 5.0
DESCRIPTION = Path(__file__).with_name("openapi.json")


def summary(distribution: Distribution) -> dict[str, int | float | None]:
    """Count, true mean and percentiles in milliseconds; null without values."""

    def ms(seconds: float | None) -> float | None:
        return None if seconds is None else round(seconds * 1000, 3)

    return {
        "count": distribution.count,
        "mean_ms": ms(distribution.mean),
        "p50_ms": ms(distribution.percentile(0.50)),
        "p95_ms": ms(distribution.percentile(0.95)),
        "p99_ms": ms(distribution.percentile(0.99)),
        "max_ms": ms(distribution.greatest) if distribution.count else None,
    }


def performance(snapshot: Snapshot) -> dict[str, Any]:
    """The service levels over the last five minutes."""
    requests = snapshot.recent(layout.REQUEST, WINDOW_SECONDS)
    answers = snapshot.recent(layout.ANSWER, WINDOW_SECONDS)
    openai = snapshot.recent(layout.OPENAI, WINDOW_SECONDS)
    records, syncs = snapshot.counter("log_records_total"), snapshot.counter("log_syncs_total")
    p95, error_rate = requests.percentile(0.95), requests.error_rate
    return {
        "window_seconds": WINDOW_SECONDS,
        "sla_metrics": {
            "response_time": {**summary(requests), "target_p95_ms": round(RESPONSE_TARGET_SECONDS * 1000)},
            "error_rate": {
                "requests": _rounded(error_rate),
                "answers": _rounded(answers.error_rate),
                "openai": _rounded(openai.error_rate),
                "target": ERROR_TARGET,
            },
            "answer_time": summary(answers),
            "compliant": (p95 or 0) <= RESPONSE_TARGET_SECONDS and (error_rate or 0) <= ERROR_TARGET,
        },
        "openai": summary(openai),
        "throughput": {"requests_per_second": round(requests.count / WINDOW_SECONDS, 3)},
        "message_log": {"records": int(records), "syncs": int(syncs)},
    }


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 5)


class _Business:
    """The figures from PostgreSQL, asked at most every five seconds by each process."""

    def __init__(self, settings: WebSettings) -> None:
        self._settings = settings
        self._mutex = threading.Lock()
        self._figures: dict[str, Any] = {}
        self._asked_at = -KEEP_SECONDS

    def get(self) -> dict[str, Any]:
        """Raises psycopg.Error."""
        with self._mutex:
            if time.monotonic() - self._asked_at >= KEEP_SECONDS:
                with connect(self._settings, "business metrics", statement_timeout="5s") as connection:
                    self._figures = figures(connection, self._settings)
                self._asked_at = time.monotonic()
            return self._figures


def blueprint(settings: WebSettings, health: Health) -> Blueprint:
    """The routes, open to ``VIEW_NETWORKS`` only."""
    routes = Blueprint("production", __name__)
    directory = settings.message_log_dir
    business = _Business(settings)
    allowed, trusted = settings.view_network_list(), settings.trusted_proxy_list()

    @routes.before_request
    def only_for_operators() -> None:
        if not contains(allowed, client_address(request.environ, trusted)):
            abort(403)

    @routes.get("/production/metrics/performance", endpoint="performance")
    def show_performance() -> Response:
        return jsonify(performance(Snapshot(directory)))

    @routes.get("/production/metrics/business", endpoint="business")
    def show_business() -> Response:
        try:
            return jsonify(business.get())
        except psycopg.Error:
            response = jsonify({"error": "PostgreSQL does not answer"})
            response.status_code = 503
            return response

    @routes.get("/production/alerts/active", endpoint="alerts")
    def show_alerts() -> Response:
        at, alerts = keeper.read(directory)
        age = (clock.now() - datetime.fromisoformat(at)).total_seconds() if at else None
        active = [
            {
                "name": alert.name,
                "severity": alert.severity,
                "first_seen": alert.first_seen,
                "last_seen": alert.last_seen,
                "summary": {"en": alert.summary, "pt": alert.resumo},
                "evidence": alert.evidence,
                "runbook": alert.runbook,
            }
            for alert in sorted(alerts, key=lambda alert: (alert.severity, alert.first_seen))
            if alert.active
        ]
        stale = age is None or age > keeper.STALE_SECONDS
        return jsonify({"evaluated_at": at, "stale": stale, "count": len(active), "alerts": active})

    @routes.get("/metrics", endpoint="metrics")
    def show_metrics() -> Response:
        _, alerts = keeper.read(directory)
        gauges = {"alerts_active": ("alerts active now", float(sum(alert.active for alert in alerts)))}
        for name, part in health.parts().items():
            gauges[f"{name}_up"] = (f"whether {name} is up", float(part["state"] == "up"))
        return Response(
            prometheus.render(Snapshot(directory), gauges), content_type="text/plain; version=0.0.4; charset=utf-8"
        )

    @routes.get("/openapi.json", endpoint="openapi")
    def show_description() -> Response:
        return Response(DESCRIPTION.read_bytes(), mimetype="application/json")

    return routes
