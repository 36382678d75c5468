# SPDX-License-Identifier: GPL-3.0-or-later
"""The signed probe: one webhook that proves every hop from nginx to a row in PostgreSQL, and is answered to nobody."""

from __future__ import annotations

import hashlib
import hmac
import http.client
import json
import ssl
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from .clock import SYSTEM_CLOCK, Clock
from .errors import WhatsAgentError

FIELD = "whats_agent_probe"
_RETRY_PAUSE = 0.25
_REQUEST_TIMEOUT = 5.0


@dataclass(frozen=True)
class Listener:
    """Where a webhook listens. With `server_name` it is spoken to over TLS, and the certificate must fit that name."""

    address: str
    port: int
    server_name: str = ""
    ca_file: Path | None = None


@dataclass(frozen=True)
class Hop:
    """One part of the way and how it did. `name` is one of refuses_unsigned, accepts_signed, tls, row."""

    name: str
    ok: bool
    detail: str
    seconds: float

    def as_dict(self) -> dict[str, Any]:
        """Return JSON-able data."""
        return asdict(self)


def probe_body(probe_id: str) -> bytes:
    """Return the webhook body of a probe, as docs/interfaces.md fixes it."""
    change = {"field": FIELD, "value": {"probe_id": probe_id}}
    body = {"object": "whatsapp_business_account", "entry": [{"id": "probe", "changes": [change]}]}
    return json.dumps(body, separators=(",", ":")).encode()


def signature(body: bytes, app_secret: str) -> str:
    """Return the value of X-Hub-Signature-256."""
    return "sha256=" + hmac.new(app_secret.encode(), body, hashlib.sha256).hexdigest()


def post(listener: Listener, body: bytes, signed_with: str | None) -> int:
    """Post a webhook body and return the status. OSError (TLS included) and http.client errors are the caller's."""
    headers = {"Content-Type": "application/json", "Host": listener.server_name or "localhost"}
    if signed_with is not None:
        headers["X-Hub-Signature-256"] = signature(body, signed_with)
    connection: http.client.HTTPConnection
    if listener.server_name:
        connection = _NamedConnection(listener)
    else:
        connection = http.client.HTTPConnection(listener.address, listener.port, timeout=_REQUEST_TIMEOUT)
    try:
        connection.request("POST", "/webhook", body=body, headers=headers)
        response = connection.getresponse()
        response.read()
        return response.status
    finally:
        connection.close()


class _NamedConnection(http.client.HTTPSConnection):
    """HTTPS to an address, holding the certificate against another name: so the server can probe its own public side."""

    def __init__(self, listener: Listener) -> None:
        self._context_for_name = ssl.create_default_context(cafile=listener.ca_file)
        self._server_name = listener.server_name
        super().__init__(listener.address, listener.port, timeout=_REQUEST_TIMEOUT, context=self._context_for_name)

    def connect(self) -> None:
        http.client.HTTPConnection.connect(self)
        self.sock = self._context_for_name.wrap_socket(self.sock, server_hostname=self._server_name)


class Prober:
    """Hops of one probe, each tried until it answers as it must or the common deadline has passed."""

    def __init__(self, app_secret: str, probe_id: str, *, timeout: float, clock: Clock = SYSTEM_CLOCK) -> None:
        """`timeout` is seconds for all hops together."""
        self._app_secret = app_secret
        self._probe_id = probe_id
        self._body = probe_body(probe_id)
        self._clock = clock
        self._deadline = clock.boottime() + timeout

    def refuses_unsigned(self, listener: Listener) -> Hop:
        """An unsigned call must be turned away: who accepts it accepts anyone."""
        return self._until("refuses_unsigned", lambda: self._status(listener, None, (401, 403)))

    def accepts_signed(self, listener: Listener, name: str = "accepts_signed") -> Hop:
        """A signed call must be answered 200, which the agent gives only once the message is on its disk."""
        return self._until(name, lambda: self._status(listener, self._app_secret, (200,)))

    def row(self, count: Callable[[str], int]) -> Hop:
        """The probe must reach PostgreSQL: `count(probe id)` says how many rows carry it."""

        def look() -> tuple[bool, str]:
            found = count(self._probe_id)
            return found > 0, f"{found} rows" if found != 1 else "1 row"

        return self._until("row", look)

    def _status(self, listener: Listener, signed_with: str | None, wanted: tuple[int, ...]) -> tuple[bool, str]:
        status = post(listener, self._body, signed_with)
        return status in wanted, f"HTTP {status}"

    def _until(self, name: str, attempt: Callable[[], tuple[bool, str]]) -> Hop:
        started = self._clock.boottime()
        while True:
            try:
                ok, detail = attempt()
            except ssl.SSLCertVerificationError as error:
                ok, detail = False, f"certificate: {error.verify_message}"
            except (OSError, http.client.HTTPException) as error:
                ok, detail = False, f"{type(error).__name__}: {error}"
            except WhatsAgentError as error:
                ok, detail = False, error.message
            now = self._clock.boottime()
            if ok or now + _RETRY_PAUSE >= self._deadline:
                return Hop(name, ok, detail, round(now - started, 2))
            self._clock.sleep(_RETRY_PAUSE)


def count_rows(socket_dir: Path, database: str) -> Callable[[str], int]:
    """Return a counter of probe rows that asks PostgreSQL over its socket, as the host's root is allowed to."""

    def count(probe_id: str) -> int:
        try:
            import psycopg
        except ImportError as error:
            raise WhatsAgentError("psycopg is missing: apt-get install python3-psycopg") from error
        try:
            with psycopg.connect(
                host=str(socket_dir),
                dbname=database,
                user="postgres",
                connect_timeout=3,
                options="-c statement_timeout=3000",
                application_name="webhook_probe",
            ) as connection:
                row = connection.execute(
                    "select count(*) from account_events where field = %s and value->>'probe_id' = %s",
                    (FIELD, probe_id),
                ).fetchone()
        except psycopg.Error as error:
            raise WhatsAgentError(f"PostgreSQL: {str(error).strip().splitlines()[0]}") from error
        return int(row[0]) if row else 0

    return count
