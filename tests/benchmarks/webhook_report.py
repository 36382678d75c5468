# SPDX-License-Identifier: GPL-3.0-or-later
"""The page about the webhook's speed: what was measured, put between the words that say what it means."""

from __future__ import annotations

import os
import statistics
import time
from datetime import UTC, datetime
from pathlib import Path

from tests.benchmarks.machine import described

PAGE = "docs/webhook_speed.md"
SYNCS = 200

_PAGE = """# How fast webhooks are accepted

Written by `tests/benchmarks/webhook.py --write-docs` on {day}: {machine}. Measure anew rather than believe it for another
machine.

Three servers on the same gunicorn settings and the same signed text messages, over the loopback, in short rounds that
take turns: an empty Flask endpoint that does nothing at all, this agent, which answers 200 only once the message is on
the disk, and pywa's Flask server, which keeps nothing. Ratio and percentiles are medians over the rounds.

{measured}

## What bounds it

- **The processor, not the disk.** Requests that arrive together share one sync, so the disk is asked once per batch
  however many messages are in it; the figure above says how many. What is left is Python's own time per request, in the
  table as CPU µs/request, for the HTTP of gunicorn, an HMAC over the body and one row of SQLite. The empty endpoint has
  the first of the three and Flask's request and response on top, which the webhook does without (`webhook/acceptance.py`
  says why).
- **A lone message waits for one sync** of the disk and for nothing else: the slower that is, the later its 200.
- **Answers are bounded by Meta**: 80 messages a second for a number, one per 6 s to one user after a burst of 45. The
  time from webhook to answer above is the agent's own, since the stand-ins answer at once; OpenAI's comes on top.

## How it scales out

1. More processor for the web: `stack_app_replicas` and `stack_limits`. All replicas append to the one message log of the
   server and take turns at its lock; a sync is shared within a process, so twice the processes are twice the syncs at the
   same load. Two replicas are the default so that one can be replaced without a refused webhook, not for speed.
2. More answers in the making: `SENDER_THREADS`, then `stack_worker_replicas`. Workers share the queue in PostgreSQL,
   Meta's rate limits and the circuit breaker; order and exactly-once do not depend on their number.
3. More than one server: a business number belongs to one stack, since the message log is what makes its answers exact.
   Several numbers go on several stacks, each with its own callback address at Meta (a number may override the app's).

Meta delivers to one number at most what its users write: 80 answers a second at the very most have as many questions
before them, a small part of what one server accepts.
"""


def sync_milliseconds(directory: Path) -> float:
    """The median time of writing 4 KiB at the end of a file and syncing it, as each commit of the log does."""
    path = directory / "sync_probe"
    taken = []
    with path.open("wb", buffering=0) as file:
        for _ in range(SYNCS):
            file.write(b"\0" * 4096)
            started = time.perf_counter()
            os.fdatasync(file.fileno())
            taken.append(time.perf_counter() - started)
    path.unlink()
    return statistics.median(taken) * 1000


def write(root: Path, measured: list[str]) -> None:
    """Write the page."""
    text = _PAGE.format(day=datetime.now(UTC).date(), machine=described(), measured="\n".join(measured).strip())
    (root / PAGE).write_text(text, encoding="utf-8")
    print(f"written: {PAGE}")
