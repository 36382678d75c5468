# SPDX-License-Identifier: GPL-3.0-or-later
"""What each message type does. This table is the one place; ``docs/message_types.md`` shows it to operators.

``Action.ANSWER``   the text below goes to OpenAI and its answer to the user
``Action.POLITE``   a fixed sentence from the settings goes to the user, OpenAI is not asked
``Action.STORE``    kept in PostgreSQL, nobody is answered
``Action.ALERT``    kept, and an operator is told
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from whats_agent.whatsapp.items import Json


class Action(StrEnum):
    """What is done about a message, besides storing it."""

    ANSWER = "answer"
    POLITE = "polite"
    STORE = "store"
    ALERT = "alert"
    # Decided by the conversation's state rather than by the message's type:
    HANDOVER = "handover"  # the user asked for a person: a fixed sentence, then the agent keeps silent
    HANDBACK = "handback"  # the user asked for the assistant again
    HANDED_OVER = "handed_over"  # a person has the conversation: stored, not answered
    MUTED = "muted"  # the kill switch is on: stored, not answered


REPLIES = frozenset({Action.ANSWER, Action.POLITE, Action.HANDOVER, Action.HANDBACK})


@dataclass(frozen=True, slots=True)
class MessageType:
    """One row: what to do, and how the message reads as text (empty when it says nothing a model could answer)."""

    action: Action
    text: Callable[[Json], str]
    note: str


def _get(value: Any, *path: str) -> str:
    """The string or number at ``path`` inside ``value``, or an empty string when there is none."""
    for name in path:
        if not isinstance(value, dict):
            return ""
        value = value.get(name)
    if isinstance(value, str):
        return value.strip()
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else ""


def _list(value: Any, *path: str) -> list[Any]:
    for name in path:
        value = value.get(name) if isinstance(value, dict) else None
    return value if isinstance(value, list) else []


def _join(*parts: str, by: str = " ") -> str:
    return by.join(part for part in parts if part)


def _media(kind: str, label: str) -> Callable[[Json], str]:
    def text(message: Json) -> str:
        caption = _get(message, kind, "caption")
        return _join(f"[{label}]", _get(message, kind, "filename"), caption) if caption else ""

    return text


def _location(message: Json) -> str:
    place = _join(_get(message, "location", "name"), _get(message, "location", "address"), by=", ")
    point = _join(_get(message, "location", "latitude"), _get(message, "location", "longitude"), by=", ")
    return _join("[localização]", place, f"({point})" if point else "")


def _contacts(message: Json) -> str:
    names = [_get(contact, "name", "formatted_name") for contact in _list(message, "contacts")]
    return _join("[contatos]", ", ".join(name for name in names if name))


def _interactive(message: Json) -> str:
    for kind in ("button_reply", "list_reply"):
        title = _get(message, "interactive", kind, "title")
        if title:
            return _join(title, _get(message, "interactive", kind, "description"), by=" – ")
    flow = _get(message, "interactive", "nfm_reply", "response_json")
    return _join("[formulário]", flow) if flow else ""


def _order(message: Json) -> str:
    lines = []
    for product in _list(message, "order", "product_items"):
        price = _join(_get(product, "item_price"), _get(product, "currency"))
        lines.append(f"{_get(product, 'quantity')} × {_get(product, 'product_retailer_id')} ({price})")
    return _join("[pedido]", _get(message, "order", "text"), "; ".join(lines))


def _reaction(message: Json) -> str:
    return _get(message, "reaction", "emoji")


def _nothing(_message: Json) -> str:
    return ""


TABLE: dict[str, MessageType] = {
    "text": MessageType(Action.ANSWER, lambda message: _get(message, "text", "body"), "the body"),
    "image": MessageType(Action.ANSWER, _media("image", "imagem"), "the caption; without one, politely"),
    "video": MessageType(Action.ANSWER, _media("video", "vídeo"), "the caption; without one, politely"),
    "document": MessageType(
        Action.ANSWER, _media("document", "documento"), "file name and caption; without caption, politely"
    ),
    "audio": MessageType(Action.POLITE, _nothing, "voice notes and audio files are not listened to"),
    "sticker": MessageType(Action.STORE, _nothing, "says nothing to answer"),
    "location": MessageType(Action.ANSWER, _location, "name, address and coordinates"),
    "contacts": MessageType(Action.ANSWER, _contacts, "the names, not the numbers"),
    "interactive": MessageType(
        Action.ANSWER, _interactive, "title of the button or row pressed, or the form's answers"
    ),
    "button": MessageType(
        Action.ANSWER, lambda message: _get(message, "button", "text"), "text of the template's button"
    ),
    "order": MessageType(Action.ANSWER, _order, "the products ordered"),
    "reaction": MessageType(Action.STORE, _reaction, "set or, with no emoji, removed; never answered"),
    "edit": MessageType(
        Action.STORE, lambda message: _get(message, "edit", "message", "text", "body"), "the new text is kept"
    ),
    "revoke": MessageType(Action.STORE, _nothing, "the user deleted a message"),
    "system": MessageType(
        Action.STORE, lambda message: _get(message, "system", "body"), "for example a changed number"
    ),
    "request_welcome": MessageType(Action.STORE, _nothing, "the chat was opened for the first time"),
    "unsupported": MessageType(
        Action.POLITE, _nothing, "Meta cannot show it to us (polls, view-once media and the like)"
    ),
}
UNKNOWN = MessageType(
    Action.ALERT, _nothing, "a type this version does not know: kept, operators are told, nobody is answered"
)


MEDIA_TYPES = frozenset({"image", "video", "document", "audio", "sticker"})


def media_id_of(message_type: str, message: Json) -> str | None:
    """The id of the file that a message carries; None when it carries none."""
    return _get(message, message_type, "id") or None if message_type in MEDIA_TYPES else None


def describe(message_type: str) -> MessageType:
    """The table's row for a type."""
    return TABLE.get(message_type, UNKNOWN)


def action_for(message_type: str, text: str, group_id: str | None) -> Action:
    """What to do about one message: its row, except that what has no text is answered politely, and groups never."""
    action = describe(message_type).action
    if group_id and action in (Action.ANSWER, Action.POLITE):
        return Action.STORE
    return Action.POLITE if action is Action.ANSWER and not text else action
