# SPDX-License-Identifier: GPL-3.0-or-later
"""``X-Hub-Signature-256`` and the verify token, compared in constant time."""

import hashlib
import hmac

PREFIX = "sha256="


def sign(secret: bytes, body: bytes) -> str:
    """The header's value for ``body``, as Meta computes it."""
    return PREFIX + hmac.new(secret, body, hashlib.sha256).hexdigest()


def is_signed(secret: bytes, body: bytes, header: str) -> bool:
    """Whether ``header`` is the signature of exactly these bytes."""
    # Compared as bytes: compare_digest refuses non-ASCII text, and a header may hold anything.
    return hmac.compare_digest(sign(secret, body).encode(), header.encode("utf-8", "surrogateescape"))


def same_token(expected: str, given: str) -> bool:
    """Whether the handshake brought our verify token."""
    return hmac.compare_digest(expected.encode(), given.encode("utf-8", "surrogateescape"))
