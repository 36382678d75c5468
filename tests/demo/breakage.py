# SPDX-License-Identifier: GPL-3.0-or-later
"""Three real ways to lose a database, inflicted on the local stack."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import docker
import psycopg
from docker.models.containers import Container

from tests.demo.traffic import SOCKET, STACK, read_env

PAGE_SIZE = 8192
START_DEADLINE_S = 60.0


@dataclass(frozen=True)
class Breakage:
    """A heading, and the act itself, which says in a line what it did."""

    title: str
    inflict: Callable[[], str]


def postgres_container(client: docker.DockerClient) -> Container:
    """Find the stack's PostgreSQL container by compose's own labels."""
    labels = ["com.docker.compose.project=whats_agent", "com.docker.compose.service=postgres"]
    found = client.containers.list(all=True, filters={"label": labels})
    if len(found) != 1:
        raise RuntimeError(f"expected one postgres container of the stack, found {len(found)}")
    return found[0]


def stop_container() -> str:
    """Stop PostgreSQL as a careless hand would."""
    client = docker.from_env()
    postgres_container(client).stop()
    return "Broken: the postgres container was stopped."


def destroy_volume() -> str:
    """Remove the database's container and its volume: the data directory is gone."""
    client = docker.from_env()
    volume = read_env(STACK / ".env")["DB_VOLUME"]
    postgres_container(client).remove(force=True)
    client.volumes.get(volume).remove(force=True)
    return f"Broken: the postgres container and its volume {volume} were removed. The data directory no longer exists."


def corrupt_page() -> str:
    """Overwrite the first page of the messages table on disk and let PostgreSQL run on it."""
    client = docker.from_env()
    with psycopg.connect(host=str(SOCKET), dbname="whats_agent", user="postgres", autocommit=True) as connection:
        # A row pointer into the damaged page must be on disk, not only in memory, or the damage would be overwritten.
        connection.execute("checkpoint")
        row = connection.execute("select pg_relation_filepath('messages')").fetchone()
    if row is None:
        raise RuntimeError("the messages table has no file")
    container = postgres_container(client)
    container.stop()
    mount = client.volumes.get(read_env(STACK / ".env")["DB_VOLUME"]).attrs["Mountpoint"]
    path = Path(mount) / row[0]
    with path.open("r+b") as file:
        file.seek(PAGE_SIZE // 4)
        file.write(os.urandom(PAGE_SIZE // 2))
        os.fsync(file.fileno())
    container.start()
    wait_for_connection()
    return f"Broken: half of page 0 of the messages table ({row[0]}) was overwritten with noise; PostgreSQL runs on."


def wait_for_connection() -> None:
    """Wait until PostgreSQL takes connections again."""
    end = time.monotonic() + START_DEADLINE_S
    while True:
        try:
            psycopg.connect(host=str(SOCKET), dbname="whats_agent", user="postgres", connect_timeout=2).close()
        except psycopg.OperationalError:
            if time.monotonic() > end:
                raise
            time.sleep(0.2)
        else:
            return


BREAKAGES = (
    Breakage("1. The database container is stopped", stop_container),
    Breakage("2. The data volume is destroyed", destroy_volume),
    Breakage("3. A data page is corrupted", corrupt_page),
)
