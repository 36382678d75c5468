# SPDX-License-Identifier: GPL-3.0-or-later
"""A restore that was begun and has not ended: whether it can go on, what it was wanted for, and what else may be wanted. Pure.

Diagnosis and restore judge by the same rules: what one shows to the operator is what the other does.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

from .errors import Text, WhatsAgentError
from .postgres_target import parse_target_time

if TYPE_CHECKING:
    from collections.abc import Mapping

STEPS = (
    "planned",
    "fenced",
    "restored",
    "carried",
    "started",
    "replayed",
    "verified",
    "switched",
    "promoted",
    "served",
    "archiving",
    "checked",
    "backed_up",
)


def has_come_to(state: Mapping[str, Any], step: str) -> bool:
    """Tell whether a step is done."""
    return STEPS.index(state["step"]) >= STEPS.index(step)


def goes_on(state: Mapping[str, Any], volume: str, *, present: bool) -> bool:
    """Tell whether it can go on beside the volume that `.env` names; `present` tells whether that one exists.

    Before its switch it needs the volume that it began with, be it lost, and after it its own. With any other, somebody
    has decided otherwise since.
    """
    if volume == state["new_volume"]:
        return present
    return bool(volume == state["old_volume"] and not has_come_to(state, "switched"))


def same_wish(state: Mapping[str, Any], target_time: str | None, undo: str | None) -> bool:
    """Tell whether it was begun for what is wanted now. Who names nothing wants it finished as it was begun."""
    if target_time is None and undo is None:
        return True
    if undo is not None:
        return bool(state.get("undo") == undo)
    if state.get("undo") or not state.get("target_time"):
        return False
    try:
        return parse_target_time(target_time or "") == datetime.fromisoformat(state["target_time"])
    except WhatsAgentError:
        return False  # no time at all; who plans for it says so


def may_be_given_up(state: Mapping[str, Any], volume: str) -> bool:
    """Tell whether something else may be begun in its place, on consent.

    Before its switch nothing of it is in use, and once archiving on its timeline is proven its volume is a database like any
    other. In between it is neither: nobody could tell what a restore from there reaches, and what goes back behind it might take
    the timeline that no repository has seen.
    """
    return volume != state["new_volume"] or has_come_to(state, "archiving")


def wanted(state: Mapping[str, Any]) -> tuple[str, str]:
    """Say what it was begun for, English and Portuguese."""
    if state.get("undo"):
        return f"back behind the restore {state['undo']}", f"voltar para antes da restauração {state['undo']}"
    if state.get("target_time"):
        return f"back to {state['target_time']}", f"voltar a {state['target_time']}"
    return "every commit that can be found", "todos os commits que se possam encontrar"


def finish_first(state: Mapping[str, Any]) -> Text:
    """Say why nothing else can be begun now, and what to run."""
    english, portuguese = wanted(state)
    return {
        "en": f"the restore {state['id']} ({english}) has switched volumes and is not finished, so nothing else is begun: run "
        "playbooks/recover_db.yml without target_time and undo, which finishes it, then ask for this again",
        "pt": f"a restauração {state['id']} ({portuguese}) já trocou de volume e não terminou, por isso nada mais é iniciado: "
        "execute playbooks/recover_db.yml sem target_time e undo, que a termina, e depois peça isto de novo",
    }
