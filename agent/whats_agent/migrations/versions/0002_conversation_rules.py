# SPDX-License-Identifier: GPL-3.0-or-later
"""Operators' controls, hand-over sentences, sending rates.

Revision ID: 0002
Revises: 0001
"""

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_UP = (
    """
    create table controls (
        name text primary key,
        value text not null,
        since timestamptz not null,
        log_id bigint not null
    )
    """,
    # Theoretical arrival time of the next send (GCRA): one column is the whole token bucket.
    "alter table conversations add column next_send_at timestamptz",
    """
    create table send_rates (
        phone_number_id text primary key,
        next_send_at timestamptz not null
    )
    """,
    "alter table outbox drop constraint outbox_kind_check",
    "alter table outbox add constraint outbox_kind_check check (kind in ('answer', 'polite', 'handover', 'handback'))",
    "alter table outbox add column model text",
    "create index outbox_failed on outbox (updated_at) where state in ('failed', 'expired')",
    "create index conversations_handed_over on conversations (handed_over_at) where handed_over_at is not null",
)


def upgrade() -> None:
    """Add what the rules need."""
    for statement in _UP:
        op.execute(statement)


def downgrade() -> None:
    """Take it away again."""
    op.execute("drop index conversations_handed_over, outbox_failed")
    op.execute("alter table outbox drop column model")
    op.execute("delete from outbox where kind in ('handover', 'handback')")
    op.execute("alter table outbox drop constraint outbox_kind_check")
    op.execute("alter table outbox add constraint outbox_kind_check check (kind in ('answer', 'polite'))")
    op.execute("drop table send_rates, controls")
    op.execute("alter table conversations drop column next_send_at")
