# SPDX-License-Identifier: GPL-3.0-or-later
"""One stack per session; each test finds it whole and leaves it whole."""

from __future__ import annotations

import faulthandler
from collections.abc import Generator, Iterator

import docker
import pytest

from tests.integration.agent.containers import Session
from tests.integration.agent.images import MissingImagesError, find
from tests.integration.agent.stack import Stack
from tests.integration.agent.statements import Database
from tests.integration.agent.traffic import COUNTS, Traffic
from whats_agent.database.connection import Connection

faulthandler.enable()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "integration/agent" in item.path.as_posix():
            item.add_marker(pytest.mark.docker)


@pytest.fixture(scope="session")
def session_stack() -> Iterator[Stack]:
    client = docker.from_env(timeout=120)
    try:
        images = find(client)
    except MissingImagesError as error:
        pytest.exit(str(error), returncode=1)
    session = Session(client)
    stack = None
    try:
        stack = Stack(session, images)
        stack.start()
        yield stack
    except BaseException:
        print(session.report())
        raise
    finally:
        if stack is not None:
            stack.close()
        session.remove()
        client.close()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Append what the containers said to the report of a failed test."""
    report = yield
    stack = getattr(item, "funcargs", {}).get("stack")
    if report.failed and isinstance(stack, Stack):
        report.sections.append(("containers", stack.session.report()))
    return report


@pytest.fixture
def stack(session_stack: Stack) -> Iterator[Stack]:
    """The session's stack, whole at the start of each test whatever the one before broke."""
    yield session_stack
    session_stack.heal()


@pytest.fixture(scope="session")
def statements_server(session_stack: Stack) -> Iterator[Database]:
    database = Database(session_stack)
    yield database
    database.clean()


@pytest.fixture
def database(statements_server: Database) -> Database:
    statements_server.clean()
    return statements_server


@pytest.fixture
def session(database: Database) -> Connection:
    return database.connect()


@pytest.fixture
def traffic(stack: Stack, request: pytest.FixtureRequest) -> Traffic:
    return Traffic(stack, request.node.name)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """What became of all the messages that were sent."""
    if not COUNTS:
        return
    columns = list(COUNTS[0][1])
    terminalreporter.section("messages")
    terminalreporter.write_line(" | ".join([*columns, "test"]))
    for name, counts in COUNTS:
        terminalreporter.write_line(" | ".join([*(f"{counts[key]:>{len(key)}}" for key in columns), name]))
    totals = {key: sum(counts[key] for _, counts in COUNTS) for key in columns}
    terminalreporter.write_line(" | ".join([*(f"{totals[key]:>{len(key)}}" for key in columns), "in all"]))
