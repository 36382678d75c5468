# SPDX-License-Identifier: GPL-3.0-or-later
"""Clocks. Durations and leases use the boot clock of one machine; wall-clock time is only for people to read."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

BOOT_ID_PATH = Path("/proc/sys/kernel/random/boot_id")


def read_boot_id() -> str:
    """Return the id of this boot; another id means that every boot-clock reading kept from before is void."""
    return BOOT_ID_PATH.read_text(encoding="ascii").strip()


@dataclass(frozen=True)
class Clock:
    """The time sources of one machine, replaceable in tests.

    `boottime` counts seconds since boot, suspend included, and never jumps. `wall` is seconds since the epoch and may
    jump.
    """

    boottime: Callable[[], float] = lambda: time.clock_gettime(time.CLOCK_BOOTTIME)
    boot_id: Callable[[], str] = read_boot_id
    wall: Callable[[], float] = time.time
    sleep: Callable[[float], None] = time.sleep

    def utc(self) -> datetime:
        """Return the wall clock's time, with its offset."""
        return datetime.fromtimestamp(self.wall(), tz=UTC)

    def rfc3339(self) -> str:
        """Return the wall clock's time as `2026-01-31T12:00:00.123Z`."""
        return self.utc().isoformat(timespec="milliseconds").replace("+00:00", "Z")

    def stamp(self) -> str:
        """Return the wall clock's time as `20260131T120000Z`, which sorts and fits in names."""
        return self.utc().strftime("%Y%m%dT%H%M%SZ")


SYSTEM_CLOCK = Clock()
