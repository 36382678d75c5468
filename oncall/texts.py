# SPDX-License-Identifier: GPL-3.0-or-later
"""What the command line says, in English and Portuguese."""

from __future__ import annotations

from oncall.project import language

TEXTS: dict[str, dict[str, str]] = {
    "inventory": {"en": "inventory {path}", "pt": "inventário {path}"},
    "interrupted": {
        "en": "stopped. What ran on the host may still end by itself; the lease is free within {seconds} s of its end. "
        "Run the same command again: it converges.",
        "pt": "parado. O que rodava no servidor ainda pode terminar sozinho; o bloqueio fica livre até {seconds} s depois. "
        "Execute o mesmo comando de novo: ele converge.",
    },
    "nothing_ran": {"en": "nothing ran", "pt": "nada foi executado"},
    "free": {"en": "free", "pt": "livre"},
    "dead": {"en": "left behind", "pt": "abandonado"},
    "host": {"en": "host", "pt": "servidor"},
    "health": {"en": "health", "pt": "saúde"},
    "alerts": {"en": "alerts", "pt": "alertas"},
    "lock": {"en": "lock", "pt": "bloqueio"},
    "breakers": {"en": "breakers", "pt": "disjuntores"},
    "mutes": {"en": "mutes", "pt": "silenciados"},
    "last_run": {"en": "last run", "pt": "última execução"},
    "backup": {"en": "backup", "pt": "backup"},
    "containers": {"en": "containers", "pt": "contêineres"},
    "open": {"en": "OPEN", "pt": "ABERTO"},
    "closed": {"en": "closed", "pt": "fechado"},
    "until": {"en": "until", "pt": "até"},
    "none": {"en": "none", "pt": "nenhum"},
    "never_proven": {"en": "never proven", "pt": "nunca provado"},
    "proven": {"en": "proven {age} ago", "pt": "provado há {age}"},
    "ago": {"en": "{age} ago", "pt": "há {age}"},
    "no_off_host": {"en": "NOT off host", "pt": "NÃO fora do servidor"},
    "run": {"en": "run", "pt": "execução"},
    "component": {"en": "component", "pt": "componente"},
    "outcome": {"en": "outcome", "pt": "resultado"},
    "cause": {"en": "cause", "pt": "causa"},
    "remedy": {"en": "remedy", "pt": "remédio"},
    "seconds": {"en": "seconds", "pt": "segundos"},
    "who": {"en": "who", "pt": "quem"},
    "dry": {"en": "dry run", "pt": "simulação"},
    "still_open": {"en": "open", "pt": "aberta"},
    "failures": {"en": "failures", "pt": "falhas"},
    "no_runs": {"en": "no runs recorded", "pt": "nenhuma execução registrada"},
    "no_run": {"en": "no host has a run {run}", "pt": "nenhum servidor tem a execução {run}"},
    "several_hosts": {
        "en": "the inventory has several hosts ({hosts}): say which with --host",
        "pt": "o inventário tem vários servidores ({hosts}): diga qual com --host",
    },
    "done": {"en": "done on {host}", "pt": "feito em {host}"},
    "already": {"en": "nothing to do on {host}", "pt": "nada a fazer em {host}"},
    "muted_alert": {"en": "muted", "pt": "silenciado"},
    "muted": {
        "en": "{component} on {host} is muted until {until}",
        "pt": "{component} em {host} silenciado até {until}",
    },
    "dry_run": {"en": "DRY RUN: nothing is changed", "pt": "SIMULAÇÃO: nada é alterado"},
    "purpose": {"en": "purpose", "pt": "para quê"},
    "playbook": {"en": "playbook", "pt": "playbook"},
    "watch_begins": {
        "en": "watching {hosts}; runs runbooks unattended, gives no consent. Ctrl-C ends it",
        "pt": "observando {hosts}; executa runbooks sozinho, não dá consentimento. Ctrl-C encerra",
    },
    "watch_ends": {"en": "watch ended", "pt": "observação encerrada"},
    "watch_blind": {"en": "could not look: {why}", "pt": "não foi possível olhar: {why}"},
    "watch_act": {
        "en": "runs {runbook} for the alert {alert} ({severity})",
        "pt": "executa {runbook} pelo alerta {alert} ({severity})",
    },
    "watch_muted": {
        "en": "does nothing: muted until {until} by {by} ({why})",
        "pt": "não faz nada: silenciado até {until} por {by} ({why})",
    },
    "watch_breaker": {
        "en": "does nothing: {count} recoveries failed in a row and the breaker is open; a person must look",
        "pt": "não faz nada: {count} recuperações falharam em seguida e o disjuntor está aberto; alguém precisa olhar",
    },
    "watch_locked": {
        "en": "waits: run {run} of {who} holds the host",
        "pt": "espera: a execução {run} de {who} ocupa o servidor",
    },
    "watch_pause": {
        "en": "waits {seconds} s after attempt {attempts}",
        "pt": "espera {seconds} s após a tentativa {attempts}",
    },
    "watch_no_runbook": {
        "en": "no runbook here mends it ({runbook})",
        "pt": "nenhum runbook daqui resolve ({runbook})",
    },
    "watch_person": {
        "en": "does nothing, a person must look: {summary}; {instead}",
        "pt": "não faz nada, alguém precisa olhar: {summary}; {instead}",
    },
    "watch_persists": {
        "en": "{alert} holds although {attempts} runs ended well, a person must look; the last: {why}",
        "pt": "{alert} continua embora {attempts} execuções tenham terminado bem, alguém precisa olhar; a última: {why}",
    },
    "watch_gone": {"en": "the fault is gone", "pt": "a falha sumiu"},
    "waiting": {"en": "waiting for run {run}", "pt": "esperando a execução {run}"},
}


def say(key: str, **values: object) -> str:
    """Return a text in the operator's language."""
    return TEXTS[key][language()].format(**values)
