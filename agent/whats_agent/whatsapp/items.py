# SPDX-License-Identifier: GPL-3.0-or-later
"""What a webhook body is taken apart into. Plain data: nothing here talks to anything."""

import dataclasses
from dataclasses import dataclass
from datetime import datetime
from typing import Any

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class InboundMessage:
    """A message of a user to one of the business's numbers.

    ``wa_id`` is the user's number without ``+``, ``user_id`` Meta's id of a user who may show no number; one of them is set.
    ``from_business`` marks what the business's own number sent: an echo, whatever field it came in.
    ``text`` is what the model is shown, ``sent_at`` Meta's timestamp or None when it is unusable.
    """

    item: str
    phone_number_id: str
    wamid: str
    type: str
    text: str
    sent_at: datetime | None
    wa_id: str | None
    user_id: str | None
    profile_name: str | None
    group_id: str | None
    from_business: bool
    payload: Json = dataclasses.field(repr=False)


@dataclass(frozen=True, slots=True)
class MessageEcho:
    """A message that the business itself sent from its phone app; kept as part of the conversation, never answered."""

    item: str
    phone_number_id: str
    wamid: str
    type: str
    text: str
    sent_at: datetime | None
    wa_id: str | None
    user_id: str | None
    payload: Json = dataclasses.field(repr=False)


@dataclass(frozen=True, slots=True)
class StatusUpdate:
    """What became of a message of ours. ``callback_data`` is what the send carried: the outbox id when it was ours."""

    item: str
    phone_number_id: str
    wamid: str
    status: str
    at: datetime | None
    callback_data: str | None
    error_codes: tuple[int, ...]
    payload: Json = dataclasses.field(repr=False)


@dataclass(frozen=True, slots=True)
class AccountEvent:
    """Any other change: account-level fields, calls, groups, value errors, probes."""

    item: str
    entry_id: str
    field: str
    value: Json = dataclasses.field(repr=False)


@dataclass(frozen=True, slots=True)
class UnreadableItem:
    """Something that is not what its place says it should be; kept as text with the reason."""

    item: str
    reason: str
    raw: str = dataclasses.field(repr=False)


Item = InboundMessage | MessageEcho | StatusUpdate | AccountEvent | UnreadableItem
