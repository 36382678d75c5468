# SPDX-License-Identifier: GPL-3.0-or-later
"""Raw bytes -> JSON that PostgreSQL can store.

Lenient on purpose: these bytes were signed by Meta and acknowledged by us, so as much as possible of them must survive. What
PostgreSQL's ``jsonb`` cannot hold (NUL, lone surrogates, infinities, numbers of absurd length) is replaced by a readable stand-in.
"""

import json
import math
import re
from typing import Any

from whats_agent.errors import UnreadableItemError

MAX_DEPTH = 64
MAX_DIGITS = 30
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")


def _integer(digits: str) -> int | str:
    return int(digits) if len(digits) <= MAX_DIGITS else digits[:64]


def _number(text: str) -> float | str:
    value = float(text)
    return value if math.isfinite(value) else text[:64]


def decode(raw: bytes) -> Any:
    """The JSON document in ``raw``. Raises UnreadableItemError when there is none.

    Bytes that are not UTF-8 are replaced, so that one broken name does not cost the rest of the batch.
    """
    text = raw.decode("utf-8", "replace")
    try:
        return json.loads(text, parse_int=_integer, parse_float=_number, parse_constant=str)
    except RecursionError:
        raise UnreadableItemError("the body is nested too deeply") from None
    except ValueError as error:
        raise UnreadableItemError(f"the body is not JSON: {error}") from None


def storable_text(text: str) -> str:
    """``text`` with what PostgreSQL refuses replaced by U+FFFD."""
    return _UNSTORABLE.sub("\N{REPLACEMENT CHARACTER}", text)


def storable(value: Any, depth: int = 0) -> Any:
    """``value`` with every string storable. Raises UnreadableItemError beyond MAX_DEPTH levels."""
    if depth > MAX_DEPTH:
        raise UnreadableItemError(f"nested deeper than {MAX_DEPTH} levels")
    if isinstance(value, str):
        return storable_text(value)
    if isinstance(value, dict):
        return {storable_text(str(key)): storable(item, depth + 1) for key, item in value.items()}
    if isinstance(value, list):
        return [storable(item, depth + 1) for item in value]
    return value


def as_text(value: Any, limit: int = 100_000) -> str:
    """Any JSON value as text to be kept with an unreadable item, cut at ``limit`` characters."""
    try:
        return storable_text(json.dumps(value, ensure_ascii=False))[:limit]
    except (RecursionError, ValueError):
        return "(nested too deeply to be shown)"
