# SPDX-License-Identifier: GPL-3.0-or-later
"""Operators' decisions. They go through the message log like everything else, so that a restore does not undo them."""

import json
from dataclasses import asdict, dataclass
from datetime import datetime

from whats_agent.database.connection import Connection
from whats_agent.errors import UnreadableItemError

ANSWERS = "answers"
HANDBACK = "handback"
_VALUES = {ANSWERS: ("on", "off")}


@dataclass(frozen=True, slots=True)
class Control:
    """``answers`` on or off (the kill switch), or ``handback`` of the conversation with the number in ``value``."""

    name: str
    value: str

    def to_bytes(self) -> bytes:
        """As the message log keeps it."""
        return json.dumps(asdict(self)).encode()


def read_control(raw: bytes) -> Control:
    """Raises UnreadableItemError."""
    try:
        data = json.loads(raw)
        control = Control(str(data["name"]), str(data["value"]))
    except (ValueError, KeyError, TypeError) as error:
        raise UnreadableItemError(f"not a control: {error}") from None
    if control.name not in (ANSWERS, HANDBACK) or control.value not in _VALUES.get(control.name, (control.value,)):
        raise UnreadableItemError(f"unknown control {control.name}")
    return control


def apply_control(connection: Connection, control: Control, at: datetime, log_id: int) -> None:
    """Make it so. Switching answers off also takes back what waits and has not begun to be sent."""
    if control.name == HANDBACK:
        connection.execute(
            "update conversations set handed_over_at = null where (wa_id = %s or user_id = %s) and handed_over_at <= %s",
            (control.value, control.value, at),
        )
        return
    newer = connection.execute(
        """
        insert into controls (name, value, since, log_id) values (%s, %s, %s, %s)
        on conflict (name) do update set value = excluded.value, since = excluded.since, log_id = excluded.log_id
        where controls.since < excluded.since
        """,
        (control.name, control.value, at, log_id),
    ).rowcount
    if newer and control.value == "off":
        connection.execute(
            """
            update outbox set state = 'cancelled', error = 'answers were switched off', lease_owner = null, lease_until = null,
                updated_at = now()
            where state in ('queued', 'leased')
            """
        )


def answers_off(connection: Connection) -> bool:
    """Whether the kill switch is on."""
    row = connection.execute("select value from controls where name = %s", (ANSWERS,)).fetchone()
    return row is not None and row[0] == "off"
