# SPDX-License-Identifier: GPL-3.0-or-later
"""What the model is shown: the system prompt, the last turns, the message to be answered."""

from whats_agent.database.connection import Connection
from whats_agent.openai_client.client import Turn
from whats_agent.settings import WorkerSettings


def system_prompt(settings: WorkerSettings) -> str:
    """The configured prompt with the business's scope."""
    scope = settings.business_scope
    return f"{settings.system_prompt}\n\nEscopo do negócio: {scope}" if scope else settings.system_prompt


def turns_for(connection: Connection, conversation_id: int, message_id: int, limit: int, system: str) -> list[Turn]:
    """The system prompt, then at most ``limit`` earlier messages, oldest first, then the message itself."""
    rows = connection.execute(
        """
        select m.direction, m.body, o.reply_text, o.state
        from messages m left join outbox o on o.message_id = m.id
        where m.conversation_id = %s and m.id <= %s and m.body <> '' and m.type not in ('reaction', 'system', 'edit')
        order by m.id desc limit %s
        """,
        (conversation_id, message_id, limit + 1),
    ).fetchall()
    turns: list[Turn] = [{"role": "system", "content": system}]
    earlier: list[Turn] = []
    for direction, body, reply, state in reversed(rows[1:]):
        earlier.append({"role": "assistant" if direction == "echo" else "user", "content": body})
        if reply and state == "sent":
            earlier.append({"role": "assistant", "content": reply})
    turns += earlier[-limit:] if limit else []
    if rows:
        turns.append({"role": "user", "content": rows[0][1]})
    return turns
