# SPDX-License-Identifier: GPL-3.0-or-later
"""Alembic's entry point: one transaction for all, one runner at a time."""

from alembic import context
from sqlalchemy import create_engine, text

ADVISORY_LOCK = 7_264_101

engine = create_engine(context.config.attributes["url"])
with engine.connect() as connection:
    # Two `migrate` containers started together take turns; the lock goes with the transaction.
    connection.execute(text("select pg_advisory_xact_lock(:key)"), {"key": ADVISORY_LOCK})
    context.configure(connection=connection, transaction_per_migration=False)
    with context.begin_transaction():
        context.run_migrations()
    connection.commit()
engine.dispose()
