# SPDX-License-Identifier: GPL-3.0-or-later
"""Points in time: which ones a restore can reach, and whether a wanted one is among them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from . import pgbackrest
from .errors import WhatsAgentError
from .postgres_host import DATA_DIR
from .postgres_wal import segments_in

if TYPE_CHECKING:
    from pathlib import Path

    from .clock import Clock
    from .pgbackrest import Repository
    from .postgres_backrest import Backrest

CLOCK_SLACK_S = 60


def parse_target_time(text: str) -> datetime:
    """Read a point in time. Without an offset it would silently mean the container's zone, so that is refused."""
    try:
        moment = datetime.fromisoformat(text.strip().replace("Z", "+00:00"))
    except ValueError as error:
        raise WhatsAgentError(
            f"{text!r} is no time; write it as 2026-01-31T12:00:00-03:00",
            pt=f"{text!r} não é um momento; escreva como 2026-01-31T12:00:00-03:00",
        ) from error
    if moment.tzinfo is None:
        raise WhatsAgentError(
            f"{text!r} names no offset from UTC; write it as 2026-01-31T12:00:00-03:00 or with a Z",
            pt=f"{text!r} não diz o fuso; escreva como 2026-01-31T12:00:00-03:00 ou com Z",
        )
    return moment


def postgres_time(moment: datetime) -> str:
    """Return a time as PostgreSQL's recovery target reads it, offset included."""
    return moment.isoformat(sep=" ", timespec="microseconds")


_COMMIT = re.compile(r"COMMIT (\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(?:\.\d+)?) UTC")
# Prints the last commit of the first of the named segments that has one. pg_waldump ends with an error where the records end.
_LAST_COMMIT = (
    'for name in "$@"; do '
    f'found=$(pg_waldump --rmgr=Transaction "{DATA_DIR}/pg_wal/$name" 2>/dev/null | grep -o "COMMIT .* UTC" | tail -n 1); '
    'if [ -n "$found" ]; then echo "$found"; exit 0; fi; done; exit 0'
)


def parse_last_commit(output: str) -> float | None:
    """Return the time (seconds since the epoch) of the last commit that `pg_waldump` lists, or None."""
    found = _COMMIT.findall(output)
    return datetime.fromisoformat(f"{found[-1]}+00:00").timestamp() if found else None


def last_commit(backrest: Backrest, volume: str, data_dir: Path | None) -> float | None:
    """Return the time of the last commit of a server that is gone, at most too late; None when nothing tells.

    The old volume's WAL tells it exactly. Without it the archive does not (it opens only over a restored volume), but no
    commit in it is younger than its newest file.
    """
    if data_dir is not None and (data_dir / "pg_wal").is_dir():
        names = sorted(segments_in(data_dir), reverse=True)
        found = parse_last_commit(backrest.look_into(volume, ["sh", "-c", _LAST_COMMIT, "sh", *names]).stdout)
        if found is not None:
            return found
    return backrest.archived_at()


@dataclass(frozen=True)
class Window:
    """The points in time that a restore can reach, in seconds since the epoch; `alive`: the latest is now."""

    earliest: float
    latest: float
    alive: bool


def time_window(
    backrest: Backrest, repository: Repository, volume: str, data_dir: Path | None, *, alive: bool, clock: Clock
) -> Window:
    """Find the points in time that can be reached. A clock that runs behind its own backups cannot tell, and is an error."""
    pgbackrest.choose_backup(repository)
    now, newest = clock.wall(), max(b.stop for b in repository.backups)
    if now + CLOCK_SLACK_S < newest:
        raise WhatsAgentError(
            f"this host's clock says {pgbackrest.iso(now)}, before its newest backup of {pgbackrest.iso(newest)}: "
            "set it right before going back to a point in time (timedatectl)",
            pt=f"o relógio deste servidor diz {pgbackrest.iso(now)}, antes do seu backup mais novo, de "
            f"{pgbackrest.iso(newest)}: acerte-o antes de voltar a um momento (timedatectl)",
        )
    earliest = pgbackrest.earliest_time(repository) or float(newest)
    latest = now if alive else last_commit(backrest, volume, data_dir)
    return Window(earliest, newest if latest is None else latest, alive)


def check_target(text: str, window: Window) -> datetime:
    """Return the wanted time, or refuse one that is none, or cannot be reached, with the range that can be."""
    first, last = pgbackrest.iso(window.earliest), pgbackrest.iso(window.latest)
    english = f"; valid are {first} to {last}, or no time at all for everything"
    portuguese = f"; valem {first} a {last}, ou nenhum momento, para tudo"
    reason: tuple[str, str] | None = None
    try:
        moment = parse_target_time(text)
    except WhatsAgentError as error:
        raise WhatsAgentError(error.message + english, pt=f"{error.details['pt']}{portuguese}") from error
    if moment.timestamp() < window.earliest:
        reason = ("lies before the first backup", "é anterior ao primeiro backup")
    elif window.alive and moment.timestamp() > window.latest + 1:
        reason = ("lies in the future", "está no futuro")
    elif not window.alive and moment.timestamp() > window.latest:
        reason = ("lies after the last commit that can be had", "é depois do último commit disponível")
    if reason is not None:
        raise WhatsAgentError(f"{text} {reason[0]}{english}", pt=f"{text} {reason[1]}{portuguese}", range=[first, last])
    return moment
