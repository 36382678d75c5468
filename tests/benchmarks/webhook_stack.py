# SPDX-License-Identifier: GPL-3.0-or-later
"""The whole path in containers: from webhook to answer handed to Graph, and a day's traffic in small."""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import docker

from tests.integration.agent.containers import Service, Session
from tests.integration.agent.images import find
from tests.integration.agent.stack import Stack
from tests.integration.agent.traffic import Traffic, new_phone
from tests.integration.agent.waiting import eventually

PEOPLE = 4
MESSAGES = 100
SAMPLES = 6
GROWTH_LIMIT = 1.15
"""Growth of memory over the second half of the day that still counts as none."""


@contextmanager
def whole_stack() -> Iterator[Stack]:
    """A stack with the agent's default settings, removed at the end."""
    client = docker.from_env(timeout=120)
    session = Session(client)
    try:
        stack = Stack(session, find(client))
        stack.start()
        stack.replace_agent({"PROJECTION_BATCH": "500"}, {})
        yield stack
        stack.close()
    finally:
        session.remove()
        client.close()


def answer_times(stack: Stack) -> list[float]:
    """Seconds from posting a webhook to the Graph API's acceptance of the answer, of messages sent one after another."""
    traffic = Traffic(stack)
    posted: dict[str, float] = {}
    for number in range(1, MESSAGES + 1):
        phone = new_phone()
        posted[phone] = time.time()
        traffic.send(phone)
        # Only then the next: the time of one answer, not of a queue of them.
        eventually(lambda number=number: traffic.answered() >= number, "the answer", pause=0.02)  # type: ignore[misc]
    return [
        datetime.fromisoformat(send["at"]).timestamp() - posted[send["to"]]
        for send in stack.sends()
        if send["to"] in posted
    ]


@dataclass(frozen=True)
class Sample:
    """Of one service at one moment."""

    resident: int
    open_files: int


def sample(service: Service) -> Sample:
    """Memory and open files of everything in the container."""
    resident = files = 0
    for pid in service.process_ids():
        status = Path(f"/proc/{pid}/smaps_rollup").read_text()
        resident += next(int(line.split()[1]) for line in status.splitlines() if line.startswith("Pss:")) * 1024
        files += len(list(Path(f"/proc/{pid}/fd").iterdir()))
    return Sample(resident, files)


def connections(stack: Stack) -> int:
    """Client connections that PostgreSQL holds."""
    (row,) = stack.sql(
        "select count(*) as n from pg_stat_activity where usename = 'whats_agent' and pid <> pg_backend_pid()"
    )
    count: int = row["n"]
    return count


def day_in_small(stack: Stack, seconds: float) -> dict[str, list[int]]:
    """Steady traffic for ``seconds``; what grew is seen in samples taken at equal distances, the first after a warm-up."""
    traffic = Traffic(stack)
    stop = traffic.until_stopped(people=PEOPLE, pause=0.3)
    seen: dict[str, list[int]] = {}
    try:
        for _ in range(SAMPLES):
            threading.Event().wait(seconds / SAMPLES)
            for service in (stack.app, stack.worker):
                taken = sample(service)
                seen.setdefault(f"{service.name} memory", []).append(taken.resident)
                seen.setdefault(f"{service.name} open files", []).append(taken.open_files)
            seen.setdefault("database connections", []).append(connections(stack))
    finally:
        stop()
    counts = traffic.verify(limit=300)
    seen["messages"] = [counts["acknowledged"]]
    return seen


def grew(name: str, values: list[int]) -> bool:
    """Whether the last samples lie above those of the middle."""
    half = len(values) // 2
    before, after = statistics.median(values[half - 1 : half + 1]), statistics.median(values[-2:])
    return after > before * GROWTH_LIMIT if "memory" in name else after > before + 5


def run(day_seconds: float, say: Callable[..., None]) -> dict[str, float | int]:
    """Measure, tell ``say``, and return what belongs in the last line."""
    with whole_stack() as stack:
        times = sorted(answer_times(stack))
        p50, p95 = times[len(times) // 2], times[int(len(times) * 0.95)]
        say(
            f"- webhook to answer handed to Graph, {len(times)} messages: p50 {p50 * 1000:.0f} ms, p95 {p95 * 1000:.0f} ms"
        )
        seen = day_in_small(stack, day_seconds)
    (messages,) = seen.pop("messages")
    say(f"- a day in small: {messages} messages in {day_seconds:.0f} s, all answered once", "")
    say("| what | samples | grew |", "|---|---|---|")
    for name, values in seen.items():
        shown = [f"{value / 2**20:.0f} MiB" if "memory" in name else str(value) for value in values]
        say(f"| {name} | {', '.join(shown)} | {'yes' if grew(name, values) else 'no'} |")
    return {
        "answer_p50_ms": round(p50 * 1000),
        "answer_p95_ms": round(p95 * 1000),
        "day_messages": messages,
        "grew": sum(grew(name, values) for name, values in seen.items()),
    }
