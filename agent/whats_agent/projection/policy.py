# SPDX-License-Identifier: GPL-3.0-or-later
"""The few settings that decide how the log becomes rows."""

from dataclasses import dataclass

from whats_agent.conversation.rules import Rules, phrases
from whats_agent.settings import WorkerSettings


@dataclass(frozen=True, slots=True)
class Policy:
    """Who answers, seconds of Meta's answer window, seconds that a send of unknown fate waits for its status, whether to fetch."""

    rules: Rules
    answer_window: float
    echo_wait: float
    media_fetch: bool = False


def policy_of(settings: WorkerSettings) -> Policy:
    """The policy that the settings describe."""
    rules = Rules(
        phone_number_id=settings.phone_number_id,
        handover_phrases=phrases(settings.handover_phrases),
        handback_phrases=phrases(settings.handback_phrases),
        handover_seconds=settings.handover_hours * 3600,
    )
    return Policy(rules, settings.answer_window_seconds, settings.send_echo_wait_seconds, settings.media_fetch)
