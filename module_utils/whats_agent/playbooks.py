# SPDX-License-Identifier: GPL-3.0-or-later
"""Playbooks that texts and alerts name already and that are not there yet, with what an operator does until then.

Whoever adds one of them takes its line out here; a test holds this list, all texts and playbooks/ against each other.
"""

from __future__ import annotations

from .errors import Text

# The section of the troubleshooting guide that has the procedure by hand.
ANNOUNCED = {
    "analyze_logs.yml": "Análise de Logs",
    "disaster_recovery.yml": "Disaster Recovery Completo",
    "reclaim_disk.yml": "P2 Logs Excessivos Enchendo Disco",
    "recover_dependencies.yml": "P2 Dependências Externas Indisponíveis",
    "recover_error_rate.yml": "P1 Error Rate Elevada",
    "recover_performance.yml": "P1 Performance Degradada",
    "recover_system.yml": "P0 Sistema Completamente Indisponível",
    "recover_webhook.yml": "P0 Webhook do WhatsApp Falhando",
    "respond_security.yml": "P1 Alertas de Segurança",
    "rollback.yml": "Rollback de emergência",
    "update.yml": "rolling_update.sh",
}


def by_hand(playbook: str) -> Text | None:
    """Return what to do in place of a playbook that is only announced; None for every other name."""
    section = ANNOUNCED.get(playbook)
    if section is None:
        return None
    return {
        "en": f"{playbook} is announced but not there yet: by hand, as the troubleshooting guide says under “{section}”",
        "pt": f"{playbook} está anunciado mas ainda não existe: à mão, como diz o guia de troubleshooting em “{section}”",
    }
