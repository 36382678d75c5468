# SPDX-License-Identifier: GPL-3.0-or-later
"""Which alerts are active: raised once a finding held for two rounds, cleared once it was gone for four.

One web process evaluates, the one that holds the lock; all of them show the same file. The history is ``alerts/alerts.log``.
"""

import fcntl
import json
import logging
import os
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from whats_agent import clock, logs
from whats_agent.alerts.rules import Facts, Finding, Severity, findings

ROUND_SECONDS = 15.0
REPORT_SECONDS = 60.0
RAISE_AFTER, CLEAR_AFTER = 2, 4
STALE_SECONDS = 90.0
FILE_NAME = "alerts.json"
ROOM_BYTES = 64 * 1024
LOCK_NAME = "alerts.lock"
_LEVELS = {Severity.P0: logging.CRITICAL, Severity.P1: logging.ERROR, Severity.P2: logging.WARNING}

_history = logging.getLogger(logs.ALERTS)
_log = logging.getLogger("whats_agent.web")


@dataclass(slots=True)
class Alert:
    """One alert on its way up, active, or on its way down."""

    name: str
    severity: str
    runbook: str
    summary: str
    resumo: str
    evidence: dict[str, Any]
    first_seen: str
    last_seen: str
    held: int = 1
    gone: int = 0

    @property
    def active(self) -> bool:
        """Whether operators are told."""
        return self.held >= RAISE_AFTER


def next_round(
    known: dict[str, Alert], found: list[Finding], at: str
) -> tuple[dict[str, Alert], list[str], list[Alert]]:
    """The alerts after a round at ``at``, the names raised by it, and those it cleared."""
    alerts: dict[str, Alert] = {}
    raised: list[str] = []
    cleared: list[Alert] = []
    for finding in found:
        before = known.get(finding.name)
        alerts[finding.name] = Alert(
            name=finding.name,
            severity=finding.severity.value,
            runbook=finding.runbook,
            summary=finding.summary,
            resumo=finding.resumo,
            evidence=finding.evidence,
            first_seen=before.first_seen if before else at,
            last_seen=at,
            held=min(before.held + 1, RAISE_AFTER) if before else 1,
        )
        if alerts[finding.name].active and not (before and before.active):
            raised.append(finding.name)
    for name, alert in known.items():
        if name in alerts or not alert.active:
            continue
        alert.gone += 1
        if alert.gone >= CLEAR_AFTER:
            cleared.append(alert)
        else:
            alerts[name] = alert
    return alerts, raised, cleared


class Keeper:
    """Evaluates in a thread of its own, in the one process that gets the lock."""

    def __init__(
        self,
        directory: Path,
        gather: Callable[[], Facts],
        report: Callable[[], None] | None = None,
        round_seconds: float = ROUND_SECONDS,
    ) -> None:
        self._directory = directory
        self._gather = gather
        self._report = report
        self._round_seconds = round_seconds
        self._reported_at = time.monotonic()
        self._lock = -1
        self._known: dict[str, Alert] = {}

    def run(self, stop: threading.Event) -> None:
        """Take turns for the lock, then evaluate round by round until told to stop; every minute have the numbers written down."""
        while not stop.wait(self._round_seconds):
            try:
                if self._holds_lock():
                    self.evaluate()
                    if self._report is not None and time.monotonic() - self._reported_at >= REPORT_SECONDS:
                        self._reported_at = time.monotonic()
                        self._report()
            except Exception:  # noqa: BLE001 - watching must never end because one look went wrong
                _log.error(logs.fields(event="alert_round_failed"), exc_info=True)

    def _holds_lock(self) -> bool:
        if self._lock < 0:
            self._lock = os.open(self._directory / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def evaluate(self) -> None:
        """One round: look, compare, write the file, tell the history."""
        at = clock.now().isoformat(timespec="seconds")
        stored_at, stored = read(self._directory)
        # Where there is no file to be had, what this process knows must do.
        known = {alert.name: alert for alert in stored} if stored_at else self._known
        alerts, raised, cleared = next_round(known, findings(self._gather()), at)
        for name in raised:
            alert = alerts[name]
            evidence = json.dumps(alert.evidence, ensure_ascii=False)
            line = logs.fields(
                event="alert_raised",
                alert=name,
                severity=alert.severity,
                runbook=alert.runbook,
                first_seen=alert.first_seen,
                summary=alert.summary,
                evidence=evidence,
            )
            _history.log(_LEVELS[Severity(alert.severity)], line)
        for alert in cleared:
            _history.info(
                logs.fields(
                    event="alert_cleared", alert=alert.name, severity=alert.severity, first_seen=alert.first_seen
                )
            )
        self._store(alerts, at)

    def _store(self, alerts: dict[str, Alert], at: str) -> None:
        """Write over the file in its place: a full disk is an alert itself, and takes what was allocated before."""
        self._known = alerts
        text = json.dumps({"evaluated_at": at, "alerts": [asdict(alert) for alert in alerts.values()]})
        data = text.encode().ljust(ROOM_BYTES)
        try:
            descriptor = os.open(self._directory / FILE_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX)
                os.posix_fallocate(descriptor, 0, len(data))
                os.pwrite(descriptor, data, 0)
                os.ftruncate(descriptor, len(data))
            finally:
                os.close(descriptor)
        except OSError as error:
            _log.error(logs.fields(event="alerts_not_stored", reason=error.strerror or type(error).__name__))


def read(directory: Path) -> tuple[str | None, list[Alert]]:
    """When it was last evaluated, and every alert known then."""
    try:
        with (directory / FILE_NAME).open(encoding="utf-8") as file:
            fcntl.flock(file, fcntl.LOCK_SH)
            data = json.loads(file.read())
        return str(data["evaluated_at"]), [Alert(**alert) for alert in data["alerts"]]
    except (OSError, ValueError, KeyError, TypeError):
        return None, []
