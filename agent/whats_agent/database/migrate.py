# SPDX-License-Identifier: GPL-3.0-or-later
"""Bring the database's schema to this release with Alembic."""

from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import URL

from whats_agent.settings import DatabaseSettings

MIGRATIONS = Path(__file__).resolve().parent.parent / "migrations"


def configuration(settings: DatabaseSettings) -> Config:
    """Alembic's configuration without a file; the URL stays in memory so that the password is never written or printed."""
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    config.attributes["url"] = URL.create(
        "postgresql+psycopg",
        username=settings.db_user,
        password=settings.db_password.get_secret_value(),
        host=settings.db_host,
        port=settings.db_port,
        database=settings.db_name,
        query={"connect_timeout": str(settings.db_connect_timeout)},
    )
    return config


def upgrade(settings: DatabaseSettings) -> None:
    """Run what is missing, up to the newest revision; nothing happens when the schema is current."""
    command.upgrade(configuration(settings), "head")
