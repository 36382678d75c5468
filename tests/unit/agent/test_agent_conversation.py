# SPDX-License-Identifier: GPL-3.0-or-later
"""Who answers a message, and what the model is shown."""

from datetime import UTC, datetime, timedelta

import pytest

from tests.unit.agent.agent_bodies import ENVIRONMENT, text_message, webhook
from whats_agent.conversation.controls import Control, read_control
from whats_agent.conversation.rules import Rules, decide, normalised, phrases, says
from whats_agent.errors import UnreadableItemError
from whats_agent.whatsapp.items import InboundMessage
from whats_agent.whatsapp.message_types import Action
from whats_agent.whatsapp.parse import parse

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
RULES = Rules(
    ENVIRONMENT["PHONE_NUMBER_ID"],
    phrases("atendente, falar com alguém"),
    phrases("voltar ao assistente"),
    handover_seconds=3600,
)


def message(text: str) -> InboundMessage:
    """An inbound text."""
    item = parse(webhook(text_message(text)))[0]
    assert isinstance(item, InboundMessage)
    return item


@pytest.mark.parametrize(
    ("text", "handed_over_minutes_ago", "muted", "action"),
    [
        ("Qual o horário?", None, False, Action.ANSWER),
        ("Qual o horário?", None, True, Action.MUTED),
        ("Quero um ATENDENTE, por favor!", None, False, Action.HANDOVER),
        ("quero falar com alguem", None, False, Action.HANDOVER),
        ("Quero um atendente", None, True, Action.MUTED),
        ("O atendentezinho", None, False, Action.ANSWER),
        ("Alô?", 5, False, Action.HANDED_OVER),
        ("atendente", 5, False, Action.HANDED_OVER),
        ("Voltar ao assistente", 5, False, Action.HANDBACK),
        ("Voltar ao assistente", None, False, Action.ANSWER),
        ("Alô?", 59, False, Action.HANDED_OVER),
        ("Alô?", 60, False, Action.ANSWER),
    ],
)
def test_who_answers(text: str, handed_over_minutes_ago: int | None, muted: bool, action: Action) -> None:
    since = NOW - timedelta(minutes=handed_over_minutes_ago) if handed_over_minutes_ago is not None else None
    assert decide(message(text), since, NOW, RULES, muted=muted) is action


def test_what_is_not_answered_anyway_stays_so() -> None:
    reaction = parse(
        webhook({"from": "1", "id": "w", "type": "reaction", "reaction": {"emoji": "👍", "message_id": "x"}})
    )[0]
    assert isinstance(reaction, InboundMessage)
    assert decide(reaction, NOW, NOW, RULES, muted=True) is Action.STORE


def test_a_number_that_is_not_ours_is_stored_only() -> None:
    raw = webhook(text_message()).replace(ENVIRONMENT["PHONE_NUMBER_ID"].encode(), b"999999999")
    foreign = parse(raw)[0]
    assert isinstance(foreign, InboundMessage)
    assert decide(foreign, None, NOW, RULES, muted=False) is Action.STORE


def test_our_own_words_are_not_answered() -> None:
    own = parse(webhook(text_message()).replace(b'"from": "5511988887777"', b'"from": "551130000000"'))[0]
    assert isinstance(own, InboundMessage)
    assert own.from_business
    assert decide(own, None, NOW, RULES, muted=False) is Action.STORE


def test_phrases_ignore_case_accents_and_punctuation() -> None:
    assert normalised("  Atenção:  NÃO, é “isso”! ") == "atencao nao e isso"
    assert phrases(" um, , Dois três ,") == ("um", "dois tres")
    assert not says("", ("um",))
    assert not says("uma", ("um",))
    assert says("é UM só", ("um",))


def test_controls_survive_the_log_and_others_are_refused() -> None:
    for control in (Control("answers", "off"), Control("answers", "on"), Control("handback", "5511988887777")):
        assert read_control(control.to_bytes()) == control
    for raw in (b"", b"{}", b"[]", b'{"name":"answers","value":"maybe"}', b'{"name":"format_disk","value":"now"}'):
        with pytest.raises(UnreadableItemError):
            read_control(raw)
