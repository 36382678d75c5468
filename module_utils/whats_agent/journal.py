# SPDX-License-Identifier: GPL-3.0-or-later
"""The run journal: append-only JSON lines on the target, one file per run, every line flushed before the next act.

A line is `{"at": RFC 3339 UTC, "boot": seconds on the boot clock, "run": id, "event": name, …}`. What the lines say
about durations comes from `boot`, so that a clock that is set meanwhile falsifies nothing.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .clock import SYSTEM_CLOCK, Clock
from .errors import WhatsAgentError
from .files import append_line, ensure_directory
from .redact import redact

STATE_DIR = Path("/var/lib/whats_agent")
_RUN_ID = re.compile(r"\d{8}T\d{6}Z-[0-9a-f]{8}")
HISTORY = 200  # how many past runs are read for "how long it took last time"


def new_run_id(clock: Clock = SYSTEM_CLOCK) -> str:
    """Return a run id that sorts by start: UTC stamp and eight random hex digits."""
    return f"{clock.stamp()}-{secrets.token_hex(4)}"


def check_run_id(run_id: str) -> str:
    """Return the run id, or fail when it is none (and so could name a file elsewhere)."""
    if not _RUN_ID.fullmatch(run_id):
        raise WhatsAgentError(f"{run_id!r} is no run id", run=run_id)
    return run_id


class Journal:
    """One run's journal, for writing."""

    def __init__(
        self,
        state_dir: Path,
        run_id: str,
        *,
        dry_run: bool = False,
        known_secrets: Sequence[str] = (),
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        """Name the run's file; nothing is written yet. `known_secrets` are values to hide wherever they turn up."""
        self.path = run_path(state_dir, run_id)
        self.run_id = run_id
        self._dry_run = dry_run
        self._known_secrets = tuple(known_secrets)
        self._clock = clock

    def write(self, event: str, **fields: Any) -> dict[str, Any]:
        """Append one event, redacted and flushed, and return the line as written."""
        line: dict[str, Any] = {
            "at": self._clock.rfc3339(),
            "boot": round(self._clock.boottime(), 3),
            "run": self.run_id,
            "event": event,
        }
        if self._dry_run:
            line["dry_run"] = True
        line.update(redact(fields, self._known_secrets))
        ensure_directory(self.path.parent)
        append_line(self.path, json.dumps(line, ensure_ascii=False, default=str))
        return line


class Progress:
    """Progress of one long step, written to the run's journal at most every `interval` seconds.

    The percentage never goes back, and the time left comes from the mean rate since the start.
    """

    def __init__(
        self,
        journal: Journal | None,
        step: str,
        *,
        unit: str = "bytes",
        interval: float = 2,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        """`journal` None makes it silent (a module called outside a run)."""
        self._journal = journal
        self._step = step
        self._unit = unit
        self._interval = interval
        self._clock = clock
        self._started = clock.boottime()
        self._last = self._started - interval
        self._percent = 0.0

    def update(self, done: int, total: int, note: str = "") -> None:
        """Tell how much of how much is done; the last one (done = total) is always written, once."""
        now = self._clock.boottime()
        finished = total > 0 and done >= total and self._percent < 100.0
        if self._journal is None or (now - self._last < self._interval and not finished):
            return
        self._last = now
        elapsed = now - self._started
        if total > 0:
            self._percent = max(self._percent, min(100.0, 100.0 * done / total))
        left = round(elapsed * (total - done) / done, 1) if 0 < done <= total else None
        fields: dict[str, Any] = {
            "step": self._step,
            "percent": round(self._percent, 1),
            "done": done,
            "total": total,
            "unit": self._unit,
            "seconds": round(elapsed, 1),
            "seconds_left": left,
        }
        if note:
            fields["note"] = note
        self._journal.write("progress", **fields)


def journal_for(
    run_id: str | None, state_dir: Path = STATE_DIR, *, known_secrets: Sequence[str] = ()
) -> Journal | None:
    """Return the journal a long module should write its progress to, or None outside a run."""
    return Journal(state_dir, run_id, known_secrets=known_secrets) if run_id else None


def run_path(state_dir: Path, run_id: str) -> Path:
    """Return where a run's journal lies."""
    return state_dir / "runs" / f"{check_run_id(run_id)}.jsonl"


def read_events(path: Path) -> list[dict[str, Any]]:
    """Return a journal's events in order; a line that a crash cut short is left out."""
    events = []
    try:
        with path.open(encoding="utf-8", errors="replace") as stream:
            for raw in stream:
                try:
                    event = json.loads(raw)
                except ValueError:
                    continue
                if isinstance(event, dict) and "event" in event:
                    events.append(event)
    except FileNotFoundError as error:
        raise WhatsAgentError(f"there is no run journal {path}", path=str(path)) from error
    except OSError as error:
        raise WhatsAgentError(f"cannot read {path}: {error.strerror}", path=str(path)) from error
    return events


def close_abandoned(dead: Journal, successor: str) -> None:
    """Close the journal of a run whose holder died, so that no run stays open for ever; `successor` took its lease over."""
    if not dead.path.exists() or any(event["event"] == "close" for event in read_events(dead.path)):
        return
    reason = {
        "en": f"abandoned: its holder died and run {successor} took its lease over",
        "pt": f"abandonada: quem a executava morreu e a execução {successor} assumiu",
    }
    dead.write("close", outcome="abandoned", reason=reason, taken_over_by=successor)


def run_ids(state_dir: Path) -> list[str]:
    """Return the ids of all recorded runs, newest first."""
    folder = state_dir / "runs"
    if not folder.is_dir():
        return []
    return sorted((path.stem for path in folder.glob("*.jsonl") if _RUN_ID.fullmatch(path.stem)), reverse=True)


@dataclass(frozen=True)
class RunSummary:
    """One line about a run; `outcome` is None while it is open (or was killed and not yet taken over)."""

    run: str
    at: str
    component: str
    playbook: str
    host: str
    holder: str
    dry_run: bool
    cause: str | None
    remedy: str | None
    outcome: str | None
    seconds: float | None


def summarise(run_id: str, events: Sequence[dict[str, Any]]) -> RunSummary:
    """Reduce a run's events to one line."""
    by_name: dict[str, dict[str, Any]] = {}
    for event in events:
        by_name[event["event"]] = event  # the last of a kind counts
    opened, closed = by_name.get("open", {}), by_name.get("close", {})
    diagnosis = by_name.get("diagnosis", {})
    return RunSummary(
        run=run_id,
        at=str(opened.get("at", events[0]["at"] if events else "")),
        component=str(opened.get("component", "")),
        playbook=str(opened.get("playbook", "")),
        host=str(opened.get("host", "")),
        holder=describe_holder(opened.get("holder") or {}),
        dry_run=bool(opened.get("dry_run", False)),
        cause=closed.get("cause") or diagnosis.get("cause"),
        remedy=closed.get("remedy"),
        outcome=closed.get("outcome"),
        seconds=(closed.get("seconds") or {}).get("total"),
    )


def describe_holder(holder: dict[str, Any]) -> str:
    """Return `user@controller through entry point`."""
    if not holder:
        return "unknown"
    return f"{holder.get('user', '?')}@{holder.get('controller', '?')} through {holder.get('entry_point', '?')}"


def runs(state_dir: Path, limit: int = 20) -> Iterator[RunSummary]:
    """Yield summaries of the newest runs, newest first."""
    for run_id in run_ids(state_dir)[:limit]:
        yield summarise(run_id, read_events(run_path(state_dir, run_id)))


def last_durations(state_dir: Path, component: str, remedies: Iterable[str]) -> dict[str, float]:
    """Return, per remedy, the seconds its last successful use on this host took; unused ones are absent."""
    wanted = set(remedies)
    found: dict[str, float] = {}
    for run_id in run_ids(state_dir)[:HISTORY]:
        if wanted <= found.keys():
            break
        events = read_events(run_path(state_dir, run_id))
        if not events or events[0].get("component") != component or events[0].get("dry_run"):
            continue
        for event in events:
            name = event.get("step")
            if (
                event["event"] == "step"
                and event.get("phase") == "end"
                and event.get("ok")
                and name in wanted - found.keys()
            ):
                found[str(name)] = float(event["seconds"])
    return found
