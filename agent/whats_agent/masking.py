# SPDX-License-Identifier: GPL-3.0-or-later
"""Keep phone numbers and secrets out of whatever is written down.

Two lines of defence: callers mask what they know to be a number (``mask_number``), and the log formatter passes every
finished line through ``mask_text``, which hides whatever still looks like a number or a token.
"""

import re
from collections.abc import Iterable

# Graph tokens begin with EA, OpenAI keys with sk-, bearer headers say so. Names of secrets in key=value or JSON form.
_TOKEN = re.compile(r"\b(?:EA[A-Za-z0-9]{20,}|sk-[A-Za-z0-9_-]{8,})")
_BEARER = re.compile(r"(?i)\b(bearer\s+)[A-Za-z0-9._~+/=-]{8,}")
_NAMED = re.compile(
    r"(?i)(\b(?:access_token|appsecret_proof|api[_-]?key|password|secret|verify_token)\b[\"']?\s*[=:]\s*[\"']?)[^\s\"'&,}]+"
)
# 8 to 15 digits standing alone (E.164), with or without +. wamids and UUIDs hold letters next to digits and stay readable;
# longer runs of digits are ids of Meta's objects.
_NUMBER = re.compile(r"(?<![\w.:/=-])\+?(\d{4})\d{2,9}(\d{2})(?![\w.-]|:\d)")
_NUMBER_FIELD = re.compile(
    r"(?i)(\b(?:from|to|wa_id|recipient|recipient_id|contact|phone|number)\b[\"']?\s*[=:]\s*[\"']?)\+?(\d{2,4})\d{4,}(\d{2})"
)

_known_secrets: list[str] = []


def know_secrets(values: Iterable[str], *, keep: bool = False) -> None:
    """Have ``mask_text`` hide exactly these values too, beside those known before when ``keep`` is set."""
    known = {value for value in values if len(value) >= 6} | (set(_known_secrets) if keep else set())
    _known_secrets[:] = sorted(known, key=len, reverse=True)


def mask_number(number: str | None) -> str:
    """``5511999990001`` -> ``5511*******01``; short or missing values become ``****``."""
    if not number or len(number) < 8:
        return "****"
    return f"{number[:4]}{'*' * (len(number) - 6)}{number[-2:]}"


def mask_text(text: str) -> str:
    """``text`` without known secrets, tokens and phone numbers."""
    for secret in _known_secrets:
        if secret in text:
            text = text.replace(secret, "[secret]")
    text = _TOKEN.sub("[secret]", text)
    text = _BEARER.sub(r"\1[secret]", text)
    text = _NAMED.sub(r"\1[secret]", text)
    text = _NUMBER_FIELD.sub(r"\1\2****\3", text)
    return _NUMBER.sub(r"\1****\2", text)
