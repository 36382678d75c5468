# SPDX-License-Identifier: GPL-3.0-or-later
"""The web application: webhook acceptance in front, Flask behind it."""

import logging
import threading
import time
from typing import TYPE_CHECKING

from flask import Flask, Response, g, jsonify, request
from werkzeug.exceptions import HTTPException, MethodNotAllowed

from whats_agent import logs
from whats_agent.addresses import client_address
from whats_agent.alerts.gather import gather
from whats_agent.alerts.keeper import Keeper
from whats_agent.message_log import MessageLog
from whats_agent.metrics import Recorder, layout
from whats_agent.metrics.reading import Snapshot
from whats_agent.settings import WebSettings, load
from whats_agent.views import health, production
from whats_agent.webhook import handshake
from whats_agent.webhook.acceptance import Acceptance

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

_log = logging.getLogger("whats_agent.web")
_performance = logging.getLogger(logs.PERFORMANCE)
_security = logging.getLogger(logs.SECURITY)
# Nothing but POST /webhook, which is not Flask's, has a body worth reading.
MAX_BODY_BYTES = 64 * 1024


def create_flask(settings: WebSettings, recorder: Recorder) -> Flask:
    """Everything of the HTTP interface but ``POST /webhook``."""
    flask = Flask("whats_agent", static_folder=None)
    flask.config["MAX_CONTENT_LENGTH"] = MAX_BODY_BYTES
    trusted = settings.trusted_proxy_list()
    state = health.Health(settings)
    flask.register_blueprint(handshake.blueprint(settings.meta_verify_token.get_secret_value(), trusted))
    flask.register_blueprint(health.blueprint(state))
    flask.register_blueprint(production.blueprint(settings, state))

    @flask.before_request
    def begin() -> None:
        g.started = time.perf_counter()
        logs.correlate(request.headers.get("X-Request-Id"))

    @flask.errorhandler(HTTPException)
    def refuse(error: HTTPException) -> Response:
        if error.code == 403:
            address = client_address(request.environ, trusted)
            _security.warning(logs.fields(event="view_refused", status=403, outcome="forbidden", address=address))
        response = jsonify({"error": error.name})
        response.status_code = error.code or 500
        if isinstance(error, MethodNotAllowed) and error.valid_methods:
            response.headers["Allow"] = ", ".join(error.valid_methods)
        return response

    @flask.errorhandler(Exception)
    def fail(error: Exception) -> Response:
        _log.error(logs.fields(event="request_failed", error=type(error).__name__), exc_info=error)
        response = jsonify({"error": "Internal Server Error"})
        response.status_code = 500
        return response

    @flask.after_request
    def finish(response: Response) -> Response:
        response.headers.setdefault("X-Content-Type-Options", "nosniff")
        response.headers.setdefault("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
        response.headers.setdefault("Referrer-Policy", "no-referrer")
        response.headers.setdefault("Cache-Control", "no-store")
        endpoint = (request.endpoint or "other").rpartition(".")[2]
        watch(
            recorder,
            settings,
            endpoint,
            response.status_code,
            time.perf_counter() - g.get("started", time.perf_counter()),
        )
        return response

    return flask


def watch(recorder: Recorder, settings: WebSettings, endpoint: str, status: int, seconds: float) -> None:
    """Count one answer; a slow one gets a line of its own."""
    recorder.request(endpoint, status, seconds)
    if seconds >= settings.slow_request_seconds:
        took = f"{seconds * 1000:.0f}ms"
        _performance.warning(logs.fields(event="slow_request", endpoint=endpoint, status=status, took=took))


def write_performance(snapshot: Snapshot) -> None:
    """The last minute of each kind of work, a line each, for whoever reads performance.log."""
    for family in (layout.REQUEST, layout.ANSWER, layout.OPENAI):
        seen = snapshot.recent(family, 60)
        if seen.count:
            p50, p95, p99 = (f"{(seen.percentile(share) or 0) * 1000:.0f}ms" for share in (0.5, 0.95, 0.99))
            slowest = f"{seen.greatest * 1000:.0f}ms"
            line = logs.fields(
                event=f"{family}s",
                window="60s",
                count=seen.count,
                errors=int(seen.errors),
                p50=p50,
                p95=p95,
                p99=p99,
                took=slowest,
            )
            _performance.info(line)


def create_app(
    settings: WebSettings | None = None, message_log: MessageLog | None = None, recorder: Recorder | None = None
) -> "WSGIApplication":
    """The WSGI application that gunicorn serves. Raises SettingsError."""
    settings = settings or load(WebSettings)
    recorder = recorder or Recorder(settings.message_log_dir)

    def observe(status: int, seconds: float) -> None:
        watch(recorder, settings, "webhook", status, seconds)
        if 400 <= status < 500:
            recorder.observe(layout.REFUSED, seconds)

    return Acceptance(
        create_flask(settings, recorder).wsgi_app,
        message_log or MessageLog(settings.message_log_dir, recorder.committed),
        settings.meta_app_secret.get_secret_value(),
        max_bytes=settings.webhook_max_bytes,
        observe=observe,
        trusted_proxies=settings.trusted_proxy_list(),
    )


def watch_alerts(settings: WebSettings, stop: threading.Event) -> threading.Thread:
    """Start the thread that evaluates the alerts whenever this process is the one to do it."""
    state = health.Health(settings)
    message_log = MessageLog(settings.message_log_dir)
    keeper = Keeper(
        settings.message_log_dir,
        lambda: gather(settings, message_log, state.parts()),
        lambda: write_performance(Snapshot(settings.message_log_dir)),
        settings.alert_round_seconds,
    )
    thread = threading.Thread(target=keeper.run, args=(stop,), name="alerts", daemon=True)
    thread.start()
    return thread
