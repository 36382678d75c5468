# SPDX-License-Identifier: GPL-3.0-or-later
"""What an answer of the Graph API means for the message and for the sender: three classes of errors, and the unknown."""

from dataclasses import dataclass
from typing import Any

from whats_agent.outbox.records import Outcome

PAIR_RATE_LIMIT = 131056
MAX_DELAY_SECONDS = 300.0

# Try again later: limits and trouble on Meta's side.
RETRY_CODES = frozenset(
    {1, 2, 4, 80007, 130429, 131000, 131016, 131048, PAIR_RATE_LIMIT, 131057, 133004, 133016, 2494055}
)
# Would hit every message: token, permission, account, number. The queue waits until somebody mended it.
STOP_CODES = frozenset({0, 3, 10, 102, 190, 368, 131005, 131031, 131042, 131045, 133010, 2500})
_PERMISSIONS = range(200, 300)
# "Object does not exist or cannot be loaded": the phone number id or the token's access to it is wrong.
_WRONG_OBJECT = (100, 33)


@dataclass(frozen=True, slots=True)
class GraphAnswer:
    """The meaning of one call."""

    outcome: Outcome
    wamid: str | None = None
    error_code: int | None = None
    error: str | None = None
    retry_after: float | None = None


def read_answer(status: int, body: Any, retry_after: str | None) -> GraphAnswer:
    """The meaning of an HTTP answer with ``status`` and decoded JSON ``body`` (None when it was no JSON)."""
    error = body.get("error") if isinstance(body, dict) else None
    if isinstance(error, dict):
        code = error.get("code")
        code = code if isinstance(code, int) else None
        text = f"{error.get('message', '')}"[:500]
        return GraphAnswer(classify(status, code, error.get("error_subcode")), None, code, text, _seconds(retry_after))
    wamid = _wamid(body)
    if wamid and 200 <= status < 300:
        return GraphAnswer(Outcome.SENT, wamid)
    outcome = classify(status, None)
    if (outcome is Outcome.RETRY and status != 429) or 200 <= status < 300:
        # A gateway's page, or an answer without a message id: what was behind it may have taken the message.
        outcome = Outcome.UNKNOWN
    return GraphAnswer(
        outcome, error=f"status {status} without an error of the Graph API", retry_after=_seconds(retry_after)
    )


def classify(status: int, code: int | None, subcode: Any = None) -> Outcome:
    """The class of a Graph error; an unknown code counts by its HTTP status."""
    if code is not None:
        if code in STOP_CODES or code in _PERMISSIONS or (code, subcode) == _WRONG_OBJECT:
            return Outcome.STOPPED
        if code in RETRY_CODES:
            return Outcome.RETRY
    if status in (401, 403):
        return Outcome.STOPPED
    return Outcome.RETRY if status >= 500 or status == 429 else Outcome.FAILED


def delay_for(answer: GraphAnswer, attempt: int) -> float:
    """Seconds until the next try after the ``attempt``-th failed: 4^n for the pair limit as Meta asks, else 2^n; at most 5 min."""
    base = 4.0 if answer.error_code == PAIR_RATE_LIMIT else 2.0
    delay = min(base ** min(attempt, 10), MAX_DELAY_SECONDS)
    return min(max(delay, answer.retry_after or 0.0), 3600.0)


def _wamid(body: Any) -> str | None:
    messages = body.get("messages") if isinstance(body, dict) else None
    first = messages[0] if isinstance(messages, list) and messages else None
    wamid = first.get("id") if isinstance(first, dict) else None
    return wamid if isinstance(wamid, str) and wamid else None


def _seconds(text: str | None) -> float | None:
    try:
        return max(float(text), 0.0) if text else None
    except ValueError:
        return None
