# SPDX-License-Identifier: GPL-3.0-or-later
"""Plain psycopg 3 connections: the worker's SQL is few statements, hand-written and locking, and an ORM would only hide it."""

from typing import Any

import psycopg
from psycopg.rows import TupleRow

from whats_agent.settings import DatabaseSettings

Connection = psycopg.Connection[TupleRow]
# A statement that runs longer is stuck; the worker starts over with a fresh session.
STATEMENT_TIMEOUT = "60s"


def connect(settings: DatabaseSettings, purpose: str, *, statement_timeout: str = STATEMENT_TIMEOUT) -> Connection:
    """A new session named after its purpose (seen in pg_stat_activity), autocommit. Raises psycopg.OperationalError."""
    arguments: dict[str, Any] = settings.conninfo()
    return psycopg.connect(
        **arguments,
        autocommit=True,
        application_name=f"whats_agent {purpose}",
        options=f"-c statement_timeout={statement_timeout} -c idle_in_transaction_session_timeout=60s -c timezone=UTC",
    )
