# SPDX-License-Identifier: GPL-3.0-or-later
"""Name the cause of what was observed of Redis. Pure: observations in, one diagnosis out.

The list is closed and ordered: the first that fits is the one that has to be mended first, since it hides or causes the
others. Redis holds only what may vanish: whatever is wrong with it, no message is lost.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .redis_host import SERVICE, fits
from .redis_observe import CONFIG_REFUSED, DAMAGED, DISK_FULL
from .redis_storm import NEARLY_FULL, describe, reads

if TYPE_CHECKING:
    from .redis_host import Wanted
    from .redis_observe import Observed, Server

COMPONENT = "redis"
HEALTHY = "healthy"
DISK_LOW_BYTES = 64 * 1024 * 1024
FULL = 0.95
NEVER_EVICTS = "noeviction"
SAFE_TO_EVICT = ("allkeys-lru", "allkeys-lfu", "allkeys-random")

SUMMARIES: dict[str, tuple[str, str]] = {
    "healthy": ("Redis answers and has room", "o Redis responde e tem espaço"),
    "config_invalid": ("the stack's .env or redis.conf is of no use", "o .env ou o redis.conf da stack não serve"),
    "engine_down": ("the Docker engine does not answer", "o Docker não responde"),
    "url_wrong": ("REDIS_URL of .env is not the stack's Redis", "REDIS_URL do .env não aponta para o Redis da stack"),
    "container_missing": ("there is no redis container", "não há contêiner redis"),
    "container_stopped": ("the redis container is stopped", "o contêiner redis está parado"),
    "container_exited": ("the redis container ended by itself", "o contêiner redis terminou sozinho"),
    "container_paused": ("the redis container is paused", "o contêiner redis está pausado"),
    "processes_stopped": ("Redis is stopped by a signal", "o Redis está parado por um sinal"),
    "out_of_memory": ("Redis was killed for want of memory", "o Redis foi morto por falta de memória"),
    "data_corrupt": ("Redis cannot load its damaged dump", "o Redis não carrega seu dump danificado"),
    "config_refused": ("Redis refuses its configuration", "o Redis recusa sua configuração"),
    "crash_loop": ("the redis container starts and dies again", "o contêiner redis reinicia sem parar"),
    "password_mismatch": ("the password of .env does not fit", "a senha do .env não confere"),
    "unresponsive": ("Redis runs and does not answer", "o Redis está no ar e não responde"),
    "disk_full": ("the disk under Redis is full", "o disco do Redis está cheio"),
    "limit_mismatch": ("maxmemory does not fit the container's limit", "maxmemory não cabe no limite do contêiner"),
    "memory_full": ("memory is full and writes are refused", "a memória está cheia e escritas são recusadas"),
    "policy_unset": ("the eviction policy is not the configured one", "a política de remoção não é a configurada"),
    "limit_lowered": (
        "keys are evicted as fast as they come, under a lower limit than the configured one",
        "chaves são removidas tão rápido quanto chegam, com um limite menor que o configurado",
    ),
    "eviction_storm": ("keys are evicted as fast as they come", "chaves são removidas tão rápido quanto chegam"),
    "keys_without_ttl": ("cache keys without a time to live", "chaves de cache sem TTL"),
    "foreign_keys": ("keys that are not the agent's fill the memory", "chaves que não são do agente ocupam a memória"),
    "persistence_failing": ("Redis cannot write its dump", "o Redis não consegue gravar seu dump"),
}

BELONGS_TO = {
    "config_invalid": "recover_config.yml",
    "config_refused": "recover_config.yml",
    "url_wrong": "recover_config.yml",
    "engine_down": "recover_system.yml",
    "disk_full": "reclaim_disk.yml",
}

_FAULTS = {
    "paused": "container_paused",
    "stopped": "container_stopped",
    "exited": "container_exited",
    "processes_stopped": "processes_stopped",
    "out_of_memory": "out_of_memory",
    "crash_loop": "crash_loop",
}
Evidence = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Finding:
    """A cause and what shows it: (what, value)."""

    cause: str
    evidence: Evidence


def find(seen: Observed, *, remove_foreign: bool = False) -> Finding:
    """Name the cause. `remove_foreign` is the operator's wish to have foreign keys removed."""
    if seen.env_error or seen.configuration_error:
        return Finding("config_invalid", (("configuration", str(seen.env_error or seen.configuration_error)),))
    if seen.engine_error:
        return Finding("engine_down", (("engine", seen.engine_error),))
    if seen.url_host != SERVICE:
        return Finding("url_wrong", (("host in REDIS_URL", seen.url_host or "none"), ("the stack's Redis", SERVICE)))
    return (
        _container(seen)
        or _connection(seen)
        or _server(seen, remove_foreign=remove_foreign)
        or Finding(HEALTHY, _health_evidence(seen))
    )


def _container(seen: Observed) -> Finding | None:
    view = seen.container
    if view is None:
        return Finding("container_missing", (("service", SERVICE),))
    fault = view.fault
    if fault is None and seen.refused in ("error", "timeout") and view.restarted_lately:
        fault = "crash_loop"
    if fault is None:
        return None
    lines = tuple(("log", line) for line in seen.log)
    evidence = ((SERVICE, view.describe()), *lines)
    if fault in ("exited", "crash_loop", "stopped"):
        for pattern, cause in ((DISK_FULL, "disk_full"), (DAMAGED, "data_corrupt"), (CONFIG_REFUSED, "config_refused")):
            told = tuple(("log", line) for line in seen.log if pattern.search(line))
            # A stopped one may have mended itself since; what ended by itself has not.
            if told and fault != "stopped":
                return Finding(cause, (*told, (SERVICE, view.describe())))
    if fault == "out_of_memory":
        evidence = (*evidence, ("memory limit", str(view.memory_limit)))
    return Finding(_FAULTS[fault], evidence)


def _connection(seen: Observed) -> Finding | None:
    strangers = tuple(("made with another password", name) for name in seen.strangers)
    if seen.refused == "password" or (strangers and seen.refused is None):
        refusal = (("connection", seen.connection_error),) if seen.connection_error else ()
        return Finding("password_mismatch", (*refusal, *strangers) or (("connection", "refused"),))
    if seen.connection_error is not None:
        return Finding("unresponsive", (("connection", seen.connection_error),))
    return None


def _server(seen: Observed, *, remove_foreign: bool) -> Finding | None:  # noqa: PLR0911 - one return a cause
    server, wanted, view = seen.server, seen.wanted, seen.container
    if server is None or wanted is None or view is None:
        return None
    memory = _memory_evidence(server, view.memory_limit)
    if seen.free is not None and seen.free < DISK_LOW_BYTES:
        return Finding("disk_full", (("free bytes", str(seen.free)), ("needed", str(DISK_LOW_BYTES))))
    if remove_foreign and server.census.foreign.without_ttl:
        return Finding("foreign_keys", (*_foreign_evidence(server), *memory))
    if not fits(server.maxmemory, view.memory_limit):
        return Finding("limit_mismatch", memory)
    storm = server.turnover is not None and server.turnover.storm
    # A volatile policy refuses only once nothing with a time to live is left to go.
    full = server.maxmemory > 0 and server.used >= server.maxmemory * FULL
    if server.policy not in SAFE_TO_EVICT and full and not storm:
        own = wanted.policy not in SAFE_TO_EVICT and server.census.cache.keys == 0
        if own and server.census.foreign.without_ttl:
            return Finding("foreign_keys", (*_foreign_evidence(server), *memory))
        return Finding("memory_full", memory)
    if server.policy != wanted.policy:
        return Finding("policy_unset", (("policy", server.policy), ("configured", wanted.policy)))
    if storm:
        return _storm(server, wanted, view.memory_limit)
    if server.census.cache.without_ttl:
        return Finding(
            "keys_without_ttl", (("cache keys without a time to live", str(server.census.cache.without_ttl)),)
        )
    if not (server.dump_ok and server.append_ok):
        return Finding(
            "persistence_failing",
            (
                ("last dump", "ok" if server.dump_ok else "failed"),
                ("last append", "ok" if server.append_ok else "failed"),
            ),
        )
    return None


def _storm(server: Server, wanted: Wanted, limit: int) -> Finding:
    """Tell what a storm comes from: a limit that somebody lowered, keys that are not the agent's, or its cache."""
    configured = wanted.for_limit(limit).maxmemory
    evidence = _storm_evidence(server, limit)
    if server.maxmemory < configured:
        return Finding(
            "limit_lowered",
            (("maxmemory and the configured one, bytes", f"{server.maxmemory}, {configured}"), *evidence),
        )
    if server.census.foreign.without_ttl and _little_cache(server):
        return Finding("foreign_keys", (*_foreign_evidence(server), *evidence))
    return Finding("eviction_storm", evidence)


def _little_cache(server: Server) -> bool:
    """Whether removing the cache keys would leave memory as full as it is."""
    census = server.census
    return census.cache.bytes <= census.foreign.bytes + census.state.bytes


def _storm_evidence(server: Server, limit: int) -> Evidence:
    pace = server.turnover
    if pace is None:
        return ()
    kinds = ", ".join(f"{name} ({size} bytes)" for name, size in server.census.kinds.items())
    return (
        ("keys evicted", describe(pace)),
        ("reads meanwhile", reads(pace)),
        ("what fills it" if server.census.complete else "what fills it, of those counted", kinds or "unknown"),
        ("at work meanwhile", ", ".join(server.clients) or "nobody seen"),
        *_memory_evidence(server, limit),
    )


def _memory_evidence(server: Server, limit: int) -> Evidence:
    share = f", {100 * server.used // server.maxmemory} %" if server.maxmemory else ""
    return (
        ("used of maxmemory, bytes", f"{server.used} of {server.maxmemory or 'no limit'}{share}"),
        ("container's limit, bytes", str(limit or "none")),
        ("policy", server.policy),
    )


def _foreign_evidence(server: Server) -> Evidence:
    census = server.census
    at_least = "" if census.complete else "at least "
    counts = (
        f"{at_least}{census.foreign.keys}, {census.foreign.without_ttl} of them without a time to live, "
        f"{census.foreign.bytes} bytes"
    )
    return (
        ("keys outside the agent's prefixes", counts),
        ("their prefixes", ", ".join(f"{name} ({count})" for name, count in census.prefixes.items()) or "none"),
    )


def _health_evidence(seen: Observed) -> Evidence:
    if seen.server is None or seen.container is None:
        return ()
    notes = _foreign_evidence(seen.server) if seen.server.census.foreign.keys else ()
    wanted = seen.wanted
    if wanted is not None and not fits(wanted.maxmemory, seen.container.memory_limit):
        notes = (*notes, ("stack_redis_maxmemory does not fit stack_limits.redis.memory", str(wanted.maxmemory)))
    if seen.server.maxmemory and seen.server.used >= seen.server.maxmemory * NEARLY_FULL:
        notes = (*notes, ("memory is nearly full, old keys make room", seen.server.policy))
    if seen.server.turnover is not None and seen.server.turnover.evicted:
        notes = (
            *notes,
            ("keys evicted", describe(seen.server.turnover)),
            ("reads meanwhile", reads(seen.server.turnover)),
        )
    return (*_memory_evidence(seen.server, seen.container.memory_limit), *notes)


def diagnosis(seen: Observed, finding: Finding) -> dict[str, Any]:
    """Build the diagnosis in the shape that the role `runbook` takes."""
    english, portuguese = SUMMARIES[finding.cause]
    first = f": {finding.evidence[0][1]}" if finding.evidence and finding.cause != HEALTHY else ""
    prefixes = sorted(seen.server.census.prefixes) if seen.server else []
    return {
        "component": COMPONENT,
        "cause": finding.cause,
        "healthy": finding.cause == HEALTHY,
        "evidence": [{"what": what, "value": value} for what, value in finding.evidence],
        "summary": {"en": english + first, "pt": portuguese + first},
        "belongs_to": BELONGS_TO.get(finding.cause),
        "refuse": _refusal(seen, finding.cause),
        "state": {
            "cause": finding.cause,
            "container": seen.container.id if seen.container else None,
            "prefixes": prefixes,
        },
        "facts": {"strangers": list(seen.strangers), "wanted": _wanted_facts(seen.wanted)},
        "loses": _loses(seen) if finding.cause == "foreign_keys" else None,
    }


def _refusal(seen: Observed, cause: str) -> dict[str, Any] | None:
    """Refuse what no remedy here would change: a storm of keys that are not cache empties no memory by losing the cache."""
    if cause != "eviction_storm" or seen.server is None or not _little_cache(seen.server):
        return None
    kinds = ", ".join(seen.server.census.kinds) or "?"
    clients = ", ".join(seen.server.clients) or "?"
    return {
        "reason": {
            "en": f"what fills the memory is not cache ({kinds}), so that removing the cache would not help: stop what writes it, "
            f"at work now: {clients}",
            "pt": f"o que enche a memória não é cache ({kinds}), e remover o cache não ajudaria: pare quem o escreve, "
            f"ativos agora: {clients}",
        }
    }


def _wanted_facts(wanted: Wanted | None) -> dict[str, Any] | None:
    return None if wanted is None else {"maxmemory": wanted.maxmemory, "policy": wanted.policy}


def _loses(seen: Observed) -> dict[str, str] | None:
    if seen.server is None:
        return None
    census = seen.server.census
    names = ", ".join(f"{name} ({count})" for name, count in census.prefixes.items())
    return {
        "en": f"{census.foreign.without_ttl} keys that are not the agent's, by prefix: {names}",
        "pt": f"{census.foreign.without_ttl} chaves que não são do agente, por prefixo: {names}",
    }
