# SPDX-License-Identifier: GPL-3.0-or-later
"""Who answers: the agent, a person, or nobody. Pure decisions over the message and the conversation's state."""

import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from whats_agent.whatsapp.items import InboundMessage
from whats_agent.whatsapp.message_types import Action, action_for


@dataclass(frozen=True, slots=True)
class Rules:
    """Settings of these decisions: our own number's id, the phrases, and for how many seconds a person keeps a conversation."""

    phone_number_id: str
    handover_phrases: tuple[str, ...]
    handback_phrases: tuple[str, ...]
    handover_seconds: float


def normalised(text: str) -> str:
    """Lower case, without accents and punctuation, single spaces: ``Atendente, por favor!`` -> ``atendente por favor``."""
    plain = unicodedata.normalize("NFKD", text.casefold())
    return " ".join(re.findall(r"[^\W_]+", "".join(c for c in plain if not unicodedata.combining(c))))


def phrases(text: str) -> tuple[str, ...]:
    """A comma-separated setting as normalised phrases."""
    return tuple(phrase for phrase in (normalised(part) for part in text.split(",")) if phrase)


def says(text: str, wanted: Iterable[str]) -> bool:
    """Whether the text contains one of the phrases as whole words."""
    padded = f" {normalised(text)} "
    return any(f" {phrase} " in padded for phrase in wanted)


def decide(
    message: InboundMessage, handed_over_at: datetime | None, at: datetime, rules: Rules, *, muted: bool
) -> Action:
    """What to do about a message received at ``at`` in a conversation that a person has since ``handed_over_at``."""
    action = action_for(message.type, message.text, message.group_id)
    if action not in (Action.ANSWER, Action.POLITE):
        return action
    if message.from_business or message.phone_number_id != rules.phone_number_id:
        # Our own words, or a number of somebody else's, for which we have no token.
        return Action.STORE
    if muted:
        return Action.MUTED
    if handed_over_at is not None and at < handed_over_at + timedelta(seconds=rules.handover_seconds):
        return Action.HANDBACK if says(message.text, rules.handback_phrases) else Action.HANDED_OVER
    return Action.HANDOVER if says(message.text, rules.handover_phrases) else action
