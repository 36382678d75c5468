# SPDX-License-Identifier: GPL-3.0-or-later
"""When the certificate that nginx shows ends, seen from outside nginx."""

import re
import socket
import ssl
from datetime import UTC, datetime

TIMEOUT_SECONDS = 2.0
# In a certificate's DER, Validity is a SEQUENCE of two times; UTCTime is tag 0x17 (13 bytes), GeneralizedTime 0x18 (15 bytes).
_VALIDITY = re.compile(
    rb"\x30[\x1e\x20\x22](?:\x17\x0d(?:\d{12})Z|\x18\x0f(?:\d{14})Z)(?:\x17\x0d(?P<short>\d{12})Z|\x18\x0f(?P<long>\d{14})Z)"
)


def not_after(der: bytes) -> datetime | None:
    """The end of a DER certificate's validity; None when there is none to be found."""
    found = _VALIDITY.search(der)
    if found is None:
        return None
    text = (found["long"] or found["short"]).decode()
    if found["short"]:
        # RFC 5280: two-digit years from 50 on are of the last century.
        text = ("19" if int(text[:2]) >= 50 else "20") + text
    try:
        return datetime.strptime(text, "%Y%m%d%H%M%S").replace(tzinfo=UTC)
    except ValueError:
        return None


def shown_by(host: str, port: int) -> datetime | None:
    """The end of the certificate that a TLS server shows; None when it cannot be reached."""
    context = ssl.create_default_context()
    # Looked at, not trusted: an expired or self-signed certificate is just what this must be able to see.
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    try:
        with (
            socket.create_connection((host, port), timeout=TIMEOUT_SECONDS) as plain,
            context.wrap_socket(plain, server_hostname=host) as connection,
        ):
            der = connection.getpeercert(binary_form=True)
    except OSError:
        return None
    return not_after(der) if der else None
