# SPDX-License-Identifier: GPL-3.0-or-later
"""A webhook body -> items. Every item stands alone: one that is broken becomes an ``UnreadableItem`` and spoils nothing else."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import partial
from typing import Any

from whats_agent.errors import UnreadableItemError
from whats_agent.whatsapp.body import as_text, decode, storable, storable_text
from whats_agent.whatsapp.items import (
    AccountEvent,
    InboundMessage,
    Item,
    Json,
    MessageEcho,
    StatusUpdate,
    UnreadableItem,
)
from whats_agent.whatsapp.message_types import describe

MAX_ID = 512
MAX_TEXT = 20_000
_ECHO_FIELDS = ("smb_message_echoes", "message_echoes")


def parse(raw: bytes) -> list[Item]:
    """Everything a body holds, in its order. Never raises: a body that is no webhook is one unreadable item."""
    try:
        body = decode(raw)
        entries = _sequence(_mapping(body, "the body"), "entry", required=True)
    except UnreadableItemError as error:
        return [UnreadableItem("body", str(error), storable_text(raw.decode("utf-8", "replace"))[:100_000])]
    items: list[Item] = []
    for entry_number, entry in enumerate(entries):
        where = str(entry_number)
        try:
            changes = _sequence(_mapping(entry, "an entry"), "changes", required=True)
            entry_id = _identifier(entry.get("id", ""), "entry id", required=False)
        except UnreadableItemError as error:
            items.append(UnreadableItem(where, str(error), as_text(entry)))
            continue
        for change_number, change in enumerate(changes):
            items += _change(f"{where}.{change_number}", entry_id, change)
    return items


def _change(where: str, entry_id: str, change: Any) -> Iterator[Item]:
    try:
        kind = _identifier(_mapping(change, "a change").get("field"), "field")
        value = _mapping(change.get("value"), f"the value of field {kind}")
    except UnreadableItemError as error:
        yield UnreadableItem(where, str(error), as_text(change))
        return
    if kind == "messages":
        yield from _messages(where, entry_id, value)
    elif kind in _ECHO_FIELDS and isinstance(value.get("message_echoes"), list):
        yield from _each(where, "echo", value["message_echoes"], partial(_echo, value))
    else:
        yield _guard(where, value, lambda: AccountEvent(where, entry_id, kind, storable(value)))


def _messages(where: str, entry_id: str, value: Json) -> Iterator[Item]:
    found = False
    for name, build in (("messages", _message), ("statuses", _status)):
        group = value.get(name)
        if group is None:
            continue
        found = True
        if not isinstance(group, list):
            yield UnreadableItem(f"{where}.{name}", f"{name} is not a list", as_text(group))
            continue
        yield from _each(where, name, group, partial(build, value))
    if value.get("errors") is not None:
        found = True
        errors = {"errors": value["errors"], "metadata": value.get("metadata")}
        item = f"{where}.errors"
        yield _guard(item, errors, lambda: AccountEvent(item, entry_id, "messages.errors", storable(errors)))
    if not found:
        yield _guard(where, value, lambda: AccountEvent(where, entry_id, "messages", storable(value)))


def _each(where: str, name: str, group: list[Any], build: Callable[[str, Any], Item]) -> Iterator[Item]:
    for number, one in enumerate(group):
        item = f"{where}.{name}.{number}"
        yield _guard(item, one, partial(build, item, one))


def _guard(item: str, raw: Any, build: Callable[[], Item]) -> Item:
    try:
        return build()
    except UnreadableItemError as error:
        return UnreadableItem(item, str(error), as_text(raw))


def _message(value: Json, item: str, raw: Any) -> InboundMessage:
    message = _mapping(storable(raw), "a message")
    kind = _identifier(message.get("type"), "type")
    wa_id = _identifier(message.get("from"), "from", required=False).lstrip("+") or None
    user_id = _identifier(message.get("from_user_id"), "from_user_id", required=False) or None
    profile_name, known_wa_id, known_user_id = _profile(value, wa_id, user_id)
    wa_id, user_id = wa_id or known_wa_id, user_id or known_user_id
    if not wa_id and not user_id:
        raise UnreadableItemError("a message names neither from nor from_user_id")
    return InboundMessage(
        item=item,
        phone_number_id=_phone_number_id(value),
        wamid=_identifier(message.get("id"), "id"),
        type=kind,
        text=describe(kind).text(message)[:MAX_TEXT],
        sent_at=_moment(message.get("timestamp")),
        wa_id=wa_id,
        user_id=user_id,
        profile_name=profile_name,
        group_id=_identifier(message.get("group_id"), "group_id", required=False) or None,
        from_business=bool(wa_id) and wa_id == _display_number(value),
        payload=message,
    )


def _echo(value: Json, item: str, raw: Any) -> MessageEcho:
    message = _mapping(storable(raw), "an echo")
    kind = _identifier(message.get("type"), "type")
    wa_id = _identifier(message.get("to"), "to", required=False).lstrip("+") or None
    user_id = _identifier(message.get("to_user_id"), "to_user_id", required=False) or None
    if not wa_id and not user_id:
        raise UnreadableItemError("an echo does not say to whom it went")
    return MessageEcho(
        item=item,
        phone_number_id=_phone_number_id(value),
        wamid=_identifier(message.get("id"), "id"),
        type=kind,
        text=describe(kind).text(message)[:MAX_TEXT],
        sent_at=_moment(message.get("timestamp")),
        wa_id=wa_id,
        user_id=user_id,
        payload=message,
    )


def _status(value: Json, item: str, raw: Any) -> StatusUpdate:
    status = _mapping(storable(raw), "a status")
    errors = status.get("errors")
    codes = [error.get("code") for error in errors if isinstance(error, dict)] if isinstance(errors, list) else []
    return StatusUpdate(
        item=item,
        phone_number_id=_phone_number_id(value),
        wamid=_identifier(status.get("id"), "id"),
        status=_identifier(status.get("status"), "status"),
        at=_moment(status.get("timestamp")),
        callback_data=_identifier(status.get("biz_opaque_callback_data"), "biz_opaque_callback_data", required=False)
        or None,
        error_codes=tuple(code for code in codes if isinstance(code, int)),
        payload=status,
    )


def _profile(value: Json, wa_id: str | None, user_id: str | None) -> tuple[str | None, str | None, str | None]:
    """Name, number and user id that ``contacts`` gives for the sender."""
    contacts = value.get("contacts")
    candidates = [contact for contact in contacts if isinstance(contact, dict)] if isinstance(contacts, list) else []
    for contact in candidates:
        their_wa_id, their_user_id = contact.get("wa_id"), contact.get("user_id")
        if (wa_id and their_wa_id == wa_id) or (user_id and their_user_id == user_id):
            profile = contact.get("profile")
            name = profile.get("name") if isinstance(profile, dict) else None
            return (
                storable_text(name)[:MAX_ID] if isinstance(name, str) else None,
                their_wa_id if isinstance(their_wa_id, str) and 0 < len(their_wa_id) <= MAX_ID else None,
                their_user_id if isinstance(their_user_id, str) and 0 < len(their_user_id) <= MAX_ID else None,
            )
    return None, None, None


def _phone_number_id(value: Json) -> str:
    metadata = value.get("metadata")
    return _identifier(
        metadata.get("phone_number_id") if isinstance(metadata, dict) else None, "metadata.phone_number_id"
    )


def _display_number(value: Json) -> str:
    metadata = value.get("metadata")
    number = metadata.get("display_phone_number") if isinstance(metadata, dict) else None
    return "".join(character for character in str(number or "") if character.isdigit())


def _mapping(value: Any, what: str) -> Json:
    if not isinstance(value, dict):
        raise UnreadableItemError(f"{what} is not an object")
    return value


def _sequence(value: Json, name: str, *, required: bool) -> list[Any]:
    found = value.get(name)
    if found is None and not required:
        return []
    if not isinstance(found, list):
        raise UnreadableItemError(f"{name} is not a list")
    return found


def _identifier(value: Any, name: str, *, required: bool = True) -> str:
    """A short string (numbers are taken as their digits). Raises UnreadableItemError when it is missing though required."""
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if value is None and not required:
        return ""
    if not isinstance(value, str) or (required and not value) or len(value) > MAX_ID:
        raise UnreadableItemError(f"{name} is missing or is no short string")
    return storable_text(value)


def _moment(value: Any) -> datetime | None:
    """Meta's timestamps are seconds since the epoch as a string."""
    try:
        return datetime.fromtimestamp(int(value), UTC)
    except (TypeError, ValueError, OverflowError, OSError):
        return None
