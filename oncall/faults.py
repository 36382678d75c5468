# SPDX-License-Identifier: GPL-3.0-or-later
"""What of a host's answer is a fault for the watcher, and which runbook mends it. Pure: an answer in, faults out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from oncall.engine import HostResult
from oncall.project import Runbook

SEVERITIES = ("P0", "P1")
# Without an answer of the agent there is no alert to name a runbook; the first of these that exists is for it.
FOR_SILENCE = ("recover_system", "recover_app")

# What an alert's runbook must be told so that it mends just that: a backup that nobody proved leaves the last proven one as old.
VARIABLES: Mapping[str, Mapping[str, Any]] = {"backup_late": {"prove": True}}

FindRunbook = Callable[[str], Runbook | None]


@dataclass(frozen=True)
class Fault:
    """Something at fault on a host. `component` keys mutes and breakers; `runbook` is None where people must act."""

    host: str
    name: str
    severity: str
    component: str
    summary: str
    runbook: Runbook | None = None
    wanted: str = ""

    @property
    def key(self) -> tuple[str, str]:
        """What is mended at once: one component of one host."""
        return self.host, self.component

    @property
    def variables(self) -> Mapping[str, Any]:
        """What its runbook is told beside who runs it; never a consent."""
        return VARIABLES.get(self.name, {})


def faults_of(answer: HostResult, find: FindRunbook, language: str) -> list[Fault]:
    """Return the faults of a host, gravest first, one per component."""
    if answer.outcome != "ok":
        return [Fault(answer.host, "unreachable", "P0", "host", answer.error)]
    seen = answer.result["seen"]
    alerts = seen.get("alerts")
    problem = alerts.get("problem") if isinstance(alerts, Mapping) else "no answer"
    if problem:
        runbook = next((each for each in map(find, FOR_SILENCE) if each is not None), None)
        component = runbook.component if runbook else "app"
        return [Fault(answer.host, "agent_silent", "P0", component, str(problem), runbook, f"{FOR_SILENCE[0]}.yml")]
    if alerts.get("stale"):
        # The agent answers but nobody evaluates: what it says of the rest is old.
        return [Fault(answer.host, "alerts_stale", "P1", "alerts", "the agent does not evaluate its alerts")]
    found: dict[str, Fault] = {}
    for alert in alerts.get("alerts") or []:
        fault = _of_alert(answer.host, alert, find, language)
        if fault is not None and fault.component not in found:
            found[fault.component] = fault
    return list(found.values())


def _of_alert(host: str, alert: Mapping[str, Any], find: FindRunbook, language: str) -> Fault | None:
    """Return an alert as a fault, or None when it is not grave. The agent sorts its alerts, gravest first."""
    if alert.get("severity") not in SEVERITIES:
        return None
    wanted = str(alert.get("runbook") or "")
    runbook = find(wanted) if wanted else None
    if runbook is not None and not runbook.is_runbook:
        runbook = None
    name = str(alert["name"])
    summary = alert.get("summary") or {}
    text = str(summary.get(language, "")) if isinstance(summary, Mapping) else str(summary)
    return Fault(host, name, str(alert["severity"]), runbook.component if runbook else name, text, runbook, wanted)
