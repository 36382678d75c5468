# SPDX-License-Identifier: GPL-3.0-or-later
"""When an alert holds. Pure: facts in, findings out. None in a fact means that nobody knows, and then no rule speaks."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from whats_agent.alerts.backups import Backups

MIN_REQUESTS = 20
RESPONSE_TARGET_SECONDS = 2.0
ERROR_TARGET = 0.05
QUEUE_AGE_SECONDS = 300.0
LAG_SECONDS = 60.0
ARCHIVE_SECONDS = 900.0
BACKUP_HOURS = 26.0
STATUS_HOURS = 2.0
DISK_LOW, DISK_CRITICAL = 0.10, 0.03
CERTIFICATE_DAYS, CERTIFICATE_CRITICAL_DAYS = 14.0, 3.0
VERSION_DAYS = 60
REFUSED_PER_WINDOW = 30


class Severity(StrEnum):
    """As the operators' guide names them: total outage, critical function affected, minor."""

    P0 = "P0"
    P1 = "P1"
    P2 = "P2"


@dataclass(frozen=True, slots=True)
class Facts:
    """What was seen at one moment, over the last five minutes where it is a rate. Seconds, shares 0 to 1, counts."""

    message_log_state: str = "up"
    message_log_reason: str | None = None
    postgres_state: str | None = None
    redis_state: str | None = None
    worker_state: str | None = None
    sender_stopped: str | None = None
    breaker_open: bool | None = None
    disk_free: float | None = None
    requests: int = 0
    response_p95: float | None = None
    request_error_rate: float | None = None
    answers: int = 0
    answer_error_rate: float | None = None
    refused: int = 0
    queue_age: float | None = None
    projection_lag_seconds: float | None = None
    archive_age: float | None = None
    archive_failing: str | None = None
    backups: Backups = field(default_factory=Backups)
    certificate_days: float | None = None
    graph_version: str | None = None
    graph_version_days: int | None = None
    graph_version_served: str | None = None
    unreadable_last_hour: int | None = None
    account_warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Finding:
    """One alert that holds now."""

    name: str
    severity: Severity
    runbook: str
    summary: str
    resumo: str
    evidence: dict[str, Any] = field(default_factory=dict)


def findings(facts: Facts) -> list[Finding]:
    """Every alert that holds for these facts, each name once."""
    return [*_parts(facts), *_service_levels(facts), *_upstream(facts), *_keeping(facts), *_backups(facts)]


def _parts(facts: Facts) -> Iterator[Finding]:
    if facts.message_log_state != "up":
        yield Finding(
            "message_log_down",
            Severity.P0,
            "recover_system.yml",
            "webhooks cannot be stored and are refused with 503",
            "os webhooks não podem ser gravados e são recusados com 503",
            {"reason": facts.message_log_reason},
        )
    if facts.postgres_state not in (None, "up"):
        yield Finding(
            "postgres_down",
            Severity.P0,
            "recover_db.yml",
            "PostgreSQL does not answer; messages are kept in the log and answered later",
            "o PostgreSQL não responde; as mensagens ficam no log e são respondidas depois",
            {"state": facts.postgres_state},
        )
    if facts.worker_state not in (None, "up"):
        yield Finding(
            "worker_down",
            Severity.P1,
            "recover_app.yml",
            "no worker gives signs of life; nobody is answered",
            "nenhum worker dá sinal de vida; ninguém é respondido",
            {"state": facts.worker_state},
        )
    if facts.redis_state not in (None, "up"):
        yield Finding(
            "redis_down",
            Severity.P2,
            "recover_redis.yml",
            "Redis does not answer; nothing is lost, workers no longer share the circuit breaker",
            "o Redis não responde; nada se perde, os workers deixam de partilhar o disjuntor",
            {"state": facts.redis_state},
        )


def _service_levels(facts: Facts) -> Iterator[Finding]:
    if facts.requests >= MIN_REQUESTS and (facts.response_p95 or 0) > RESPONSE_TARGET_SECONDS:
        yield Finding(
            "response_time",
            Severity.P1,
            "recover_performance.yml",
            "95th percentile of the response time above 2 s",
            "percentil 95 do tempo de resposta acima de 2 s",
            {"p95_ms": _ms(facts.response_p95), "target_ms": _ms(RESPONSE_TARGET_SECONDS), "requests": facts.requests},
        )
    worst = max(
        facts.request_error_rate or 0 if facts.requests >= MIN_REQUESTS else 0,
        facts.answer_error_rate or 0 if facts.answers >= MIN_REQUESTS else 0,
    )
    if worst > ERROR_TARGET:
        yield Finding(
            "error_rate",
            Severity.P1,
            "recover_error_rate.yml",
            "more than 5 % of the requests or answers fail",
            "mais de 5 % das requisições ou respostas falham",
            {
                "error_rate": round(worst, 4),
                "target": ERROR_TARGET,
                "requests": facts.requests,
                "answers": facts.answers,
            },
        )
    if (facts.queue_age or 0) > QUEUE_AGE_SECONDS:
        yield Finding(
            "queue_age",
            Severity.P1,
            "recover_dependencies.yml",
            "a message has waited more than five minutes for its answer",
            "uma mensagem espera resposta há mais de cinco minutos",
            {"oldest_seconds": round(facts.queue_age or 0)},
        )
    if (facts.projection_lag_seconds or 0) > LAG_SECONDS:
        yield Finding(
            "projection_lag",
            Severity.P1,
            "recover_app.yml",
            "PostgreSQL is more than a minute behind the message log",
            "o PostgreSQL está mais de um minuto atrás do log de mensagens",
            {"seconds": round(facts.projection_lag_seconds or 0)},
        )
    if facts.refused >= REFUSED_PER_WINDOW:
        yield Finding(
            "refused_webhooks",
            Severity.P1,
            "respond_security.yml",
            "many webhook calls without our signature: somebody is trying, or the app secret does not match Meta's",
            "muitas chamadas ao webhook sem a nossa assinatura: alguém está tentando, ou o app secret não confere com o da Meta",
            {"refused": facts.refused},
        )


def _upstream(facts: Facts) -> Iterator[Finding]:
    if facts.sender_stopped:
        yield Finding(
            "sender_stopped",
            Severity.P1,
            "recover_dependencies.yml",
            "Meta refuses every send (token, permission or account); the queue is kept",
            "a Meta recusa todos os envios (token, permissão ou conta); a fila é mantida",
            {"reason": facts.sender_stopped},
        )
    if facts.breaker_open:
        yield Finding(
            "openai_breaker_open",
            Severity.P2,
            "recover_dependencies.yml",
            "OpenAI fails; users get the fallback answer",
            "a OpenAI falha; os usuários recebem a resposta padrão",
        )
    version = {
        "version": facts.graph_version,
        "days_left": facts.graph_version_days,
        "served": facts.graph_version_served,
    }
    if facts.graph_version_served and facts.graph_version_served != facts.graph_version:
        yield Finding(
            "graph_version",
            Severity.P1,
            "recover_dependencies.yml",
            "Meta has retired the configured Graph version and answers with another",
            "a Meta aposentou a versão configurada do Graph e responde com outra",
            version,
        )
    elif facts.graph_version_days is not None and facts.graph_version_days <= VERSION_DAYS:
        yield Finding(
            "graph_version",
            Severity.P1 if facts.graph_version_days <= 0 else Severity.P2,
            "recover_dependencies.yml",
            "the configured Graph version ends soon",
            "a versão configurada do Graph termina em breve",
            version,
        )
    if facts.account_warnings:
        yield Finding(
            "account_warning",
            Severity.P1,
            "recover_dependencies.yml",
            "Meta warns about the account or the number",
            "a Meta avisa sobre a conta ou o número",
            {"events": list(facts.account_warnings)},
        )


def _keeping(facts: Facts) -> Iterator[Finding]:
    if facts.disk_free is not None and facts.disk_free < DISK_LOW:
        yield Finding(
            "disk_low",
            Severity.P0 if facts.disk_free < DISK_CRITICAL else Severity.P1,
            "reclaim_disk.yml",
            "the disk of the message log is nearly full",
            "o disco do log de mensagens está quase cheio",
            {"free": round(facts.disk_free, 4)},
        )
    if facts.certificate_days is not None and facts.certificate_days < CERTIFICATE_DAYS:
        yield Finding(
            "certificate",
            Severity.P0 if facts.certificate_days < CERTIFICATE_CRITICAL_DAYS else Severity.P1,
            "recover_webhook.yml",
            "the TLS certificate ends soon",
            "o certificado TLS vence em breve",
            {"days_left": round(facts.certificate_days, 1)},
        )
    if facts.unreadable_last_hour:
        yield Finding(
            "unreadable_items",
            Severity.P2,
            "analyze_logs.yml",
            "Meta sent something this version cannot read; it was kept",
            "a Meta enviou algo que esta versão não sabe ler; foi guardado",
            {"last_hour": facts.unreadable_last_hour},
        )


def _backups(facts: Facts) -> Iterator[Finding]:
    told = facts.backups
    if facts.archive_failing or max(facts.archive_age or 0, told.lag or 0) > ARCHIVE_SECONDS:
        yield Finding(
            "archive_late",
            Severity.P1,
            "recover_db.yml",
            "WAL is not being archived; a restore would miss the latest changes",
            "o WAL não está sendo arquivado; um restore perderia as últimas mudanças",
            {
                "failed_segment": facts.archive_failing,
                "seconds_since_last": _whole(facts.archive_age),
                "seconds_waiting": _whole(told.lag),
            },
        )
    if (told.proven_age or 0) > BACKUP_HOURS:
        yield Finding(
            "backup_late",
            Severity.P1,
            "backup.yml",
            "the last proven backup is older than a day",
            "o último backup comprovado tem mais de um dia",
            {"hours": _whole(told.proven_age)},
        )
    if (told.archive_age or 0) > BACKUP_HOURS:
        yield Finding(
            "stack_archive_late",
            Severity.P1,
            "backup.yml",
            "the last proven archive of settings, certificates and message log is older than a day",
            "o último arquivo comprovado de configuração, certificados e log de mensagens tem mais de um dia",
            {"hours": _whole(told.archive_age)},
        )
    if (told.told_age or 0) > STATUS_HOURS:
        yield Finding(
            "backup_status_late",
            Severity.P2,
            "backup.yml",
            "nobody has looked at the backups for hours: their timers do not run",
            "há horas ninguém olha os backups: os timers não rodam",
            {"hours": _whole(told.told_age)},
        )
    if told.problems:
        yield Finding(
            "backup_repository",
            Severity.P1,
            "backup.yml",
            "a backup repository cannot be used: a restore could not rely on it",
            "um repositório de backup não pode ser usado: um restore não poderia contar com ele",
            {"problems": list(told.problems)},
        )
    if told.failed:
        yield Finding(
            "backup_failed",
            Severity.P1,
            "backup.yml",
            "the last backup, proof or archive by a timer failed",
            "o último backup, prova ou arquivo feito por um timer falhou",
            {"failed": list(told.failed)},
        )
    if told.jumps:
        yield Finding(
            "backup_size",
            Severity.P2,
            "backup.yml",
            "a backup differs strongly in size from the one of its type before it",
            "um backup difere muito em tamanho do anterior do mesmo tipo",
            {"backups": list(told.jumps)},
        )
    if told.held:
        yield Finding(
            "backup_expiry",
            Severity.P2,
            "backup.yml",
            "a repository keeps all of its old backups, since no newer one is proven: its disk fills",
            "um repositório guarda todos os backups antigos, pois nenhum mais novo foi comprovado: o disco enche",
            {"repositories": list(told.held)},
        )


def _ms(seconds: float | None) -> int | None:
    return None if seconds is None else round(seconds * 1000)


def _whole(value: float | None) -> int | None:
    return None if value is None else round(value)
