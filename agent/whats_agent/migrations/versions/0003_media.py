# SPDX-License-Identifier: GPL-3.0-or-later
"""The files that users send, where they are fetched.

Revision ID: 0003
Revises: 0002
"""

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_UP = (
    """
    create table media (
        message_id bigint primary key references messages,
        media_id text not null,
        state text not null default 'wanted' check (state in ('wanted', 'stored', 'failed', 'dropped')),
        attempts integer not null default 0,
        next_attempt_at timestamptz not null default now(),
        mime_type text,
        sha256 text,
        bytes bigint,
        error text,
        stored_at timestamptz
    )
    """,
    "create index media_wanted on media (next_attempt_at) where state = 'wanted'",
    "create index media_stored on media (sha256) where state = 'stored'",
)


def upgrade() -> None:
    """Add the table."""
    for statement in _UP:
        op.execute(statement)


def downgrade() -> None:
    """Take it away again; the files stay where they are."""
    op.execute("drop table media")
