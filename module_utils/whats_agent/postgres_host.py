# SPDX-License-Identifier: GPL-3.0-or-later
"""Where the stack's database lies on a server, and how to reach it without a password."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .compose import PROJECT
from .errors import WhatsAgentError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from .compose import ServiceConfig

SERVICE = "postgres"
DATA_DIR = "/var/lib/postgresql/data"
REPOSITORY_DIR = "/var/lib/pgbackrest"  # in the container
PORT = 5432
UID, GID = 64011, 64000
MAJOR_VERSION = "17"
VOLUME_LABEL = "whats_agent.role"
VOLUME_ROLE = "pgdata"
ENV_NAMES = ("DB_VOLUME", "DB_HOST", "DB_NAME", "DB_USER", "DB_PASSWORD", "RELEASE")


@dataclass(frozen=True)
class DatabasePlace:
    """The paths and names of one stack's database."""

    stack_dir: Path = Path("/opt/whats_agent")
    state_dir: Path = Path("/var/lib/whats_agent")
    project: str = PROJECT
    service: str = SERVICE

    @property
    def env_path(self) -> Path:
        """Return the stack's `.env`."""
        return self.stack_dir / ".env"

    @property
    def socket_dir(self) -> Path:
        """Return the host's side of PostgreSQL's socket directory."""
        return self.stack_dir / "run" / "postgres"

    @property
    def restore_path(self) -> Path:
        """Return the state file of a restore."""
        return self.state_dir / "restore.json"

    @property
    def restores_dir(self) -> Path:
        """Return where the records of finished restores lie."""
        return self.state_dir / "restores"


def connect(
    place: DatabasePlace, dbname: str, *, timeout_s: int = 3, statement_timeout_s: float = 0, options: str = ""
) -> Any:
    """Connect as the superuser over the socket (peer authentication, autocommit). `options` are further `-c name=value`.

    Raises psycopg.OperationalError when the server does not take the connection.
    """
    import psycopg

    return psycopg.connect(
        host=str(place.socket_dir),
        user="postgres",
        dbname=dbname,
        connect_timeout=timeout_s,
        autocommit=True,
        application_name="whats_agent_runbook",
        # What a runbook changes needs no WAL receiver: while one is away, waiting for it would never end.
        options=f"-c statement_timeout={int(statement_timeout_s * 1000)} -c synchronous_commit=local {options}".strip(),
    )


@contextlib.contextmanager
def database(place: DatabasePlace, dbname: str, *, statement_timeout_s: float = 0, options: str = "") -> Iterator[Any]:
    """Yield a superuser's connection; whatever PostgreSQL refuses is one WhatsAgentError."""
    import psycopg

    try:
        with connect(place, dbname, statement_timeout_s=statement_timeout_s, options=options) as connection:
            yield connection
    except psycopg.Error as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise WhatsAgentError(
            f"PostgreSQL refused in database {dbname}: {lines[0]}",
            database=dbname,
            sqlstate=getattr(error, "sqlstate", None),
        ) from error


def one_shot_options() -> dict[str, Any]:
    """Return the Docker options under which a one-shot container of the image runs: nothing it does not need."""
    return {
        "read_only": True,
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges"],
        "tmpfs": {
            "/tmp": "mode=1777",  # noqa: S108 - in the container
            "/var/spool/pgbackrest": f"uid={UID},gid={GID},mode=0750",
        },
    }


def repository_mounts(service: ServiceConfig) -> dict[str, dict[str, str]]:
    """Return the mounts, in the Docker SDK's shape, that pgBackRest needs in a one-shot container."""
    mounts: dict[str, dict[str, str]] = {}
    for target, (source, read_only) in service.binds.items():
        if target.startswith(("/etc/pgbackrest", "/var/lib/pgbackrest")):
            mounts[source] = {"bind": target, "mode": "ro" if read_only else "rw"}
    if not mounts:
        raise WhatsAgentError(
            "the compose file mounts no backup repository into service postgres: run playbooks/deploy.yml"
        )
    return mounts


def free_bytes(path: Path) -> int:
    """Return the bytes an ordinary process may still write where a path lies."""
    status = os.statvfs(path)
    return status.f_bavail * status.f_frsize


def application_login(env: Mapping[str, str], address: str, *, timeout_s: int = 3) -> str | None:
    """Log in as the agent does, with the credentials of `.env`, over TCP; return why that failed, or None."""
    import psycopg

    try:
        with psycopg.connect(
            host=address,
            port=PORT,
            user=env.get("DB_USER", ""),
            password=env.get("DB_PASSWORD", ""),
            dbname=env.get("DB_NAME", ""),
            connect_timeout=timeout_s,
            autocommit=True,
            application_name="whats_agent_runbook",
        ) as connection:
            connection.execute("select 1")
    except psycopg.Error as error:
        text = str(error).strip().splitlines()
        return text[0] if text else type(error).__name__
    return None
