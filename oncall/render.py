# SPDX-License-Identifier: GPL-3.0-or-later
"""How answers look on a terminal. Colours only there; piped, it is plain text."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from oncall.engine import HostResult
from oncall.outcomes import SUCCESSES
from oncall.project import find_or_none, language
from oncall.texts import say

console = Console(highlight=False)
if not console.is_terminal:
    console = Console(highlight=False, width=240)  # piped: long lines stay whole for grep and awk


def age(seconds: float | None) -> str:
    """Return a duration as people say it: 45 s, 12 min, 3 h, 2 d."""
    if seconds is None:
        return "?"
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= size * 2:
            return f"{seconds // size:.0f} {unit}"
    return f"{seconds:.0f} s"


def since(stamp: str, now: str) -> str:
    """Return how long before `now` an RFC 3339 time was; both are of the host, whose clock may not be this machine's."""
    return age(max(0.0, (datetime.fromisoformat(now) - datetime.fromisoformat(stamp)).total_seconds()))


def outcome(name: str | None) -> Text:
    """Return an outcome in the colour of its kind."""
    if name is None:
        return Text(say("still_open"), style="yellow")
    return Text(name, style="green" if name in SUCCESSES else "red")


def problem(value: Any) -> str | None:
    """Return why a part could not be seen, if it could not."""
    return str(value["problem"]) if isinstance(value, Mapping) and set(value) == {"problem"} else None


def needs_attention(answer: HostResult) -> list[str]:
    """Return what about a host needs a person: the reasons for `oncall status` not to answer 0."""
    if answer.outcome != "ok":
        return [answer.error]
    seen = answer.result["seen"]
    found = [f"{part}: {text}" for part, value in seen.items() if (text := problem(value))]
    health = seen.get("health") or {}
    if "problem" not in health and health.get("status") not in ("ok", "healthy", "up"):
        found.append(f"health: {health.get('status')}")
    found += [f"breaker {b['component']} is open" for b in _list(seen, "breakers") if b["open"]]
    found += [f"alert: {_alert_name(a)}" for a in _alerts(seen) if not _is_muted(a, seen)]
    lease = seen.get("lock")
    if isinstance(lease, dict) and lease.get("dead"):
        found.append(f"lock left behind by run {lease['run']}")
    return found


def _list(seen: Mapping[str, Any], part: str) -> list[dict[str, Any]]:
    value = seen.get(part)
    return value if isinstance(value, list) else []


def _alerts(seen: Mapping[str, Any]) -> list[Any]:
    value = seen.get("alerts")
    if isinstance(value, dict) and "problem" not in value:
        value = value.get("alerts") or value.get("active_alerts") or value.get("active") or []
    return value if isinstance(value, list) else []


def _is_muted(alert: Any, seen: Mapping[str, Any]) -> bool:
    """Tell whether the component that an alert's runbook is about is muted: then it is shown, and needs nobody."""
    runbook = find_or_none(str(alert.get("runbook"))) if isinstance(alert, Mapping) else None
    return runbook is not None and any(mute["component"] == runbook.component for mute in _list(seen, "mutes"))


def _alert_name(alert: Any) -> str:
    if isinstance(alert, Mapping):
        return str(alert.get("name") or alert.get("alert") or alert.get("type") or alert)
    return str(alert)


def _health(seen: Mapping[str, Any]) -> Text:
    value = seen.get("health") or {}
    if text := problem(value):
        return Text(text, style="red")
    down = [name for name, part in (value.get("parts") or {}).items() if part.get("state") not in ("up", "ok")]
    status = str(value.get("status"))
    good = status in ("ok", "healthy", "up")
    return Text(f"{status} ({', '.join(down)})" if down else status, style="green" if good else "yellow")


def _lease(value: Any) -> Text:
    if text := problem(value):
        return Text(text, style="red")
    if value is None:
        return Text(say("free"), style="green")
    mark = f" [{say('dead')}]" if value["dead"] else ""
    who = f"{value['component']} {value['run']} {value['user']}@{value['controller']} ({value['entry_point']}){mark}"
    return Text(who, style="red" if value["dead"] else "yellow")


def _backup(value: Any) -> Text:
    if text := problem(value):
        return Text(text, style="red")
    proven = say("proven", age=age(value["proven"]["seconds_old"])) if value["proven"] else say("never_proven")
    parts = [f"{value['last']['type']} {say('ago', age=age(value['last']['seconds_old']))}", proven]
    if not value["off_host"]:
        parts.append(say("no_off_host"))
    return Text(", ".join(parts), style="green" if value["proven"] and value["off_host"] else "yellow")


def _last_run(seen: Mapping[str, Any], now: str) -> Text:
    found = _list(seen, "runs")
    if not found:
        return Text(say("none"))
    run = found[0]
    return Text.assemble(f"{run['component']} ", outcome(run["outcome"]), f" {say('ago', age=since(run['at'], now))}")


def status(answers: Sequence[HostResult]) -> None:
    """Print each host's standing, a block per host."""
    for answer in answers:
        table = Table(title=answer.host, title_justify="left", show_header=False, box=None, pad_edge=False)
        table.add_column(style="bold")
        table.add_column(overflow="fold")
        if answer.outcome != "ok":
            table.add_row(answer.outcome, Text(answer.error, style="red"))
            console.print(table)
            continue
        seen = answer.result["seen"]
        running = [c["service"] for c in _list(seen, "containers") if c["status"] == "running"]
        other = [f"{c['service']}: {c['status']}" for c in _list(seen, "containers") if c["status"] != "running"]
        breakers = [
            f"{b['component']} {say('open') if b['open'] else len(b['failures'])}" for b in _list(seen, "breakers")
        ]
        loud = [_alert_name(alert) for alert in _alerts(seen) if not _is_muted(alert, seen)]
        held = [f"{_alert_name(alert)} ({say('muted_alert')})" for alert in _alerts(seen) if _is_muted(alert, seen)]
        mutes = [f"{m['component']} {say('until')} {m['until']}" for m in _list(seen, "mutes")]
        table.add_row(say("health"), _health(seen))
        shown = problem(seen.get("containers")) or ", ".join([*other, f"{len(running)} running"])
        table.add_row(say("containers"), Text(shown, style="red" if other else ""))
        alert_text = problem(seen.get("alerts")) or ", ".join([*loud, *held]) or say("none")
        table.add_row(say("alerts"), Text(alert_text, style="red" if loud else ""))
        table.add_row(say("lock"), _lease(seen.get("lock")))
        table.add_row(say("breakers"), Text(", ".join(breakers) or say("none"), style="red" if breakers else ""))
        table.add_row(say("mutes"), ", ".join(mutes) or say("none"))
        table.add_row(say("last_run"), _last_run(seen, answer.result["now"]))
        table.add_row(say("backup"), _backup(seen.get("backup")))
        console.print(table)


def runs(answers: Iterable[HostResult]) -> None:
    """Print past runs, newest first, with their host."""
    rows = [(a.host, run) for a in answers if a.outcome == "ok" for run in _list(a.result["seen"], "runs")]
    if not rows:
        console.print(say("no_runs"))
        return
    table = Table(box=None, pad_edge=False)
    for name in ("run", "host", "component", "outcome", "cause", "remedy", "seconds", "who"):
        table.add_column(say(name), overflow="fold", no_wrap=name in ("run", "host", "outcome", "seconds"))
    for host, run in sorted(rows, key=lambda row: row[1]["run"], reverse=True):
        shown = outcome(run["outcome"])
        if run["dry_run"]:
            shown = Text.assemble(shown, f" ({say('dry')})")
        took = "" if run["seconds"] is None else f"{run['seconds']:.1f}"
        table.add_row(run["run"], host, run["component"], shown, run["cause"], run["remedy"], took, run["holder"])
    console.print(table)


def locks(answers: Iterable[HostResult]) -> None:
    """Print who holds each host."""
    for answer in answers:
        value = answer.result["seen"]["lock"] if answer.outcome == "ok" else {"problem": answer.error}
        console.print(Text.assemble(f"{answer.host}: ", _lease(value)))


def breakers(answers: Iterable[HostResult]) -> None:
    """Print each breaker that counts failures, with the failures."""
    for answer in answers:
        found = _list(answer.result.get("seen", {}), "breakers")
        if not found:
            console.print(f"{answer.host}: {answer.error or say('none')}")
        for breaker in found:
            state = Text(say("open"), style="red") if breaker["open"] else Text(say("closed"), style="green")
            counted = f"{len(breaker['failures'])}/{breaker['threshold']} {say('failures')}"
            console.print(Text.assemble(f"{answer.host}: {breaker['component']} ", state, f" {counted}"))
            for failure in breaker["failures"]:
                console.print(f"  {failure['at']} {failure['run']} {failure['cause']}: {failure['error']}")


def event(item: Mapping[str, Any], start: float) -> None:
    """Print one line of a run's timeline; `start` is the boot clock's reading when it opened."""
    offset = f"{item['boot'] - start:8.1f} s"
    console.print(Text.assemble((offset, "dim"), "  ", (f"{item['event']:<10}", "bold"), "  ", _what(item)))


def _what(item: Mapping[str, Any]) -> Text | str:
    """Say what an event tells, in one line."""
    kinds: dict[str, Callable[[Mapping[str, Any]], Text | str]] = {
        "open": _opened,
        "diagnosis": _diagnosed,
        "plan": _planned,
        "step": _stepped,
        "progress": _progressed,
        "verify": _verified,
        "close": _closed,
    }
    return kinds.get(item["event"], _other)(item)


def _opened(item: Mapping[str, Any]) -> str:
    holder = item.get("holder") or {}
    who = f"{holder.get('user')}@{holder.get('controller')} ({holder.get('entry_point')})"
    return f"{item.get('component')} @ {item.get('host')}, {who}"


def _diagnosed(item: Mapping[str, Any]) -> str:
    evidence = "; ".join(f"{e.get('what')}: {e.get('value')}" for e in item.get("evidence") or [])
    return f"{item.get('cause')}: {(item.get('summary') or {}).get(language(), '')} [{evidence}]"


def _planned(item: Mapping[str, Any]) -> str:
    return ", ".join(remedy["name"] for remedy in item.get("remedies") or []) or str(item.get("outcome"))


def _stepped(item: Mapping[str, Any]) -> Text | str:
    if item["phase"] == "begin":
        return f"{item.get('step')} …"
    mark, style = ("ok", "green") if item.get("ok") else (str(item.get("error")), "red")
    return Text.assemble(f"{item.get('step')} ({item.get('seconds')} s) ", (mark, style))


def _progressed(item: Mapping[str, Any]) -> str:
    left = "" if item.get("seconds_left") is None else f", {item['seconds_left']} s left"
    return (
        f"{item.get('step')} {item.get('percent')} % ({item.get('done')}/{item.get('total')} {item.get('unit')}{left})"
    )


def _verified(item: Mapping[str, Any]) -> str:
    return ", ".join(f"{'✓' if c.get('ok') else '✗'} {c.get('name')}" for c in item.get("checks") or [])


def _closed(item: Mapping[str, Any]) -> Text:
    text = (item.get("message") or item.get("reason") or {}).get(language(), "")
    return Text.assemble(outcome(item.get("outcome")), f"  {text}")


def _other(item: Mapping[str, Any]) -> str:
    hidden = {"at", "boot", "run", "event", "dry_run"}
    return ", ".join(f"{name}={value}" for name, value in item.items() if name not in hidden)
