# SPDX-License-Identifier: GPL-3.0-or-later
"""Keep secrets out of what is kept: by field name, by shape, and by known value."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from .errors import Json

HIDDEN = "[redacted]"

# Words of a field's name, split at anything but letters and digits and at camelCase borders.
_SECRET_WORDS = {
    "password",
    "passwd",
    "passphrase",
    "pass",
    "pw",
    "secret",
    "secrets",
    "token",
    "tokens",
    "credential",
    "credentials",
    "authorization",
    "cookie",
    "signature",
    "apikey",
    "privkey",
    "dsn",
    "phone",
    "msisdn",
}
_SECRET_PAIRS = frozenset([("api", "key"), ("private", "key"), ("access", "key"), ("encryption", "key"), ("wa", "id")])
_PLAIN_PAIRS = frozenset([("phone", "number", "id")])

_WORD_BORDER = re.compile(r"[^A-Za-z0-9]+|(?<=[a-z0-9])(?=[A-Z])")
_SHAPES = (
    re.compile(r"(?P<keep>[a-z][a-z0-9+.-]*://[^\s:/@]*:)[^\s@/]+(?=@)", re.IGNORECASE),  # scheme://user:password@host
    re.compile(r"(?P<keep>\b(?:bearer|basic)\s+)[A-Za-z0-9._~+/=-]{8,}", re.IGNORECASE),
    re.compile(
        r"(?P<keep>\b[A-Za-z0-9_.-]*(?:password|passwd|passphrase|secret|token|api_?key|cipher-pass)[\"']?\s*[=:]\s*[\"']?)"
        r"(?!\[redacted\])[^\s,;\"'}]+",
        re.IGNORECASE,
    ),
    re.compile(r"(?P<keep>)\bsk-[A-Za-z0-9_-]{16,}"),  # OpenAI keys
    re.compile(r"(?P<keep>)\bEAA[A-Za-z0-9]{20,}"),  # Graph access tokens
    re.compile(r"(?P<keep>)-----BEGIN [A-Z ]*PRIVATE KEY-----[\s\S]*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)"),
)
_MIN_KNOWN_VALUE = 6  # shorter values would blot out ordinary words


def is_secret_name(name: str) -> bool:
    """Tell whether a field of this name holds a secret (or a person's phone number)."""
    words = tuple(word.lower() for word in _WORD_BORDER.split(name) if word)
    if any(words[i : i + 3] in _PLAIN_PAIRS for i in range(len(words))):
        return False
    return any(word in _SECRET_WORDS for word in words) or any(
        words[i : i + 2] in _SECRET_PAIRS for i in range(len(words))
    )


def redact_text(text: str, known: Iterable[str] = ()) -> str:
    """Hide secrets in free text: known values first, then what has the shape of a secret."""
    for value in sorted((v for v in known if len(v) >= _MIN_KNOWN_VALUE), key=len, reverse=True):
        text = text.replace(value, HIDDEN)
    for shape in _SHAPES:
        text = shape.sub(rf"\g<keep>{HIDDEN}", text)
    return text


def redact(value: Json, known: Iterable[str] = (), *, _secret: bool = False) -> Json:
    """Return a copy of JSON-able data with secrets hidden.

    Numbers, booleans and None stay: they tell state and not secrets.
    """
    known = tuple(known)
    if isinstance(value, Mapping):
        return {
            redact_text(str(key), known): redact(item, known, _secret=_secret or is_secret_name(str(key)))
            for key, item in value.items()
        }
    if isinstance(value, list | tuple | set | frozenset):
        items = sorted(value, key=str) if isinstance(value, set | frozenset) else value
        return [redact(item, known, _secret=_secret) for item in items]
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    if isinstance(value, str):
        return HIDDEN if _secret and value else redact_text(value, known)
    return value


def secrets_of(env: Mapping[str, str]) -> list[str]:
    """Return the values of an env file that must never be shown."""
    values = [value for name, value in env.items() if is_secret_name(name) and value]
    for value in env.values():
        match = re.search(r"://[^\s:/@]*:([^\s@/]+)@", value)
        if match:
            values.append(match.group(1))
    return values
