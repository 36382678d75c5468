# SPDX-License-Identifier: GPL-3.0-or-later
"""Timelines: which backups replay leads on from to the one that a server is on. Pure.

Going back in time, and back behind that again, leaves timelines behind that nothing leads to any more, with backups of their own.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from . import pgbackrest

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .pgbackrest import Backup

# A line of a history file: the earlier timeline, where it was left, and why.
_LEFT = re.compile(r"^\s*(\d+)\s+([0-9A-F]+/[0-9A-F]+)", re.MULTILINE)


@dataclass(frozen=True)
class TimelinePath:
    """A timeline, and where each one before it was left for the next, as numbers of LSNs."""

    timeline: int
    left: Mapping[int, int] = field(default_factory=dict)

    @classmethod
    def of(cls, timeline: int, history: str) -> TimelinePath:
        """Read the content of the timeline's history file; the first timeline has none."""
        return cls(timeline, {int(number): pgbackrest.lsn_value(lsn) for number, lsn in _LEFT.findall(history)})

    def leads_from(self, backup: Backup) -> bool:
        """Tell whether replay from a backup comes here: it was taken here, or on the way before the way was left."""
        if backup.timeline == self.timeline:
            return True
        left = self.left.get(backup.timeline)
        return left is not None and pgbackrest.lsn_value(backup.lsn_stop) <= left
