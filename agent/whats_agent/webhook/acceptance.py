# SPDX-License-Identifier: GPL-3.0-or-later
"""``POST /webhook``: verify, append, answer. A plain WSGI function in front of Flask.

Why not a Flask route: nothing here needs Flask, and its request and response objects cost more than the work itself. A prototype
of the same durable acceptance reached about half of an empty Flask endpoint's rate inside a route; the target is 0.8, and
docs/webhook_speed.md says what this one reaches. Everything else of the HTTP interface is Flask's.

Nothing but the local disk is waited for before the 200.
"""

import logging
import time
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Protocol

from whats_agent import logs
from whats_agent.addresses import Network, client_address
from whats_agent.errors import MessageLogError
from whats_agent.message_log import Kind, MessageLog
from whats_agent.webhook.signature import is_signed

if TYPE_CHECKING:
    from _typeshed.wsgi import InputStream, StartResponse, WSGIApplication, WSGIEnvironment

_log = logging.getLogger("whats_agent.webhook")
_security = logging.getLogger(logs.SECURITY)

_STATUS = {
    200: "200 OK",
    400: "400 Bad Request",
    401: "401 Unauthorized",
    403: "403 Forbidden",
    413: "413 Content Too Large",
    500: "500 Internal Server Error",
    503: "503 Service Unavailable",
}


class Observer(Protocol):
    """Told of each answer: its status and the seconds it took."""

    def __call__(self, status: int, seconds: float) -> None: ...


class Refused(Exception):  # noqa: N818 - not an error of ours: the caller's request is turned down
    """The request gets ``status`` and nothing is stored."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason


def read_body(stream: "InputStream", declared: str | None, limit: int) -> bytes:
    """The whole body, of the declared length or chunked. Raises Refused (400 cut short, 413 larger than ``limit`` bytes)."""
    if declared:
        if not declared.isascii() or not declared.isdigit():
            raise Refused(400, "bad_length")
        length = int(declared)
        if length > limit:
            raise Refused(413, "too_large")
        body = stream.read(length)
        if len(body) != length:
            raise Refused(400, "cut_short")
        return body
    body = stream.read(limit + 1)
    if len(body) > limit:
        raise Refused(413, "too_large")
    return body


class Acceptance:
    """WSGI middleware that answers ``POST /webhook`` itself and passes the rest on to ``inner``."""

    def __init__(
        self,
        inner: "WSGIApplication",
        message_log: MessageLog,
        app_secret: str,
        *,
        max_bytes: int,
        observe: Observer,
        trusted_proxies: Sequence[Network] = (),
    ) -> None:
        self._inner = inner
        self._message_log = message_log
        self._secret = app_secret.encode()
        self._max_bytes = max_bytes
        self._observe = observe
        self._trusted_proxies = trusted_proxies

    def __call__(self, environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        if environ["REQUEST_METHOD"] != "POST" or environ["PATH_INFO"] != "/webhook":
            return self._inner(environ, start_response)
        started = time.perf_counter()
        logs.correlate(environ.get("HTTP_X_REQUEST_ID"))
        status, text = self._decide(environ)
        body = text.encode()
        headers = [("Content-Length", str(len(body))), ("X-Content-Type-Options", "nosniff")]
        if body:
            headers.append(("Content-Type", "text/plain; charset=utf-8"))
        if status == 503:
            headers.append(("Retry-After", "5"))
        start_response(_STATUS[status], headers)
        self._observe(status, time.perf_counter() - started)
        return [body] if body else ()

    def _decide(self, environ: "WSGIEnvironment") -> tuple[int, str]:
        try:
            self._accept(environ)
        except Refused as refusal:
            _security.warning(
                logs.fields(
                    event="webhook_refused",
                    status=refusal.status,
                    reason=refusal.reason,
                    address=client_address(environ, self._trusted_proxies),
                    outcome="unauthorized"
                    if refusal.status == 401
                    else "forbidden"
                    if refusal.status == 403
                    else "bad_request",
                )
            )
            return refusal.status, refusal.reason
        except MessageLogError as error:
            _log.error(logs.fields(event="webhook_not_stored", status=503, reason=error))
            return 503, "not stored, deliver again"
        # Meta reads the status only. Without a body the answer leaves in one packet instead of two.
        return 200, ""

    def _accept(self, environ: "WSGIEnvironment") -> None:
        header: str | None = environ.get("HTTP_X_HUB_SIGNATURE_256")
        if not header:
            raise Refused(401, "no_signature")
        try:
            body = read_body(environ["wsgi.input"], environ.get("CONTENT_LENGTH"), self._max_bytes)
        except OSError as error:
            raise Refused(400, "cut_short") from error
        if not is_signed(self._secret, body, header):
            raise Refused(403, "wrong_signature")
        self._message_log.append(Kind.WEBHOOK, body)
