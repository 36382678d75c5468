# SPDX-License-Identifier: GPL-3.0-or-later
"""The web application: webhook acceptance in front, Flask behind it."""

import logging
from typing import TYPE_CHECKING

from flask import Flask, Response, jsonify
from werkzeug.exceptions import HTTPException

from whats_agent import logs
from whats_agent.message_log import MessageLog
from whats_agent.settings import WebSettings, load
from whats_agent.views import health
from whats_agent.webhook import handshake
from whats_agent.webhook.acceptance import Acceptance, ignore

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

_log = logging.getLogger("whats_agent.web")


def create_flask(settings: WebSettings) -> Flask:
    """Everything of the HTTP interface but ``POST /webhook``."""
    flask = Flask("whats_agent", static_folder=None)
    flask.config["MAX_CONTENT_LENGTH"] = 64 * 1024
    flask.register_blueprint(handshake.blueprint(settings.meta_verify_token.get_secret_value()))
    flask.register_blueprint(health.blueprint(health.Health(settings)))

    @flask.errorhandler(HTTPException)
    def refuse(error: HTTPException) -> Response:
        response = jsonify({"error": error.name})
        response.status_code = error.code or 500
        return response

    @flask.errorhandler(Exception)
    def fail(error: Exception) -> Response:
        _log.error(logs.fields(event="request_failed", error=type(error).__name__), exc_info=error)
        response = jsonify({"error": "Internal Server Error"})
        response.status_code = 500
        return response

    @flask.after_request
    def harden(response: Response) -> Response:
        response.headers.setdefault("X-Content-Type-Options", "nosniff")
        response.headers.setdefault("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
        response.headers.setdefault("Referrer-Policy", "no-referrer")
        return response

    return flask


def create_app(settings: WebSettings | None = None, message_log: MessageLog | None = None) -> "WSGIApplication":
    """The WSGI application that gunicorn serves. Raises SettingsError."""
    settings = settings or load(WebSettings)
    return Acceptance(
        create_flask(settings).wsgi_app,
        message_log or MessageLog(settings.message_log_dir),
        settings.meta_app_secret.get_secret_value(),
        settings.webhook_max_bytes,
        ignore,
    )
