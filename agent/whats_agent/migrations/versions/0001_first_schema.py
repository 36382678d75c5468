# SPDX-License-Identifier: GPL-3.0-or-later
"""Conversations, messages, outbox, statuses, account events, unreadable items and the projection's position.

Revision ID: 0001
Revises:
"""

from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_UP = (
    """
    create table projection (
        only_row boolean primary key default true check (only_row),
        position bigint not null default 0,
        log_identity text not null default '',
        updated_at timestamptz not null default now()
    )
    """,
    "insert into projection default values",
    """
    create table conversations (
        id bigint generated always as identity primary key,
        phone_number_id text not null,
        wa_id text,
        user_id text,
        profile_name text,
        created_at timestamptz not null default now(),
        last_inbound_at timestamptz,
        handed_over_at timestamptz,
        check (wa_id is not null or user_id is not null)
    )
    """,
    "create unique index conversations_wa_id on conversations (phone_number_id, wa_id)",
    "create unique index conversations_user_id on conversations (phone_number_id, user_id)",
    """
    create table messages (
        id bigint generated always as identity primary key,
        phone_number_id text not null,
        wamid text not null,
        conversation_id bigint not null references conversations,
        direction text not null check (direction in ('inbound', 'outbound', 'echo')),
        type text not null,
        action text not null,
        body text not null,
        payload jsonb not null,
        sent_at timestamptz not null,
        received_at timestamptz not null,
        stored_at timestamptz not null default now(),
        log_id bigint not null,
        unique (phone_number_id, wamid)
    )
    """,
    "create index messages_conversation on messages (conversation_id, id)",
    "create index messages_received_at on messages (received_at)",
    """
    create table outbox (
        id uuid primary key,
        seq bigint generated always as identity unique,
        conversation_id bigint not null references conversations,
        message_id bigint not null references messages,
        phone_number_id text not null,
        inbound_wamid text not null,
        kind text not null check (kind in ('answer', 'polite')),
        state text not null default 'queued'
            check (state in ('queued', 'leased', 'sending', 'unknown', 'sent', 'failed', 'expired', 'cancelled')),
        reply_text text,
        reply_source text,
        attempts integer not null default 0,
        next_attempt_at timestamptz not null default now(),
        expires_at timestamptz not null,
        lease_owner text,
        lease_until timestamptz,
        wamid text,
        delivery text,
        error_code integer,
        error text,
        prompt_tokens integer,
        completion_tokens integer,
        received_at timestamptz not null,
        created_at timestamptz not null default now(),
        updated_at timestamptz not null default now(),
        sent_at timestamptz,
        unique (phone_number_id, inbound_wamid)
    )
    """,
    "create index outbox_open on outbox (conversation_id, seq) where state in ('queued', 'leased', 'sending', 'unknown')",
    "create index outbox_due on outbox (seq) where state = 'queued'",
    "create index outbox_held on outbox (lease_until) where state in ('leased', 'sending', 'unknown')",
    "create index outbox_wamid on outbox (wamid) where wamid is not null",
    "create index outbox_sent_at on outbox (sent_at)",
    """
    create table statuses (
        id bigint generated always as identity primary key,
        phone_number_id text not null,
        wamid text not null,
        status text not null,
        at timestamptz not null,
        outbox_id uuid,
        payload jsonb not null,
        stored_at timestamptz not null default now(),
        log_id bigint not null,
        unique (phone_number_id, wamid, status)
    )
    """,
    """
    create table account_events (
        id bigint generated always as identity primary key,
        field text not null,
        value jsonb not null,
        entry_id text not null,
        received_at timestamptz not null,
        stored_at timestamptz not null default now(),
        log_identity text not null,
        log_id bigint not null,
        item text not null,
        unique (log_identity, log_id, item)
    )
    """,
    "create index account_events_field on account_events (field, id)",
    """
    create table unreadable_items (
        id bigint generated always as identity primary key,
        reason text not null,
        raw text not null,
        received_at timestamptz not null,
        stored_at timestamptz not null default now(),
        log_identity text not null,
        log_id bigint not null,
        item text not null,
        unique (log_identity, log_id, item)
    )
    """,
)


def upgrade() -> None:
    """Make the tables."""
    for statement in _UP:
        op.execute(statement)


def downgrade() -> None:
    """Drop them; only ever used on an empty database by the migration's own test."""
    op.execute("drop table unreadable_items, account_events, statuses, outbox, messages, conversations, projection")
