# SPDX-License-Identifier: GPL-3.0-or-later
"""The Graph API stand-in: one Flask application, one process, many threads."""

from __future__ import annotations

import re
import threading
from typing import Any

from flask import Flask, Response, request

from . import graph_errors, graph_messages
from .faults import Faults, UnknownFaultError
from .graph_errors import RejectedError
from .graph_media import add_media
from .graph_record import GraphRecord
from .graph_statuses import KINDS, StatusDelivery
from .settings import GraphSettings
from .wsgi import bearer_matches, hang_up, json_answer, now_rfc3339

VERSION = re.compile(r"v[1-9]\d?\.\d")
FAULTS = frozenset(graph_errors.ORDERED) | {"timeout", "drop_after_accept"}


def create_app(settings: GraphSettings | None = None) -> Flask:
    """Build the application; its parts are in ``app.extensions["graph_double"]`` for whoever must stop them."""
    settings = settings or GraphSettings.from_environment()
    record = GraphRecord(settings.state_dir / "graph.jsonl")
    faults = Faults(FAULTS)
    delivery = StatusDelivery(settings, record.mark_delivered)
    delivery.enable(record.statuses_enabled)
    for due in record.due():
        delivery.put(due.send, [due.kind])
    delivery.start()

    app = Flask(__name__)
    app.extensions["graph_double"] = (record, delivery)

    @app.post("/<version>/<phone_number_id>/messages")
    def messages(version: str, phone_number_id: str) -> Response:
        _authorise(settings, version, phone_number_id)
        body = request.get_json(force=True, silent=True)
        is_mark = isinstance(body, dict) and graph_messages.is_read_mark(body)
        # Counts are of sends: a mark as read suffers the fault too, but leaves it for the send that a test waits for.
        fault = faults.look() if is_mark else faults.take()
        if fault in graph_errors.ORDERED:
            raise RejectedError(graph_errors.ORDERED[fault])
        if fault == "timeout":
            faults.hang()
            return hang_up(request)
        if not isinstance(body, dict):
            raise RejectedError(graph_errors.bad_parameter("The request body is not a JSON object."))
        answer = _accept(body, phone_number_id, record, delivery)
        if fault == "drop_after_accept":
            return hang_up(request)
        if settings.answer_delay_s:
            threading.Event().wait(settings.answer_delay_s)
        return json_answer(answer)

    @app.errorhandler(RejectedError)
    def rejected(rejection: RejectedError) -> Response:
        return json_answer(rejection.error.body(), rejection.error.status)

    @app.errorhandler(404)
    @app.errorhandler(405)
    def unknown_path(_error: Exception) -> Response:
        error = graph_errors.unknown_path(request.path)
        return json_answer(error.body(), error.status)

    add_media(app, settings, _authorise)
    _add_control(app, record, faults, delivery)
    return app


def _authorise(settings: GraphSettings, version: str, phone_number_id: str) -> None:
    """Raise RejectedError when something is wrong with the request before its body is looked at."""
    if VERSION.fullmatch(version) is None:
        raise RejectedError(graph_errors.unknown_path(request.path))
    if not request.headers.get("Authorization"):
        raise RejectedError(graph_errors.NO_TOKEN)
    if not bearer_matches(request, settings.access_token):
        raise RejectedError(graph_errors.BAD_TOKEN)
    if settings.phone_number_id and phone_number_id != settings.phone_number_id:
        raise RejectedError(graph_errors.unknown_object(phone_number_id))


def _accept(
    body: dict[str, Any], phone_number_id: str, record: GraphRecord, delivery: StatusDelivery
) -> dict[str, Any]:
    """Record what was asked for and return the answer. Raises RejectedError."""
    if graph_messages.is_read_mark(body):
        graph_messages.check_read_mark(body)
        record.add_read({"message_id": body["message_id"], "typing": "typing_indicator" in body, "at": now_rfc3339()})
        return {"success": True}
    graph_messages.check_send(body)
    wamid = graph_messages.new_wamid()
    send = graph_messages.send_record(body, wamid, phone_number_id, now_rfc3339())
    kinds = record.status_kinds
    record.add_send(send, kinds)
    delivery.put(send, kinds)
    return graph_messages.accepted(body, wamid)


def _add_control(app: Flask, record: GraphRecord, faults: Faults, delivery: StatusDelivery) -> None:
    @app.get("/_double/health")
    def health() -> Response:
        return json_answer(
            {
                "status": "ok",
                "sends": len(record.sends()),
                "statuses": {
                    "enabled": record.statuses_enabled,
                    "kinds": record.status_kinds,
                    "pending": delivery.pending(),
                },
                "fault": faults.describe(),
            }
        )

    @app.get("/_double/sends")
    def sends() -> Response:
        return json_answer(record.sends())

    @app.get("/_double/reads")
    def reads() -> Response:
        return json_answer(record.reads())

    @app.post("/_double/fail")
    def fail() -> Response:
        try:
            return json_answer(faults.set(request.get_json(force=True, silent=True)))
        except UnknownFaultError as error:
            return json_answer({"error": str(error)}, 400)

    @app.post("/_double/statuses")
    def statuses() -> Response:
        wanted = request.get_json(force=True, silent=True)
        if not isinstance(wanted, dict):
            return json_answer({"error": "a JSON object is expected"}, 400)
        enabled = wanted.get("enabled", record.statuses_enabled)
        kinds = wanted.get("kinds", record.status_kinds)
        if not isinstance(enabled, bool) or not isinstance(kinds, list) or not all(kind in KINDS for kind in kinds):
            return json_answer({"error": f"enabled is a boolean, kinds a list out of {', '.join(KINDS)}"}, 400)
        record.set_statuses(enabled=enabled, kinds=kinds)
        delivery.enable(enabled)
        return json_answer({"enabled": enabled, "kinds": kinds, "pending": delivery.pending()})

    @app.post("/_double/reset")
    def reset() -> Response:
        faults.set({"class": "off"})
        record.reset()
        delivery.clear()
        delivery.enable(True)
        return json_answer({"status": "ok"})
