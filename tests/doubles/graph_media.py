# SPDX-License-Identifier: GPL-3.0-or-later
"""Media as Meta serves it: an id names a URL, the URL gives the bytes, both only to whoever shows the token."""

from __future__ import annotations

import base64
import binascii
import hashlib
import threading
from dataclasses import dataclass
from typing import Any

from flask import Flask, Response, request

from . import graph_errors
from .graph_errors import RejectedError
from .settings import GraphSettings
from .wsgi import bearer_matches, json_answer

PATH = "/whatsapp_business/attachments/"


@dataclass(frozen=True)
class Medium:
    """One file; what the answers say about it may be made to differ from what it is."""

    content: bytes
    mime_type: str
    told: dict[str, Any]
    location: str | None
    """Where the file's URL sends one on to, instead of giving the bytes."""


def read_order(body: Any) -> tuple[str, Medium]:
    """``{"id", "mime_type", "content": base64, "told"?: {…}, "location"?}``. Raises ValueError."""
    if not isinstance(body, dict) or not isinstance(body.get("id"), str) or not isinstance(body.get("mime_type"), str):
        raise ValueError("id and mime_type are strings")  # noqa: TRY004 - a bad request, not a bug
    told = body.get("told", {})
    if not isinstance(told, dict):
        raise ValueError("told is an object")  # noqa: TRY004
    try:
        content = base64.b64decode(body.get("content", ""), validate=True)
    except (binascii.Error, TypeError) as error:
        raise ValueError("content is Base64") from error
    return body["id"], Medium(content, body["mime_type"], told, body.get("location"))


def add_media(app: Flask, settings: GraphSettings, authorise: Any) -> None:
    """The two steps, and the control interface that says what there is and what was asked for."""
    mutex = threading.Lock()
    media: dict[str, Medium] = {}
    fetched: list[str] = []

    @app.get("/<version>/<media_id>")
    def describe(version: str, media_id: str) -> Response:
        authorise(settings, version, settings.phone_number_id)
        medium = media.get(media_id)
        if medium is None:
            raise RejectedError(graph_errors.unknown_object(media_id))
        answer = {
            "messaging_product": "whatsapp",
            # As we were called: werkzeug's own idea of the host knows no underscores.
            "url": f"http://{request.headers['Host']}{PATH}?mid={media_id}",
            "mime_type": medium.mime_type,
            "sha256": hashlib.sha256(medium.content).hexdigest(),
            "file_size": len(medium.content),
            "id": media_id,
        }
        return json_answer({**answer, **medium.told})

    @app.get(PATH)
    def serve() -> Response:
        media_id = request.args.get("mid", "")
        with mutex:
            fetched.append(media_id)
        if not bearer_matches(request, settings.access_token):
            return Response(status=401)
        medium = media.get(media_id)
        if medium is None:
            return Response(status=404)
        if medium.location is not None:
            return Response(status=302, headers={"Location": medium.location})
        return Response(medium.content, content_type=medium.mime_type)

    @app.post("/_double/media")
    def add() -> Response:
        try:
            media_id, medium = read_order(request.get_json(force=True, silent=True))
        except ValueError as error:
            return json_answer({"error": str(error)}, 400)
        with mutex:
            media[media_id] = medium
        return json_answer({"id": media_id, "bytes": len(medium.content)})

    @app.get("/_double/media")
    def show() -> Response:
        with mutex:
            return json_answer({"known": sorted(media), "fetched": list(fetched)})
