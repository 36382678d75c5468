# SPDX-License-Identifier: GPL-3.0-or-later
"""Which volume a deployment gives to PostgreSQL, and whether a new database may be made in it.

A lost volume must never become a silent new database. So a database is only made where nothing shows that there ever
was one, and an interrupted first deployment, known by its own note on the server, goes on where it stopped.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from .errors import WhatsAgentError

if TYPE_CHECKING:
    from collections.abc import Sequence

PGDATA_LABEL = "whats_agent.role"
PGDATA_ROLE = "pgdata"
PGDATA_PREFIX = "whats_agent_pgdata_"


@dataclass(frozen=True)
class Seen:
    """What the server shows. `configured` is `.env`'s DB_VOLUME ('' without the file); `noted` the volume an unfinished
    first deployment had begun with ('' for none); `has_env` whether `.env` exists.
    """

    has_env: bool
    configured: str
    noted: str
    volumes: Sequence[str]
    has_backups: bool


@dataclass(frozen=True)
class Decision:
    """The volume to use; whether it is still to be created; whether a new database is to be made in it."""

    volume: str
    create: bool
    initialise: bool


def decide(seen: Seen, new_name: str) -> Decision:
    """Return what a deployment may do; refuse, saying what to do instead, where data may have been lost."""
    if seen.noted and not seen.has_backups and seen.configured in ("", seen.noted):
        return Decision(seen.noted, create=seen.noted not in seen.volumes, initialise=True)
    if seen.has_env:
        if not seen.configured:
            raise WhatsAgentError(
                ".env lacks DB_VOLUME: restore it (playbooks/recover_config.yml)", missing=["DB_VOLUME"]
            )
        if seen.configured not in seen.volumes:
            raise WhatsAgentError(
                f"the database volume {seen.configured} is gone: a deployment makes no empty one in its place; "
                "restore it (playbooks/recover_db.yml)",
                volume=seen.configured,
            )
        return Decision(seen.configured, create=False, initialise=False)
    if seen.volumes:
        raise WhatsAgentError(
            f".env is gone, but there are database volumes here ({', '.join(seen.volumes)}): restore .env first "
            "(playbooks/recover_config.yml), or remove all with playbooks/down.yml",
            volumes=list(seen.volumes),
        )
    if seen.has_backups:
        raise WhatsAgentError(
            ".env and the database volume are gone, but the backup repository holds a database: "
            "restore it (playbooks/disaster_recovery.yml); a deployment would begin an empty one"
        )
    return Decision(new_name, create=True, initialise=True)
