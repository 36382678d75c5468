# SPDX-License-Identifier: GPL-3.0-or-later
"""The watcher: looks at every host, runs the runbook that a grave alert names, and says why it acted or did not.

It is an operator with less say than any other: it gives no consent, so nothing that destroys is ever done by it; it obeys
mutes, breakers and locks; and between attempts it waits longer and longer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from oncall.engine import Finished, HostResult
from oncall.faults import Fault, FindRunbook, faults_of
from oncall.outcomes import EXIT_CODES
from oncall.project import Runbook, language
from oncall.shared import by_hand
from oncall.texts import say

# What a person is told of, once, beside the journal.
ESCALATIONS = ("no_runbook", "breaker", "not_recovered", "no_outcome", "persists")
MENDED = ("recovered", "rolled_back")


@dataclass(frozen=True)
class Policy:
    """Seconds and counts: `looks` in a row before acting; the wait after the n-th attempt is `pause` · 2^(n-1), at most `longest`.

    An alert goes down only some rounds after its cause is gone, so `pause` is longer than that. An alert that outlives `doubt` runs
    that all say it is well is for people.
    """

    every: float = 15.0
    looks: int = 2
    pause: float = 90.0
    longest: float = 1800.0
    doubt: int = 3

    def wait_after(self, attempts: int) -> float:
        """Return how long to leave a component alone after so many attempts in a row."""
        return min(self.longest, self.pause * 2.0 ** (attempts - 1)) if attempts else 0.0


@dataclass(frozen=True)
class Decision:
    """`kind`: look (not seen often enough), act, muted, breaker, locked, pause, no_runbook. `why` is for people."""

    kind: str
    why: str = ""


@dataclass
class Course:
    """What the watcher remembers of a fault that is still there."""

    looks: int = 0
    attempts: int = 0
    free_at: float = 0.0
    told: str = ""


def decide(fault: Fault, course: Course, seen: Mapping[str, Any], policy: Policy, now: float) -> Decision:
    """Decide about a fault. `seen` is the host's answer (empty for an unreachable one), `now` the watcher's own clock."""
    if course.looks < policy.looks:
        return Decision("look")
    held = _held_back(fault, seen)
    if held is not None:
        return held
    if now < course.free_at:
        return Decision("pause", say("watch_pause", seconds=round(course.free_at - now), attempts=course.attempts))
    name = fault.runbook.name if fault.runbook else ""
    return Decision("act", say("watch_act", runbook=name, alert=fault.name, severity=fault.severity))


def _held_back(fault: Fault, seen: Mapping[str, Any]) -> Decision | None:
    """Return what on the host, or the lack of a runbook, keeps the watcher from acting."""
    mute = _first(seen.get("mutes"), fault.component)
    if mute is not None:
        return Decision("muted", say("watch_muted", until=mute["until"], by=mute["by"], why=mute["why"]))
    if fault.runbook is None:
        instead = (by_hand(fault.wanted) or {}).get(language()) or say("watch_no_runbook", runbook=fault.wanted or "-")
        return Decision("no_runbook", say("watch_person", summary=fault.summary, instead=instead))
    breaker = _first(seen.get("breakers"), fault.component)
    if breaker is not None and breaker["open"]:
        return Decision("breaker", say("watch_breaker", count=len(breaker["failures"])))
    lease = seen.get("lock")
    if isinstance(lease, Mapping) and not lease.get("dead", True):
        return Decision("locked", say("watch_locked", run=lease["run"], who=f"{lease['user']}@{lease['controller']}"))
    return None


def _first(entries: Any, component: str) -> Mapping[str, Any] | None:
    """Return the entry about a component. What could not be seen is `{problem}`: the run itself looks again, on the host."""
    found = entries if isinstance(entries, list) else []
    return next((entry for entry in found if entry["component"] == component), None)


class Hands(Protocol):
    """What the watcher does to the world; a test's stands in for it."""

    def look(self) -> list[HostResult]:
        """Ask every host for lock, breakers, mutes, health and alerts."""

    def run(self, runbook: Runbook, fault: Fault) -> Finished:
        """Run a runbook on the fault's host, as the watcher, without any consent."""

    def note(self, fault: Fault, why: str) -> None:
        """Write a line into the host's journal of decisions."""

    def tell(self, fault: Fault, kind: str, why: str) -> None:
        """Send word to people."""

    def say(self, fault: Fault, kind: str, why: str) -> None:
        """Print a line."""


@dataclass
class Watcher:
    """Keeps the course of every fault from look to look."""

    hands: Hands
    find: FindRunbook
    policy: Policy
    clock: Callable[[], float]
    stopped: Callable[[], bool] = lambda: False
    courses: dict[tuple[str, str], Course] = field(default_factory=dict)
    faults: dict[tuple[str, str], Fault] = field(default_factory=dict)

    def look(self) -> None:
        """One round over all hosts."""
        present: set[tuple[str, str]] = set()
        for answer in self.hands.look():
            seen = answer.result.get("seen") or {}
            for fault in faults_of(answer, self.find, language()):
                present.add(fault.key)
                self.faults[fault.key] = fault
                self._treat(fault, seen)
                if self.stopped():
                    return
        for key in self.courses.keys() - present:
            course = self.courses.pop(key)
            if course.told:
                self._report(self.faults[key], course, "gone", say("watch_gone"))

    def _treat(self, fault: Fault, seen: Mapping[str, Any]) -> None:
        course = self.courses.setdefault(fault.key, Course())
        course.looks += 1
        decision = decide(fault, course, seen, self.policy, self.clock())
        if decision.kind == "look" or (decision.kind == "pause" and course.told in MENDED):
            return  # the alert goes down only some rounds after what it tells of
        self._report(fault, course, decision.kind, decision.why)
        if decision.kind != "act" or fault.runbook is None:
            return
        course.attempts += 1
        finished = self.hands.run(fault.runbook, fault)
        course.free_at = self.clock() + self.policy.wait_after(course.attempts)
        kind, why = verdict(finished, language())
        if kind in (*MENDED, "already_healthy") and course.attempts >= self.policy.doubt:
            kind, why = "persists", say("watch_persists", alert=fault.name, attempts=course.attempts, why=why)
        self._report(fault, course, kind, why)

    def _report(self, fault: Fault, course: Course, kind: str, why: str) -> None:
        """Say, write down and send a decision once, not at every look that comes to the same."""
        if kind == course.told:
            return
        course.told = kind
        self.hands.say(fault, kind, why)
        if fault.name != "unreachable":
            self.hands.note(fault, f"{kind}: {why}")
        if kind in ESCALATIONS:
            self.hands.tell(fault, kind, why)


def verdict(finished: Finished, lang: str) -> tuple[str, str]:
    """Return what came of a run, `(kind, why)`: the run's own outcome in words, or that it had none."""
    (ended,) = finished.hosts or [HostResult("", "error", error="; ".join(finished.errors) or finished.status)]
    message = (ended.result.get("message") or {}).get(lang) or ended.error
    if ended.outcome in ("interrupted", "unreachable", "error"):
        return "no_outcome" if ended.outcome != "interrupted" else "interrupted", f"{ended.outcome}: {message}"
    if ended.outcome == "acted_not_recovered" or ended.result.get("escalate"):
        return "not_recovered", message
    return ended.outcome if ended.outcome in EXIT_CODES else "no_outcome", message
