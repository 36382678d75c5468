# SPDX-License-Identifier: GPL-3.0-or-later
"""Small things both doubles need from their server."""

from __future__ import annotations

import hmac
import json
import socket
from datetime import UTC, datetime
from typing import Any

from flask import Request, Response


def json_answer(body: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(
        json.dumps(body, ensure_ascii=False),
        status=status,
        headers=headers,
        content_type="application/json; charset=utf-8",
    )


def bearer_matches(request: Request, token: str) -> bool:
    """Whether the request carries ``Authorization: Bearer <token>``."""
    scheme, _, given = request.headers.get("Authorization", "").partition(" ")
    return scheme == "Bearer" and hmac.compare_digest(given.strip().encode(), token.encode())


def hang_up(request: Request) -> Response:
    """Close the connection so that the client never gets an answer; the response returned goes nowhere."""
    connection = request.environ.get("gunicorn.socket") or request.environ.get("werkzeug.socket")
    if not isinstance(connection, socket.socket):
        raise TypeError("this server does not hand out its connections: cannot close one without an answer")
    connection.shutdown(socket.SHUT_RDWR)
    return Response(status=500, headers={"Connection": "close"})


def now_rfc3339() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
