# SPDX-License-Identifier: GPL-3.0-or-later
"""What a database that went back does not get again from the message log, since the log no longer holds it.

The log is pruned after eight days, up to what the newest proven backup holds. Whoever goes back further than that finds a gap:
entries after the position that the database was restored to and before the first that the log still has. The archives have them.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from .errors import WhatsAgentError
from .pgbackrest import PROJECTED

if TYPE_CHECKING:
    from .docker_host import DockerHost
    from .errors import Text
    from .pgbackrest import Backup

# The agent prunes nothing younger than eight days; what went back by less cannot have met a gap, and the log need not be asked.
MAY_BE_PRUNED_S = 7.5 * 86400
_TIMEOUT_S = 10.0
_HOLDERS = ("app", "worker")


def between(position: int | None, first: int | None) -> int | None:
    """Return how many entries at most lie between what a database holds and what its log still has; None: not known. Pure.

    At most: an id may also have been left out, where a log was imported.
    """
    return None if position is None or first is None else max(0, first - position - 1)


def projected(backup: Backup) -> int | None:
    """Return up to which entry a backup surely holds everything, as noted on it when it was taken."""
    noted = backup.annotations.get(PROJECTED, "")
    return int(noted) if noted.isdecimal() else None


def position_of(connection: Any) -> int | None:
    """Return up to which entry a database holds everything; None before the agent's first migration."""
    if connection.execute("select to_regclass('public.projection')").fetchone()[0] is None:
        return None
    row = connection.execute("select position from public.projection").fetchone()
    return int(row[0]) if row else None


def parse_first(stdout: str) -> int | None:
    """Return the lowest id that the log holds, from what `whats-agent log-status` printed; None from an older release."""
    try:
        value = json.loads(stdout)
        return int(value["first_id"]) if "first_id" in value else None
    except (ValueError, TypeError) as error:
        raise WhatsAgentError(f"log-status answered something else: {stdout.strip()[:200]!r}") from error


def first_held(docker: DockerHost, project: str) -> int | None:
    """Ask the agent, in whichever of its containers runs, for the lowest id that its log holds; None where none answers."""
    for service in _HOLDERS:
        container = docker.container(project, service)
        if container is None or not container.running:
            continue
        try:
            answer = docker.execute(container.id, ["whats-agent", "log-status"], timeout=_TIMEOUT_S)
            if answer.exit_code == 0:
                return parse_first(answer.stdout)
        except WhatsAgentError:
            continue
    return None


def told(gap: int | None) -> Text | None:
    """Say what a gap means and where its entries are; None where there is none. Pure."""
    if gap == 0:
        return None
    count = (
        ("up to " + str(gap), "até " + str(gap))
        if gap is not None
        else ("an unknown number of", "um número desconhecido de")
    )
    return {
        "en": f"{count[0]} entries after it were pruned from the message log and do not come back by themselves: "
        "the archives have them (operator's guide, Backups)",
        "pt": f"{count[1]} registros depois dele já saíram do log de mensagens e não voltam sozinhos: "
        "os arquivos do restic os têm (guia do operador, Backups)",
    }
