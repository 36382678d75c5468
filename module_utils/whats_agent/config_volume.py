# SPDX-License-Identifier: GPL-3.0-or-later
"""Which volume a recovered `.env` names. The database is state: it is never switched, and never guessed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


@dataclass(frozen=True)
class VolumeEvidence:
    """What tells which volume holds the database; '' where nothing does.

    `env`: DB_VOLUME of the present file; `mounted`: what the postgres container has; `restored`: what the last finished restore
    made; `copied`: what the last good copy named; `existing`: all volumes with the database's label, oldest first;
    `unfinished`: the state of a restore that has not ended; `named`: the operator's choice.
    """

    env: str = ""
    mounted: str = ""
    restored: str = ""
    copied: str = ""
    existing: Sequence[str] = ()
    unfinished: Mapping[str, Any] | None = None
    named: str = ""


def choose(seen: VolumeEvidence) -> str | None:  # noqa: PLR0911 - one ladder of evidence, read from the top
    """Return the volume in use, or None when the evidence does not tell."""
    if seen.unfinished is not None:
        # Between two volumes, `.env` is what the restore itself goes by.
        both = (seen.unfinished.get("old_volume"), seen.unfinished.get("new_volume"))
        return next((name for name in (seen.env, seen.mounted) if name and name in both), None)
    if seen.env and seen.env == seen.mounted:
        return seen.env
    if seen.named:
        return seen.named if seen.named in seen.existing else None
    # What a finished restore made, or the server itself has open, is newer than what any file says.
    for name in (seen.restored, seen.mounted):
        if name and name in seen.existing:
            return name
    if seen.mounted:
        return seen.mounted  # gone, and for playbooks/recover_db.yml to bring back
    said = {name for name in (seen.env, seen.copied) if name in seen.existing}
    if len(said) == 1 and seen.existing[-1] in said:
        return said.pop()
    if not said and len(seen.existing) == 1:
        return seen.existing[0]
    if not seen.existing:
        return seen.env or seen.copied or None
    return None
