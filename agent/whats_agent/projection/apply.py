# SPDX-License-Identifier: GPL-3.0-or-later
"""One item of the log into the tables. Everything here may run again on the same item without changing anything more."""

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from psycopg.types.json import Jsonb

from whats_agent import clock, logs
from whats_agent.conversation.controls import Control, answers_off, apply_control, read_control
from whats_agent.conversation.rules import decide
from whats_agent.database.connection import Connection
from whats_agent.errors import UnreadableItemError
from whats_agent.media import queue as media_queue
from whats_agent.message_log import Kind, Record
from whats_agent.outbox import settle
from whats_agent.outbox.records import SendAttempt, SendResult, outbox_id, read_attempt, read_result
from whats_agent.projection.policy import Policy
from whats_agent.whatsapp.body import storable_text
from whats_agent.whatsapp.items import AccountEvent, InboundMessage, Item, MessageEcho, StatusUpdate, UnreadableItem
from whats_agent.whatsapp.message_types import REPLIES, Action, media_id_of
from whats_agent.whatsapp.parse import parse

LogItem = Item | SendAttempt | SendResult | Control
_READERS: dict[str, Callable[[bytes], LogItem]] = {
    Kind.SEND_ATTEMPT: read_attempt,
    Kind.SEND_RESULT: read_result,
    Kind.CONTROL: read_control,
}

_KINDS: dict[type, str] = {
    InboundMessage: "message",
    MessageEcho: "echo",
    StatusUpdate: "status",
    AccountEvent: "account_event",
    UnreadableItem: "unreadable",
    SendAttempt: "send",
    SendResult: "send",
    Control: "control",
}

_log = logging.getLogger("whats_agent.projection")


def items_of(record: Record) -> Iterator[LogItem]:
    """What a record of the log holds. Never raises: what cannot be read comes as an UnreadableItem."""
    if not record.intact:
        yield UnreadableItem("record", "the record does not match its checksum", _as_text(record.body))
    elif record.kind == Kind.WEBHOOK:
        yield from parse(record.body)
    elif record.kind in _READERS:
        try:
            yield _READERS[record.kind](record.body)
        except UnreadableItemError as error:
            yield UnreadableItem("record", str(error), _as_text(record.body))
    else:
        yield UnreadableItem("record", f"unknown kind {record.kind}", _as_text(record.body))


def kind_of(item: LogItem) -> str:
    """What an item counts as in ``items_total``."""
    return _KINDS[type(item)]


def apply(connection: Connection, record: Record, item: LogItem, log_identity: str, policy: Policy) -> None:
    """Write one item. Raises psycopg.Error."""
    at = clock.from_microseconds(record.at)
    if isinstance(item, InboundMessage):
        _inbound(connection, record, item, at, policy)
    elif isinstance(item, StatusUpdate):
        _status(connection, record, item, at)
    elif isinstance(item, SendAttempt):
        settle.apply_attempt(connection, item, policy.echo_wait)
    elif isinstance(item, SendResult):
        settle.apply_result(connection, item, at, policy.echo_wait)
    elif isinstance(item, MessageEcho):
        _echo(connection, record, item, at)
    elif isinstance(item, Control):
        apply_control(connection, item, at, record.id)
    elif isinstance(item, AccountEvent):
        _account_event(connection, record, item, at, log_identity)
    else:
        unreadable(connection, record, item, log_identity)


def _inbound(connection: Connection, record: Record, message: InboundMessage, at: datetime, policy: Policy) -> None:
    conversation = _conversation(connection, message, message.profile_name, message.sent_at or at)
    # A clock ahead of ours must not widen the window in which Meta lets us answer.
    sent_at = min(message.sent_at or at, at)
    action = decide(message, conversation.handed_over_at, at, policy.rules, muted=answers_off(connection))
    message_id = _store_message(
        connection, record, message, conversation.id, kind=(action, "inbound"), moments=(sent_at, at)
    )
    if message_id is None:
        return  # delivered before
    if policy.media_fetch and message.phone_number_id == policy.rules.phone_number_id:
        media_id = media_id_of(message.type, message.payload)
        if media_id:
            media_queue.want(connection, message_id, media_id)
    if action in (Action.HANDOVER, Action.HANDBACK):
        since = at if action is Action.HANDOVER else None
        connection.execute("update conversations set handed_over_at = %s where id = %s", (since, conversation.id))
    elif action is Action.ALERT:
        _log.warning(logs.fields(event="unknown_message_type", type=message.type, record=record.id, item=message.item))
    elif message.type == "system":
        _follow_changed_number(connection, message, conversation.id)
    if action in REPLIES:
        connection.execute(
            """
            insert into outbox (id, conversation_id, message_id, phone_number_id, inbound_wamid, kind, expires_at, received_at)
            values (%s, %s, %s, %s, %s, %s, %s, %s) on conflict do nothing
            """,
            (
                outbox_id(message.phone_number_id, message.wamid),
                conversation.id,
                message_id,
                message.phone_number_id,
                message.wamid,
                action.value,
                sent_at + timedelta(seconds=policy.answer_window),
                at,
            ),
        )


def _store_message(
    connection: Connection,
    record: Record,
    message: InboundMessage | MessageEcho,
    conversation_id: int,
    *,
    kind: tuple[Action, str],
    moments: tuple[datetime, datetime],
) -> int | None:
    """Insert a message with its action and direction, sent and received; its row's id, or None when it is there already."""
    row = connection.execute(
        """
        insert into messages (phone_number_id, wamid, conversation_id, type, body, payload, log_id, action, direction, sent_at,
            received_at)
        values (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)
        on conflict (phone_number_id, wamid) do nothing returning id
        """,
        (
            message.phone_number_id,
            message.wamid,
            conversation_id,
            message.type,
            message.text,
            Jsonb(message.payload),
            record.id,
            *kind,
            *moments,
        ),
    ).fetchone()
    return int(row[0]) if row is not None else None


def _follow_changed_number(connection: Connection, message: InboundMessage, conversation_id: int) -> None:
    """A user took another number: the conversation goes with them, unless there is one with that number already."""
    system = message.payload.get("system")
    new = system.get("wa_id") if isinstance(system, dict) else None
    if (
        isinstance(system, dict)
        and "changed_number" in str(system.get("type"))
        and isinstance(new, str)
        and new.isdigit()
    ):
        connection.execute(
            """
            update conversations c set wa_id = %(new)s where id = %(id)s and not exists (
                select 1 from conversations o where o.phone_number_id = c.phone_number_id and o.wa_id = %(new)s)
            """,
            {"new": new, "id": conversation_id},
        )


@dataclass(frozen=True, slots=True)
class _Conversation:
    id: int
    handed_over_at: datetime | None


def _conversation(
    connection: Connection, item: InboundMessage | MessageEcho, name: str | None, seen: datetime | None
) -> _Conversation:
    """The conversation with this user, made when there is none. A user may be known by number, by user id, or by both."""
    values = {"phone": item.phone_number_id, "wa_id": item.wa_id, "user_id": item.user_id, "name": name, "seen": seen}
    row = connection.execute(
        """
        select id, handed_over_at from conversations
        where phone_number_id = %(phone)s and (wa_id = %(wa_id)s or user_id = %(user_id)s)
        order by (wa_id is not distinct from %(wa_id)s) desc, id limit 1
        """,
        values,
    ).fetchone()
    if row is None:
        row = connection.execute(
            """
            insert into conversations (phone_number_id, wa_id, user_id, profile_name, last_inbound_at)
            values (%(phone)s, %(wa_id)s, %(user_id)s, %(name)s, %(seen)s) returning id, handed_over_at
            """,
            values,
        ).fetchone()
        assert row is not None  # noqa: S101 - insert … returning always has its row
    else:
        connection.execute(
            """
            update conversations c set
                profile_name = coalesce(%(name)s, profile_name),
                last_inbound_at = greatest(last_inbound_at, %(seen)s),
                wa_id = case when c.wa_id is null and not exists (
                    select 1 from conversations o where o.phone_number_id = c.phone_number_id and o.wa_id = %(wa_id)s)
                    then %(wa_id)s else c.wa_id end,
                user_id = case when c.user_id is null and not exists (
                    select 1 from conversations o where o.phone_number_id = c.phone_number_id and o.user_id = %(user_id)s)
                    then %(user_id)s else c.user_id end
            where id = %(id)s
            """,
            {**values, "id": row[0]},
        )
    return _Conversation(int(row[0]), row[1])


def _echo(connection: Connection, record: Record, echo: MessageEcho, at: datetime) -> None:
    """The business answered from its phone app: a person has the conversation now."""
    conversation = _conversation(connection, echo, None, None)
    stored = _store_message(
        connection, record, echo, conversation.id, kind=(Action.STORE, "echo"), moments=(echo.sent_at or at, at)
    )
    if stored is not None:
        connection.execute("update conversations set handed_over_at = %s where id = %s", (at, conversation.id))


def _status(connection: Connection, record: Record, status: StatusUpdate, at: datetime) -> None:
    own_id = _uuid(status.callback_data)
    moment = status.at or at
    new = connection.execute(
        """
        insert into statuses (phone_number_id, wamid, status, at, outbox_id, payload, log_id)
        values (%s, %s, %s, %s, %s, %s, %s) on conflict (phone_number_id, wamid, status) do nothing
        """,
        (status.phone_number_id, status.wamid, status.status, moment, own_id, Jsonb(status.payload), record.id),
    ).rowcount
    if new:
        settle.apply_status(connection, status, own_id, moment)


def _account_event(
    connection: Connection, record: Record, event: AccountEvent, at: datetime, log_identity: str
) -> None:
    connection.execute(
        """
        insert into account_events (field, value, entry_id, received_at, log_identity, log_id, item)
        values (%s, %s, %s, %s, %s, %s, %s) on conflict do nothing
        """,
        (event.field, Jsonb(event.value), event.entry_id, at, log_identity, record.id, event.item),
    )


def unreadable(connection: Connection, record: Record, item: UnreadableItem, log_identity: str) -> None:
    """Keep what could not be understood, with the reason."""
    connection.execute(
        """
        insert into unreadable_items (reason, raw, received_at, log_identity, log_id, item)
        values (%s, %s, %s, %s, %s, %s) on conflict do nothing
        """,
        (storable_text(item.reason), item.raw, clock.from_microseconds(record.at), log_identity, record.id, item.item),
    )


def _as_text(raw: bytes) -> str:
    return storable_text(raw.decode("utf-8", "replace"))[:100_000]


def _uuid(text: str | None) -> UUID | None:
    try:
        return UUID(text) if text else None
    except ValueError:
        return None
