# SPDX-License-Identifier: GPL-3.0-or-later
"""Name the cause of what was observed of the agent. Pure: observations in, one diagnosis out.

The list is closed and ordered: the first that fits is the one that has to be mended first, since it hides or causes the
others.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .app_observe import Observed
    from .container_view import ContainerView

COMPONENT = "app"
HEALTHY = "healthy"
DISK_LOW_BYTES = 64 * 1024 * 1024  # below this the next webhooks may find no room
STARTING_S = 15.0  # a container is given this long before its silence counts
FULL_REASONS = ("No space left on device", "Disk quota exceeded")

SUMMARIES: dict[str, tuple[str, str]] = {
    "healthy": ("every replica answers and the worker keeps up", "todas as réplicas respondem e o worker está em dia"),
    "config_invalid": ("the stack's .env or compose file is of no use", "o .env ou o arquivo compose da stack não serve"),
    "engine_down": ("the Docker engine does not answer", "o Docker não responde"),
    "image_missing": ("the release's image is not on this server", "a imagem da release não está neste servidor"),
    "container_missing": ("containers are missing", "faltam contêineres"),
    "container_stopped": ("containers are stopped", "há contêineres parados"),
    "container_exited": ("containers ended by themselves", "há contêineres que terminaram sozinhos"),
    "container_paused": ("containers are paused", "há contêineres pausados"),
    "out_of_memory": ("a container was killed for want of memory", "um contêiner foi morto por falta de memória"),
    "container_outdated": (
        "a container keeps dying, and was made with other settings than .env has now",
        "um contêiner morre repetidamente e foi criado com outras configurações que não as do .env atual",
    ),
    "settings_refused": ("the settings are refused at the start", "as configurações são recusadas na partida"),
    "crash_loop": ("a container starts and dies again", "um contêiner reinicia sem parar"),
    "processes_stopped": ("processes are stopped by a signal", "há processos parados por um sinal"),
    "hung": ("running, but without an answer in time", "no ar, mas sem resposta a tempo"),
    "disk_full": ("the disk under the message log is full", "o disco do log de mensagens está cheio"),
    "message_log_down": ("the message log cannot be written", "o log de mensagens não pode ser gravado"),
    "database_down": ("the agent cannot use PostgreSQL", "o agente não consegue usar o PostgreSQL"),
    "redis_down": ("the agent cannot use Redis", "o agente não consegue usar o Redis"),
    "projection_held": ("another session keeps the worker from projecting", "outra sessão impede o worker de projetar"),
    "not_projecting": ("the worker lives and does not project", "o worker está vivo, mas não projeta"),
}  # fmt: skip

BELONGS_TO = {
    "config_invalid": "recover_config.yml",
    "engine_down": "recover_system.yml",
    "settings_refused": "recover_config.yml",
    "image_missing": "deploy.yml",
    "disk_full": "reclaim_disk.yml",
    "database_down": "recover_db.yml",
    "redis_down": "recover_redis.yml",
}

# What each container's own fault is called, the gravest first.
_FAULTS = {
    "out_of_memory": "out_of_memory",
    "crash_loop": "crash_loop",
    "missing": "container_missing",
    "exited": "container_exited",
    "stopped": "container_stopped",
    "paused": "container_paused",
    "processes_stopped": "processes_stopped",
}
_CRASHES = ("crash_loop", "exited")
# The agent names the variable; nginx its file and line.
_REFUSED_SETTINGS = re.compile(r"whats-agent: [A-Z][A-Z0-9_]{2,} |\[emerg\]")


@dataclass(frozen=True)
class Ill:
    """A container, or a missing one, that has to be mended. `name` is empty for what is missing."""

    service: str
    name: str
    fault: str
    detail: str


@dataclass(frozen=True)
class Finding:
    """A cause, what shows it (what, value), and the containers it is about."""

    cause: str
    evidence: tuple[tuple[str, str], ...]
    ill: tuple[Ill, ...] = ()


def find(seen: Observed) -> Finding:
    """Name the cause."""
    if seen.env_error:
        return Finding("config_invalid", ((".env and compose.yml", seen.env_error),))
    if seen.engine_error:
        return Finding("engine_down", (("engine", seen.engine_error),))
    return (
        _containers(seen)
        or _silent(seen)
        or _disk(seen)
        or _others(seen)
        or _projection(seen)
        or Finding(HEALTHY, _health_evidence(seen))
    )


def ill_containers(seen: Observed) -> list[Ill]:
    """Return every container that does not stand as it should, in the order of mending."""
    found: list[Ill] = []
    for service, count in seen.wanted.items():
        there = seen.of(service)
        for view in there:
            fault = view.fault
            if fault is None:
                fault = _silence(seen, view)
            if fault is not None:
                found.append(Ill(service, view.name, fault, _detail(seen, view, fault)))
        found += [
            Ill(service, "", "missing", f"{service} has {len(there)} of {count} containers")
            for _ in range(count - len(there))
        ]
    return found


def _detail(seen: Observed, view: ContainerView, fault: str) -> str:
    answer = seen.answers.get(view.name) if view.service == "app" else seen.front if view.service == "nginx" else None
    if fault == "hung" and answer is not None and not answer.ok:
        return f"{view.describe()}: {answer.error}"
    return view.describe()


def _silence(seen: Observed, view: ContainerView) -> str | None:
    """Tell whether a running container keeps silent that has had the time to start."""
    young = (view.uptime or 0.0) < STARTING_S
    if view.service == "worker":
        # The heartbeats of all workers come to one state: it is bad only when not one of them beats.
        beats = str(((seen.parts or {}).get("worker") or {}).get("state", "up"))
        silent = view.health == "unhealthy" or beats != "up"
    else:
        answer = seen.answers.get(view.name) if view.service == "app" else seen.front
        silent = answer is not None and not answer.ok
    if silent and view.restarted_lately:
        return "crash_loop"
    return "hung" if silent and not young else None


def starting(seen: Observed) -> bool:
    """Tell whether a container is silent that may only be starting: worth another look before anything is done."""
    return any(
        view.running
        and view.fault is None
        and not view.restarted_lately
        and (view.uptime or 0.0) < STARTING_S
        and (
            (view.service == "app" and not seen.answers.get(view.name, _SILENT).ok)
            or (view.service == "nginx" and not (seen.front or _SILENT).ok)
            or (
                view.service == "worker"
                and view.health != "healthy"
                and ((seen.parts or {}).get("worker") or {}).get("state") != "up"
            )
        )
        for view in seen.containers
    )


class _Silent:
    ok = False


_SILENT = _Silent()


def _containers(seen: Observed) -> Finding | None:
    ill = [one for one in ill_containers(seen) if one.fault != "hung"]
    if not ill:
        return None
    faults = {one.fault for one in ill}
    views = {view.name: view for view in seen.containers}
    logs = tuple((f"log of {one.name}", line) for one in ill if one.name for line in views[one.name].log)
    evidence = tuple((one.service, one.detail) for one in ill)
    if seen.image_missing and faults & {"missing", "exited", "crash_loop"}:
        return Finding("image_missing", (("image", seen.image_missing), *evidence), tuple(ill))
    if "out_of_memory" in faults:
        limits = tuple(
            (f"memory limit of {o.name}", str(views[o.name].memory_limit)) for o in ill if o.fault == "out_of_memory"
        )
        return Finding("out_of_memory", (*evidence, *limits, *logs), tuple(ill))
    dying = _dying(seen, ill, evidence, logs)
    if dying is not None:
        return dying
    fault = next(fault for fault in _FAULTS if fault in faults)
    return Finding(_FAULTS[fault], (*evidence, *logs), tuple(ill))


def _dying(
    seen: Observed, ill: list[Ill], evidence: tuple[tuple[str, str], ...], logs: tuple[tuple[str, str], ...]
) -> Finding | None:
    """Tell why a container ends by itself, as far as its settings are the reason."""
    dying = [one for one in ill if one.fault in _CRASHES]
    changed = tuple(("made with other settings", one.name) for one in dying if one.name in seen.outdated)
    if changed:
        return Finding("container_outdated", (*evidence, *changed, *logs), tuple(ill))
    names = tuple(f"log of {one.name}" for one in dying)
    told = tuple((what, line) for what, line in logs if what in names and _REFUSED_SETTINGS.search(line))
    if told:
        return Finding("settings_refused", (*told, *evidence), tuple(ill))
    return None


def _silent(seen: Observed) -> Finding | None:
    ill = [one for one in ill_containers(seen) if one.fault == "hung"]
    if not ill:
        return None
    return Finding("hung", tuple((one.service, one.detail) for one in ill), tuple(ill))


def _disk(seen: Observed) -> Finding | None:
    log = (seen.parts or {}).get("message_log") or {}
    reason = str(log.get("reason") or "")
    if reason in FULL_REASONS or (seen.log_free is not None and seen.log_free < DISK_LOW_BYTES):
        return Finding(
            "disk_full",
            (
                ("free bytes", str(seen.log_free)),
                ("needed", str(DISK_LOW_BYTES)),
                ("message log", reason or "still written"),
            ),
        )
    if log and log.get("state") != "up":
        ill = tuple(Ill(v.service, v.name, "message_log_down", reason) for v in seen.of("app"))
        return Finding("message_log_down", (("message log", reason or "down"),), ill)
    return None


def _others(seen: Observed) -> Finding | None:
    for part, cause in (("postgres", "database_down"), ("redis", "redis_down")):
        state = (seen.parts or {}).get(part) or {}
        if state and state.get("state") != "up":
            return Finding(cause, ((part, f"{state.get('state')}: {state.get('reason', 'no reason given')}"),))
    return None


def _projection(seen: Observed) -> Finding | None:
    worker = (seen.parts or {}).get("worker") or {}
    position = ((seen.parts or {}).get("postgres") or {}).get("position")
    told = ("state", "age", "projector", "log_end")
    facts = (*((name, str(worker.get(name))) for name in told), ("projected", str(position)))
    workers = tuple(Ill("worker", v.name, "not_projecting", v.describe()) for v in seen.of("worker"))
    if worker and worker.get("state") != "up":
        return Finding("hung", (("worker", f"no heartbeat for {worker.get('age')} s"), *facts), workers)
    if seen.moved is not False:
        return None
    if seen.holders:
        held = tuple(
            ("session", f"{holder.pid} ({holder.application or holder.user}) {holder.how}") for holder in seen.holders
        )
        return Finding("projection_held", (*held, *facts), workers)
    unknown = (("sessions that may hold it", seen.holders_error),) if seen.holders_error else ()
    return Finding("not_projecting", (*facts, *unknown), workers)


def _health_evidence(seen: Observed) -> tuple[tuple[str, str], ...]:
    counts = ", ".join(f"{len(seen.of(service))} {service}" for service in seen.wanted)
    notes = tuple(("made with other settings than .env has now", name) for name in seen.outdated)
    return (("containers", counts), ("free bytes under the message log", str(seen.log_free)), *notes)


def diagnosis(seen: Observed, finding: Finding) -> dict[str, Any]:
    """Build the diagnosis in the shape that the role `runbook` takes."""
    english, portuguese = SUMMARIES[finding.cause]
    first = f": {finding.evidence[0][1]}" if finding.evidence and finding.cause != HEALTHY else ""
    return {
        "component": COMPONENT,
        "cause": finding.cause,
        "healthy": finding.cause == HEALTHY,
        "evidence": [{"what": what, "value": value} for what, value in finding.evidence],
        "summary": {"en": english + first, "pt": portuguese + first},
        "belongs_to": BELONGS_TO.get(finding.cause),
        "refuse": None,
        "state": {"cause": finding.cause},
        "facts": {
            "ill": [{"service": one.service, "name": one.name, "fault": one.fault} for one in finding.ill],
            "holders": [holder.pid for holder in seen.holders],
        },
        "loses": None,
    }
