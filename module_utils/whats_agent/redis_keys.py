# SPDX-License-Identifier: GPL-3.0-or-later
"""The keys of Redis by what they are for: the agent's cache, the agent's state, and what does not belong there.

All work goes through SCAN in small steps: nothing here holds Redis up, and nothing here removes more than one family.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from .clock import SYSTEM_CLOCK, Clock
from .redis_host import CACHE, STATE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

BATCH = 500
SCAN_BUDGET_S = 1.5
PREFIXES_SHOWN = 5


@dataclass
class Family:
    """Keys of one kind: how many, how many bytes, how many without a time to live."""

    keys: int = 0
    bytes: int = 0
    without_ttl: int = 0


@dataclass
class Census:
    """What a scan counted. `complete` is false when its time was up; `prefixes` are of foreign keys without a time to live,
    `kinds` are the bytes of those kinds of keys, of all families, that take most.
    """

    cache: Family = field(default_factory=Family)
    state: Family = field(default_factory=Family)
    foreign: Family = field(default_factory=Family)
    prefixes: dict[str, int] = field(default_factory=dict)
    complete: bool = True
    kinds: dict[str, int] = field(default_factory=dict)


def family_of(key: bytes) -> str:
    """Return what a key is for: cache, state or foreign."""
    if key.startswith(CACHE.encode()):
        return "cache"
    return "state" if key.startswith(STATE.encode()) else "foreign"


def prefix_of(key: bytes) -> str:
    """Return the part of a key that tells who wrote it; the rest may name a person."""
    head = key.split(b":", 1)[0] if b":" in key else b"(no prefix)"
    return head.decode("ascii", "replace")[:40]


def kind_of(key: bytes) -> str:
    """Return what an agent's key is about (`whats_agent:cache:reply`), where that is not its last part, which may name a person."""
    family = {"cache": CACHE, "state": STATE}.get(family_of(key))
    if family is None:
        return prefix_of(key)
    head, colon, _ = key[len(family) :].partition(b":")
    return family + head.decode("ascii", "replace")[:40] if colon else family.rstrip(":")


def batches(client: Any, pattern: str | None = None) -> Iterator[list[bytes]]:
    """Yield the keys in batches; a key may come twice, as SCAN says."""
    cursor = 0
    while True:
        cursor, keys = client.scan(cursor=cursor, match=pattern, count=BATCH)
        if keys:
            yield list(keys)
        if cursor == 0:
            return


def take_census(client: Any, budget_s: float = SCAN_BUDGET_S, clock: Clock = SYSTEM_CLOCK) -> Census:
    """Count the keys for as long as the budget lasts."""
    census = Census()
    prefixes: Counter[str] = Counter()
    kinds: Counter[str] = Counter()
    deadline = clock.boottime() + budget_s
    for keys in batches(client):
        pipeline = client.pipeline(transaction=False)
        for key in keys:
            pipeline.ttl(key)
            pipeline.memory_usage(key, samples=1)
        answers = pipeline.execute()
        for number, key in enumerate(keys):
            ttl, size = answers[2 * number], answers[2 * number + 1]
            if ttl == -2:
                continue  # gone meanwhile
            name = family_of(key)
            family: Family = getattr(census, name)
            family.keys += 1
            family.bytes += int(size or 0)
            kinds[kind_of(key)] += int(size or 0)
            if ttl == -1:
                family.without_ttl += 1
                if name == "foreign":
                    prefixes[prefix_of(key)] += 1
        if clock.boottime() >= deadline:
            census.complete = False
            break
    census.prefixes = dict(prefixes.most_common(PREFIXES_SHOWN))
    census.kinds = dict(kinds.most_common(PREFIXES_SHOWN))
    return census


def unlink_cache(client: Any, beat: Callable[[], None]) -> int:
    """Remove the cache keys and no others; return how many."""
    removed = 0
    for keys in batches(client, f"{CACHE}*"):
        beat()
        removed += int(client.unlink(*[key for key in keys if family_of(key) == "cache"]))
    return removed


def give_cache_ttl(client: Any, seconds: int, beat: Callable[[], None]) -> int:
    """Give cache keys without a time to live one; return how many."""
    given = 0
    for keys in batches(client, f"{CACHE}*"):
        beat()
        pipeline = client.pipeline(transaction=False)
        for key in _lasting(client, keys):
            pipeline.expire(key, seconds)
        given += sum(int(answer) for answer in pipeline.execute())
    return given


def _lasting(client: Any, keys: list[bytes]) -> list[bytes]:
    """Return those of the keys that have no time to live."""
    pipeline = client.pipeline(transaction=False)
    for key in keys:
        pipeline.ttl(key)
    return [key for key, ttl in zip(keys, pipeline.execute(), strict=True) if ttl == -1]


def unlink_foreign(client: Any, beat: Callable[[], None]) -> int:
    """Remove foreign keys without a time to live; return how many. Only with the operator's consent."""
    removed = 0
    for keys in batches(client):
        beat()
        lasting = _lasting(client, [key for key in keys if family_of(key) == "foreign"])
        if lasting:
            removed += int(client.unlink(*lasting))
    return removed
