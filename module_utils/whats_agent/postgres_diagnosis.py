# SPDX-License-Identifier: GPL-3.0-or-later
"""Put the finding, the restore's plan and what the operator wishes together into one diagnosis."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from . import postgres_unfinished
from .clock import SYSTEM_CLOCK, Clock
from .errors import Text, WhatsAgentError
from .pgbackrest import away, told_away
from .postgres_causes import DEFAULT_LIMITS, KEEPS_OPEN, Finding, Limits, find
from .postgres_observe import PAGE_BUDGET_S, Observed, observe
from .postgres_plan import (
    RESERVE_BYTES,
    RestorePlan,
    find_restore,
    plan_restore,
    plan_undo,
    refuse_full_disk,
    volumes_root,
)
from .postgres_volumes import DataVolume, data_volumes, find_removable
from .postgres_words import BELONGS_TO, FOR_PEOPLE, HEALTHY, RESTORED

if TYPE_CHECKING:
    from .postgres_backrest import Backrest

COMPONENT = "database"
# Causes that pass by themselves, and are worth waiting for before anything is done.
PASSING = frozenset(["starting"])
# Beside these an old volume may be removed: nothing has to be mended from it, and with a full disk its space is what is lacking.
REMOVABLE_UNDER = frozenset([HEALTHY, "disk_full"])


@dataclass(frozen=True)
class Wish:
    """What the operator asks for."""

    target_time: str | None = None
    undo: str | None = None
    remove_volume: str | None = None
    reserve: int = RESERVE_BYTES
    page_budget_s: float = PAGE_BUDGET_S
    structure: bool = False
    wait_s: float = 0
    plan: bool = True
    limits: Limits = DEFAULT_LIMITS


def diagnose(backrest: Backrest, wish: Wish, clock: Clock = SYSTEM_CLOCK) -> tuple[dict[str, Any], Observed]:
    """Look, decide, and where a restore may be needed plan it; a plan that is refused refuses the run."""
    deadline = clock.boottime() + wish.wait_s
    while True:
        began = clock.boottime()
        seen = observe(backrest.place, backrest.docker, page_budget_s=wish.page_budget_s, structure=wish.structure)
        finding = find(seen, wish.limits)
        if finding.cause not in PASSING or clock.boottime() >= deadline:
            break
        clock.sleep(0.25)
    finding = wished(finding, seen, wish)
    plan: RestorePlan | None = None
    refusal: dict[str, str] | None = None
    removal: DataVolume | None = None
    if finding.cause == "removal_wanted":
        try:
            removal = find_removable(_volumes(backrest), wish.remove_volume or "")
        except WhatsAgentError as error:
            refusal = {"en": error.message, "pt": str(error.details.get("pt") or error.message)}
    elif (kept := refused_removal(finding, wish)) is not None:
        refusal = kept
    elif (refused := refused_wish(finding, seen, wish)) is not None:
        refusal = refused
    elif finding.cause in RESTORED and wish.plan:
        try:
            plan = _plan(backrest, seen, finding, wish, clock)
        except WhatsAgentError as error:
            refusal = {"en": error.message, "pt": str(error.details.get("pt") or error.message)}
    elif finding.cause == "archive_failing" and wish.plan:
        refusal = _off_host(backrest)
    return {**assemble(seen, finding, plan, refusal, removal), "looked_at": began}, seen


def wished(finding: Finding, seen: Observed, wish: Wish) -> Finding:
    """Put what the operator asks for above what was found, unless nothing can be done here, or it is half done already."""
    if wish.remove_volume is not None:
        # Beside a database that is not sound an old volume may be what it has to be mended from.
        if finding.cause not in REMOVABLE_UNDER:
            return finding
        named = ("volume", wish.remove_volume or "none named")
        return Finding("removal_wanted", (named, ("otherwise", finding.cause), *finding.evidence[:1]))
    wanted = wish.undo or wish.target_time
    if wanted is None or finding.cause in BELONGS_TO:
        return finding
    state = seen.restore
    given_up: tuple[tuple[str, str], ...] = ()
    if state is not None and not postgres_unfinished.same_wish(state, wish.target_time, wish.undo):
        given_up = (("given up for it", state["id"]), ("which was begun for", postgres_unfinished.wanted(state)[0]))
    if _of_the_restore(finding, seen) and (not given_up or not _may_be_given_up(seen)):
        return finding  # consent was given for it, and it is not less wanted for having been killed
    otherwise = ("otherwise", finding.cause)
    if wish.undo is not None:
        return Finding("undo_wanted", (("restore to undo", wish.undo), otherwise, *given_up))
    return Finding("wrong_data", (("wanted time", wanted), otherwise, *given_up))


def _of_the_restore(finding: Finding, seen: Observed) -> bool:
    """Tell whether the cause is an unfinished restore, or what keeps one from being closed whose database serves."""
    held_up = bool(seen.restore and seen.restore.get("held_up"))
    return finding.cause == "restore_unfinished" or (held_up and finding.cause in KEEPS_OPEN)


def _may_be_given_up(seen: Observed) -> bool:
    state, volume = seen.restore, seen.volume.name if seen.volume else ""
    return state is None or postgres_unfinished.may_be_given_up(state, volume)


def refused_wish(finding: Finding, seen: Observed, wish: Wish) -> Text | None:
    """Return why what the operator asks for has to wait for an unfinished restore, or None."""
    state = seen.restore
    if state is None or not _of_the_restore(finding, seen) or _may_be_given_up(seen):
        return None
    if postgres_unfinished.same_wish(state, wish.target_time, wish.undo):
        return None
    return postgres_unfinished.finish_first(state)


def refused_removal(finding: Finding, wish: Wish) -> Text | None:
    """Return why no volume is removed beside what was found, or None; what is another runbook's is told by its name."""
    if wish.remove_volume is None or finding.cause == "removal_wanted" or finding.cause in BELONGS_TO:
        return None
    return {
        "en": f"{finding.summary['en']} ({finding.cause}): an old volume may be what the database has to be mended from, so none "
        "is removed; run playbooks/recover_db.yml first",
        "pt": f"{finding.summary['pt']} ({finding.cause}): um volume antigo pode ser aquilo de que o banco precisa para ser "
        "recuperado, por isso nenhum é removido; execute antes playbooks/recover_db.yml",
    }


def _off_host(backrest: Backrest) -> dict[str, str] | None:
    """Say what WAL cannot reach where that is a repository off this host: nothing that could be mended here is wrong then."""
    try:
        found = away(backrest.info())
    except WhatsAgentError:
        return None
    if not found:
        return None
    numbers, reasons = ", ".join(map(str, found)), "; ".join(found.values())
    return {
        "en": f"{told_away(found)}; meanwhile WAL is archived on this host, and what waits is sent once it is back. "
        "Bring it back, or take it out of the inventory (backup_second_repository) and run playbooks/deploy.yml",
        "pt": f"o repositório {numbers} não pode ser alcançado ({reasons}); enquanto isso o WAL é arquivado neste host, e o que "
        "espera é enviado quando ele voltar. Traga-o de volta, ou retire-o do inventário (backup_second_repository) e execute "
        "playbooks/deploy.yml",
    }


def _plan(backrest: Backrest, seen: Observed, finding: Finding, wish: Wish, clock: Clock) -> RestorePlan | None:
    """Plan the restore that the finding may need. One that has already switched volumes needs none any more."""
    state = seen.restore
    volume = seen.volume.name if seen.volume else ""
    alive = seen.server is not None and not seen.server.in_recovery
    target_time, undo, rejected = wish.target_time, wish.undo, ()
    if finding.cause == "restore_unfinished" and state is not None:
        if state["new_volume"] == volume:
            return None
        # Finished as it was begun, whatever the command names; and what it has stopped is not dead for that.
        target_time, undo, rejected = state.get("target_time"), state.get("undo"), tuple(state.get("rejected", ()))
        alive = alive or bool(state.get("was_alive"))
    if undo is not None:
        record = find_restore(backrest.place, undo)
        return plan_undo(
            backrest, volume, record, reserve=wish.reserve, already_there=_written(backrest, state, volume), clock=clock
        )
    return plan_restore(
        backrest,
        volume,
        target_time=target_time,
        alive=alive,
        rejected=rejected,
        reserve=wish.reserve,
        already_there=_written(backrest, state, volume),
        clock=clock,
    )


def _volumes(backrest: Backrest) -> list[DataVolume]:
    """List the volumes. On a disk too full for the container that would look for a proven backup, that is what is said."""
    try:
        return data_volumes(backrest)
    except WhatsAgentError:
        refuse_full_disk(volumes_root(backrest))
        raise


def _written(backrest: Backrest, state: dict[str, Any] | None, in_use: str) -> int:
    """Return the bytes that an interrupted restore has put into its volume: they need no more room, or make it by going."""
    from pathlib import Path

    volume = backrest.docker.volume(state["new_volume"]) if state and state["new_volume"] != in_use else None
    if volume is None:
        return 0
    return sum(path.lstat().st_size for path in Path(volume.mountpoint).rglob("*") if path.is_file())


def assemble(
    seen: Observed,
    finding: Finding,
    plan: RestorePlan | None,
    refusal: dict[str, str] | None,
    removal: DataVolume | None = None,
) -> dict[str, Any]:
    """Build the diagnosis in the shape that the role `runbook` takes. Pure."""
    container = seen.container or {}
    reason = refusal
    # What is another runbook's gives no reason of its own: the role then names that runbook.
    if reason is None and finding.cause in FOR_PEOPLE:
        english, portuguese = FOR_PEOPLE[finding.cause]
        reason = {"en": f"{finding.summary['en']}; {english}", "pt": f"{finding.summary['pt']}; {portuguese}"}
    return {
        "component": COMPONENT,
        "cause": finding.cause,
        "healthy": finding.cause == HEALTHY,
        "evidence": [{"what": what, "value": value} for what, value in finding.evidence],
        "summary": finding.summary,
        "belongs_to": BELONGS_TO.get(finding.cause),
        "refuse": {"reason": reason} if reason else None,
        "state": {
            "cause": finding.cause,
            "volume": seen.volume.name if seen.volume else None,
            "container": container.get("id"),
            "backup": plan.backup if plan else None,
            "target_time": plan.target_time if plan else None,
            "removal": removal.name if removal else None,
            "gives_up": dict(finding.evidence).get("given up for it"),
        },
        "facts": {
            "plan": plan.as_dict() if plan else None,
            "otherwise": dict(finding.evidence).get("otherwise"),
            "restore_waits": bool(seen.restore and seen.restore.get("held_up")),
            "container_status": container.get("status"),
            "bad_pages": list(seen.bad_pages),
            "wrong_indexes": [wrong["name"] for wrong in seen.wrong if wrong["kind"] == "index"],
            "blockers": list(seen.server.blockers) if seen.server else [],
            "slots": list(seen.server.slots) if seen.server else [],
        },
        "loses": _loses(plan, removal),
    }


def _loses(plan: RestorePlan | None, removal: DataVolume | None) -> dict[str, str] | None:
    if removal is not None:
        megabytes = removal.size // (1024 * 1024)
        return {
            "en": f"the volume {removal.name} of {removal.created_at}, {megabytes} MB, for good",
            "pt": f"o volume {removal.name} de {removal.created_at}, {megabytes} MB, para sempre",
        }
    return plan.loses if plan else None
