# SPDX-License-Identifier: GPL-3.0-or-later
"""What is counted, and where each number lies in a process's file. Every label has a closed list of values."""

import zlib
from typing import NamedTuple

ENDPOINTS = ("webhook", "handshake", "health", "performance", "business", "alerts", "metrics", "openapi", "other")
STATUS_CLASSES = ("2xx", "3xx", "4xx", "5xx")
OUTCOMES = ("sent", "retry", "stopped", "failed", "unknown")
SOURCES = ("openai", "fallback", "polite", "handover", "handback")
ITEMS = ("message", "echo", "status", "account_event", "unreadable", "send", "control")
TOKENS = ("prompt", "completion")
OPENAI_RESULTS = ("ok", "error", "breaker_open")


class Family(NamedTuple):
    """A histogram of seconds, kept since ever and by windows."""

    name: str
    help: str


REQUEST = "request"
ANSWER = "answer"
OPENAI = "openai"
REFUSED = "refused"
FAMILIES = (
    Family(REQUEST, "HTTP requests answered; errors are those answered with 5xx"),
    Family(ANSWER, "from a message's acceptance to Meta taking its answer; errors are answers that failed"),
    Family(OPENAI, "calls to OpenAI, retries included; errors are calls that gave no answer"),
    Family(REFUSED, "webhook deliveries turned down for their signature or size"),
)
# Seconds. Fine where the targets lie (50 ms, 100 ms, 2 s), coarse elsewhere.
BOUNDS = (
    *(0.001, 0.002, 0.005, 0.01, 0.02, 0.035, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 0.75),
    *(1.0, 1.5, 2.0, 3.0, 5.0, 7.5, 10.0, 15.0, 30.0, 60.0, 120.0, 300.0),
)
WINDOW_SECONDS = 10
WINDOWS = 96  # sixteen minutes

COUNTERS: tuple[str, ...] = (
    *(f"http_requests_total|{endpoint}|{status}" for endpoint in ENDPOINTS for status in STATUS_CLASSES),
    *(f"sends_total|{outcome}" for outcome in OUTCOMES),
    *(f"answers_total|{source}" for source in SOURCES),
    *(f"items_total|{item}" for item in ITEMS),
    *(f"openai_tokens_total|{kind}" for kind in TOKENS),
    *(f"openai_calls_total|{result}" for result in OPENAI_RESULTS),
    "log_records_total",
    "log_syncs_total",
)
LABELS = {
    "http_requests_total": ("endpoint", "status"),
    "sends_total": ("outcome",),
    "answers_total": ("source",),
    "items_total": ("kind",),
    "openai_tokens_total": ("kind",),
    "openai_calls_total": ("result",),
    "log_records_total": (),
    "log_syncs_total": (),
}
HELP = {
    "http_requests_total": "HTTP requests answered",
    "sends_total": "attempts to hand an answer to the Graph API",
    "answers_total": "answers that the Graph API took, by where their text came from",
    "items_total": "items of the message log written into PostgreSQL",
    "openai_tokens_total": "tokens used",
    "openai_calls_total": "calls to OpenAI",
    "log_records_total": "records appended to the message log",
    "log_syncs_total": "commits, each with one fsync, that they took",
}

# One distribution: a count for each bound and one beyond, then sum of seconds, errors, greatest value.
BUCKETS = len(BOUNDS) + 1
SUM, ERRORS, GREATEST = BUCKETS, BUCKETS + 1, BUCKETS + 2
DISTRIBUTION = BUCKETS + 3
# A window is a distribution after the number of the ten seconds it belongs to.
WINDOW = DISTRIBUTION + 1
FAMILY = DISTRIBUTION + WINDOWS * WINDOW

COUNTER_AT = {name: 1 + number for number, name in enumerate(COUNTERS)}
FAMILY_AT = {family.name: 1 + len(COUNTERS) + number * FAMILY for number, family in enumerate(FAMILIES)}
NUMBERS = 1 + len(COUNTERS) + len(FAMILIES) * FAMILY
# The first number tells the layout: a file of another release is emptied rather than misread.
SIGNATURE = float(zlib.crc32(repr((COUNTERS, FAMILIES, BOUNDS, WINDOW_SECONDS, WINDOWS)).encode()))
