# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether Redis evicts so fast that keeping anything in it is of no use. Pure: two `INFO`s, some seconds apart, in; a verdict out.

A full cache that evicts is at work and not ill, and how many keys go a second tells little: of half a million small keys 300 may
go each second, of twenty big ones not two. What tells is how long a key stays, and whether it is read in that time.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

# From here on old keys make room for new ones at any moment.
NEARLY_FULL = 0.9
# A cache in which keys do not stay for a minute holds nothing that is asked for again later.
LIFETIME_S = 60.0
# … unless what is asked for is asked for at once: then it does what it is for.
SERVED = 0.8
# Fewer in one look may be chance.
EVICTED_AT_LEAST = 5
# A memory that is full again so soon after it was given room was not mended.
FULL_AGAIN_S = 120.0
_DATABASE = re.compile(r"db\d+")
_KEYS = re.compile(r"keys=(\d+)")


@dataclass(frozen=True)
class Sample:
    """Of one `INFO`, what tells how keys come and go. `at` is the boot clock in seconds, sizes are bytes."""

    at: float
    used: int
    maxmemory: int
    keys: int
    evicted: int
    expired: int
    hits: int
    misses: int

    @property
    def nearly_full(self) -> bool:
        """Whether old keys have to make room for new ones, or are about to."""
        return self.maxmemory > 0 and self.used >= self.maxmemory * NEARLY_FULL


@dataclass(frozen=True)
class Turnover:
    """What happened between two samples: counts over `seconds`, of `keys` that were there at its end."""

    seconds: float
    keys: int
    evicted: int
    arrived: int
    hits: int
    misses: int

    @property
    def lifetime(self) -> float | None:
        """How many seconds a key stays at this pace; None while none has to go."""
        return self.keys * self.seconds / self.evicted if self.evicted else None

    @property
    def served(self) -> bool:
        """Whether what is read is there, and read more often than keys go."""
        return self.hits >= max(self.evicted, 1) and self.hits >= SERVED * (self.hits + self.misses)

    @property
    def storm(self) -> bool:
        """Whether keys go before they are of use, because others come. A limit that was lowered makes keys go, but none come."""
        lifetime = self.lifetime
        return (
            lifetime is not None
            and lifetime < LIFETIME_S
            and self.evicted >= EVICTED_AT_LEAST
            and 2 * self.arrived >= self.evicted
            and not self.served
        )


def sample(info: Mapping[str, Any], at: float) -> Sample:
    """Take it out of `INFO`, as the client's library parses it or as redis-cli prints it."""
    return Sample(
        at=at,
        used=int(info["used_memory"]),
        maxmemory=int(info["maxmemory"]),
        keys=sum(_keys(value) for name, value in info.items() if _DATABASE.fullmatch(name)),
        evicted=int(info["evicted_keys"]),
        expired=int(info["expired_keys"]),
        hits=int(info["keyspace_hits"]),
        misses=int(info["keyspace_misses"]),
    )


def _keys(value: Any) -> int:
    if isinstance(value, dict):
        return int(value["keys"])
    found = _KEYS.match(str(value))
    return int(found[1]) if found else 0


def turnover(first: Sample, second: Sample) -> Turnover | None:
    """Compare two samples; None when counters were set back between them (CONFIG RESETSTAT, a restart): they tell nothing."""
    evicted, expired = second.evicted - first.evicted, second.expired - first.expired
    hits, misses = second.hits - first.hits, second.misses - first.misses
    if min(evicted, expired, hits, misses) < 0:
        return None
    return Turnover(
        seconds=max(second.at - first.at, 0.1),
        keys=second.keys,
        evicted=evicted,
        # Deleted ones cannot be told apart; that makes it the least that can have come.
        arrived=max(second.keys - first.keys + evicted + expired, 0),
        hits=hits,
        misses=misses,
    )


def full_again(first: Sample, second: Sample) -> float | None:
    """Return in how many seconds memory is full at the pace between the samples; None when it does not grow or has no limit."""
    grown = second.used - first.used
    if grown <= 0 or not second.maxmemory:
        return None
    return max(second.maxmemory - second.used, 0) * max(second.at - first.at, 0.1) / grown


def judge(first: Sample, second: Sample, *, room: bool) -> tuple[bool, str]:
    """Tell whether no storm is on and, with `room`, whether the room that was made lasts; and what shows it."""
    seen = turnover(first, second)
    if seen is None:
        return False, "its counters were set back while it was looked at"
    if seen.storm:
        return False, f"{describe(seen)}; {reads(seen)}"
    # Once keys have to go for others, memory no longer grows: from then on the storm itself is what tells.
    lasts = full_again(first, second) if room and seen.evicted < EVICTED_AT_LEAST else None
    if lasts is not None and lasts < FULL_AGAIN_S:
        return False, f"full again in {lasts:.0f} s at this pace"
    return True, f"{seen.evicted} keys evicted in {seen.seconds:.1f} s"


def describe(seen: Turnover) -> str:
    """Say how fast keys come and go."""
    stays = "" if seen.lifetime is None else f", a key stays about {seen.lifetime:.0f} s"
    return f"{seen.evicted / seen.seconds:.0f} a second of {seen.keys}, {seen.arrived / seen.seconds:.0f} a second come{stays}"


def reads(seen: Turnover) -> str:
    """Say how many reads found what they asked for."""
    total = seen.hits + seen.misses
    return f"{seen.hits} of {total} reads found their key" if total else "nothing was read"
