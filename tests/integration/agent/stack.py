# SPDX-License-Identifier: GPL-3.0-or-later
"""The agent with all it needs, in containers: PostgreSQL, Redis, app, worker, both doubles."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import psycopg
from psycopg.rows import dict_row

from tests.integration.agent.containers import Service, Session, Spec
from tests.integration.agent.images import Images
from tests.integration.agent.waiting import eventually

CONFIG = Path(__file__).parent / "config"
MESSAGE_LOG = "/var/lib/whats_agent/message_log"
LOGS = "/var/log/whats_agent"
APP_PORT = 8000
PHONE_NUMBER_ID = "106540352242922"
START_LIMIT_S = 60.0


def _secret() -> str:
    return "T" + secrets.token_urlsafe(24)


class Stack:
    """The whole agent under one session; the secrets are random and its own."""

    def __init__(self, session: Session, images: Images) -> None:
        self.session = session
        self.images = images
        self.app_secret = _secret()
        self.verify_token = _secret()
        self.access_token = _secret()
        self.openai_key = _secret()
        self._db_password = _secret()
        self._redis_password = _secret()
        self.pgdata = session.volume("pgdata")
        self.message_log = session.volume("message-log")
        self._http: dict[str, httpx.Client] = {}

        self.postgres = session.service(self.postgres_spec(self.pgdata))
        self.redis = session.service(self._redis_spec())
        self.graph = session.service(self._graph_spec())
        self.openai = session.service(self._openai_spec())
        self.app = self.agent_service("app", "serve")
        self.worker = self.agent_service("worker", "worker")

    def secrets(self) -> dict[str, str]:
        """Name → value of all that must never be seen in a log."""
        return {
            "META_APP_SECRET": self.app_secret,
            "META_VERIFY_TOKEN": self.verify_token,
            "META_ACCESS_TOKEN": self.access_token,
            "OPENAI_API_KEY": self.openai_key,
            "DB_PASSWORD": self._db_password,
            "REDIS_PASSWORD": self._redis_password,
        }

    # What each container is made of.

    def postgres_spec(self, volume: str, name: str = "postgres", arguments: Sequence[str] = ()) -> Spec:
        """A PostgreSQL on this data volume; ``arguments`` are the server's own."""
        return Spec(
            name=name,
            image=self.images.postgres,
            command=["serve", *arguments],
            environment={"WHATS_POSTGRES_ARCHIVE": "off"},
            volumes={volume: "/var/lib/postgresql/data"},
            read_only_paths={str(CONFIG / "postgres"): "/etc/whats_agent/postgres"},
            read_only=False,
            shm_size="128m",
        )

    def _redis_spec(self) -> Spec:
        return Spec(
            name="redis",
            image=self.images.redis,
            environment={"REDIS_PASSWORD": self._redis_password},
            read_only_paths={str(CONFIG / "redis"): "/etc/whats_agent/redis"},
            tmpfs={"/var/lib/redis": "uid=64012,gid=64000,mode=0750"},
        )

    def _graph_spec(self) -> Spec:
        return Spec(
            name="graph_double",
            image=self.images.doubles,
            command=["graph"],
            environment={
                "META_APP_SECRET": self.app_secret,
                "META_ACCESS_TOKEN": self.access_token,
                "PHONE_NUMBER_ID": PHONE_NUMBER_ID,
                "WEBHOOK_URL": f"http://app:{APP_PORT}/webhook",
            },
            volumes={self.session.volume("graph-double"): "/var/lib/doubles"},
        )

    def _openai_spec(self) -> Spec:
        return Spec(
            name="openai_double",
            image=self.images.doubles,
            command=["openai"],
            environment={"OPENAI_API_KEY": self.openai_key},
            tmpfs={"/var/lib/doubles": "uid=64010,gid=64000,mode=0750"},
        )

    def _agent_environment(self, overrides: Mapping[str, str]) -> dict[str, str]:
        return {
            "DB_HOST": "postgres",
            "DB_NAME": "whats_agent",
            "DB_USER": "whats_agent",
            "DB_PASSWORD": self._db_password,
            "REDIS_URL": "redis://redis:6379/0",
            "REDIS_PASSWORD": self._redis_password,
            "META_VERIFY_TOKEN": self.verify_token,
            "META_APP_SECRET": self.app_secret,
            "META_ACCESS_TOKEN": self.access_token,
            "PHONE_NUMBER_ID": PHONE_NUMBER_ID,
            "GRAPH_BASE_URL": "http://graph_double:9001",
            "GRAPH_VERSION": "v25.0",
            "GRAPH_TIMEOUT": "2",
            "OPENAI_API_KEY": self.openai_key,
            "OPENAI_BASE_URL": "http://openai_double:9002/v1",
            "OPENAI_MODEL": "gpt-4o-mini",
            "OPENAI_TIMEOUT": "2",
            "OPENAI_MAX_RETRIES": "1",
            "BREAKER_OPEN_SECONDS": "2",
            "SEND_STOP_SECONDS": "2",
            "SEND_ECHO_WAIT_SECONDS": "12",
            "SENDER_LEASE_SECONDS": "20",
            # Small, so that a replay takes many transactions and what happens between two of them is tested too.
            "PROJECTION_BATCH": "10",
            "LOG_LEVEL": "INFO",
            **overrides,
        }

    def _agent_spec(
        self,
        name: str,
        command: str,
        overrides: Mapping[str, str] | None = None,
        message_log: str = "",
        binds: Mapping[str, str] | None = None,
    ) -> Spec:
        return Spec(
            name=name,
            image=self.images.app,
            command=[command],
            environment=self._agent_environment(overrides or {}),
            volumes={message_log or self.message_log: MESSAGE_LOG},
            binds=dict(binds or {}),
            tmpfs={LOGS: "uid=64010,gid=64000,mode=0770"},
        )

    def agent_service(
        self,
        name: str,
        command: str,
        overrides: Mapping[str, str] | None = None,
        message_log: str = "",
        binds: Mapping[str, str] | None = None,
    ) -> Service:
        """An app or worker; by default on the session's message log."""
        return self.session.service(self._agent_spec(name, command, overrides, message_log, binds))

    def replace_agent(self, overrides: Mapping[str, str], binds: Mapping[str, str]) -> None:
        """Run app and worker with other settings from now on, on the same data."""
        for name, command in (("app", "serve"), ("worker", "worker")):
            self.session.discard(self.session.services[name])
            setattr(self, name, self.agent_service(name, command, overrides, binds=binds))
            self.session.services[name].start()
        self.wait_until_ready()

    # Starting, and knowing that it has.

    def start(self) -> None:
        self.initialise_database(self.pgdata)
        for service in (self.postgres, self.redis, self.graph, self.openai):
            service.start()
        self.wait_for_database()
        self.migrate()
        self.app.start()
        self.worker.start()
        self.wait_until_ready()

    def initialise_database(self, volume: str) -> None:
        self.session.run_once(
            Spec(
                name="initialise",
                image=self.images.postgres,
                command=["initialise"],
                environment={"DB_NAME": "whats_agent", "DB_USER": "whats_agent", "DB_PASSWORD": self._db_password},
                volumes={volume: "/var/lib/postgresql/data"},
                read_only=False,
            )
        )

    def migrate(self, overrides: Mapping[str, str] | None = None) -> None:
        spec = self._agent_spec("migrate", "migrate", overrides)
        self.session.run_once(spec)

    def replace_database_volume(self, volume: str) -> None:
        """Serve another data volume from now on; the old one stays as it is."""
        self.session.discard(self.postgres)
        self.pgdata = volume
        self.postgres = self.session.service(self.postgres_spec(volume))
        self.postgres.start()
        self.wait_for_database()

    def copy_volume(self, source: str, target: str) -> None:
        """Copy a data volume nobody has open."""
        self.session.run_once(
            Spec(
                name="copy",
                image=self.images.postgres,
                command=["cp", "-a", "/from/.", "/var/lib/postgresql/data/"],
                volumes={source: "/from", target: "/var/lib/postgresql/data"},
                read_only=False,
            )
        )

    def database_answers(self) -> bool:
        try:
            return self.sql("select 1 as one") == [{"one": 1}]
        except psycopg.OperationalError:
            return False

    def wait_for_database(self) -> None:
        eventually(self.database_answers, "PostgreSQL to answer", START_LIMIT_S)

    def wait_until_ready(self) -> None:
        """Every part runs and the app says so itself."""
        self.wait_for_database()
        for name, path in (
            ("app", "/health"),
            ("graph_double", "/_double/health"),
            ("openai_double", "/_double/health"),
        ):
            eventually(lambda n=name, p=path: self._answers(n, p), f"{name} to be healthy", START_LIMIT_S)  # type: ignore[misc]
        assert self.worker.is_running(), f"the worker does not run:\n{self.worker.logs()}"

    def _answers(self, name: str, path: str) -> bool:
        try:
            return self.http(name).get(path).status_code == 200
        except httpx.HTTPError:
            return False

    def heal(self) -> None:
        """Whatever a test broke: all containers run, no fault is ordered. Costs nothing when it broke nothing."""
        services = list(self.session.services.values())
        if not any(service.disturbed for service in services):
            return
        for service in services:
            if service.state() == "paused":
                service.unpause()
            if not service.is_running():
                service.start()
        self.wait_until_ready()
        self.fail("graph_double", "off")
        self.fail("openai_double", "off")
        self.graph_statuses(enabled=True)
        for service in services:
            service.disturbed = False

    # Talking to it.

    def url(self, name: str) -> str:
        port = {"graph_double": 9001, "openai_double": 9002}.get(name, APP_PORT)
        return f"http://{self.session.services[name].address()}:{port}"

    def http(self, name: str) -> httpx.Client:
        """A client for one service, made anew when the service's address has changed."""
        url = self.url(name)
        if url not in self._http:
            self._http[url] = httpx.Client(base_url=url, timeout=15.0)
        return self._http[url]

    def sql(
        self, query: str, parameters: Mapping[str, Any] | None = None, database: str = "whats_agent"
    ) -> list[dict[str, Any]]:
        """Rows of one statement, over a connection of its own to the server itself."""
        with psycopg.connect(
            host=self.postgres.address() or "0.0.0.0",
            dbname=database,
            user="whats_agent",
            password=self._db_password,
            connect_timeout=5,
            row_factory=dict_row,
            autocommit=True,
        ) as connection:
            cursor = connection.execute(query, parameters)
            return cursor.fetchall() if cursor.description else []

    def superuser_sql(self, statement: str) -> str:
        """Run a statement as ``postgres`` over the socket inside the container."""
        return self.postgres.run(["psql", "-XAtq", "-v", "ON_ERROR_STOP=1", "-d", "postgres", "-c", statement])

    def sends(self) -> list[dict[str, Any]]:
        """What the Graph double accepted, oldest first."""
        found: list[dict[str, Any]] = self.http("graph_double").get("/_double/sends").raise_for_status().json()
        return found

    def fail(self, double: str, fault: str, count: int | None = None) -> None:
        self.session.services[double].disturbed = True
        order = {"class": fault} if count is None else {"class": fault, "count": count}
        self.http(double).post("/_double/fail", json=order).raise_for_status()

    def graph_statuses(self, *, enabled: bool) -> None:
        self.graph.disturbed = True
        self.http("graph_double").post("/_double/statuses", json={"enabled": enabled}).raise_for_status()

    def replay_status(self) -> dict[str, int]:
        """``whats-agent replay-status`` in the worker's container."""
        status: dict[str, int] = json.loads(self.worker.run(["whats-agent", "replay-status"]))
        return status

    @contextmanager
    def stopped(self, service: Service) -> Iterator[None]:
        """The service is down inside the block and up again after it."""
        service.kill()
        try:
            yield
        finally:
            service.start()
            if service in (self.graph, self.openai):
                # The test asks the doubles itself; for all others the agent must cope with the start as well.
                eventually(lambda: self._answers(service.name, "/_double/health"), f"{service.name} to start")

    def close(self) -> None:
        for client in self._http.values():
            client.close()
