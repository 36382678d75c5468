# SPDX-License-Identifier: GPL-3.0-or-later
"""What a restore checks before its database serves, what after, and what it makes of what pg_amcheck says."""

from __future__ import annotations

import contextlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psycopg
import pytest
from ansible.module_utils.whats_agent import postgres_integrity as integrity
from ansible.module_utils.whats_agent.docker_host import ExecResult
from ansible.module_utils.whats_agent.lock import Idle
from ansible.module_utils.whats_agent.postgres_host import DatabasePlace
from ansible.module_utils.whats_agent.postgres_integrity import Check, Index
from ansible.module_utils.whats_agent.postgres_restore_steps import QUICK_QUERY_S, RestoreSteps
from ansible.module_utils.whats_agent.postgres_standby import UnsoundContentError, UnsoundServiceError

SOUND = ExecResult(0, "", "")
OF_INDEX = """btree index "whats_agent.public.messages_pkey":
    ERROR:  heap tuple (0,1) from table "messages" lacks matching index tuple within index "messages_pkey"
    HINT:  Retrying verification using the function bt_index_parent_check() might provide a more specific error.
"""
OF_HEAP = """heap table "whats_agent.public.messages", block 0, offset 3:
    xmin 4026531839 precedes relation freeze threshold 0:726
"""
PKEY = Index("whats_agent", "public", "messages_pkey")


@pytest.mark.parametrize(
    ("said", "indexes"),
    [
        pytest.param("", (), id="nothing"),
        pytest.param(OF_INDEX, (PKEY,), id="an index"),
        pytest.param(OF_INDEX * 2, (PKEY,), id="an index, twice"),
        pytest.param(OF_INDEX + OF_HEAP, (), id="a table as well"),
        pytest.param(OF_HEAP, (), id="a table"),
        pytest.param(
            'pg_amcheck: warning: skipping database "x": amcheck is not installed\n' + OF_INDEX, (PKEY,), id="a warning"
        ),
        pytest.param("pg_amcheck: error: connection to server failed", (), id="it could not ask"),
        pytest.param('btree index "a.b.c.d":\n    ERROR:  x', (), id="a name that could be read in two ways"),
    ],
)
def test_only_where_nothing_but_indexes_is_named_they_are_to_be_rebuilt(said: str, indexes: tuple[Index, ...]) -> None:
    assert integrity.damaged_indexes(said) == indexes


class Server(RestoreSteps):
    """The checks over a server that is not there: `said` is what pg_amcheck says, one run after the other."""

    def __init__(self, tmp_path: Path, *said: ExecResult, refuses: Exception | None = None, **state: Any) -> None:
        self.said = list(said)
        self.executed: list[str] = []
        self.notes: list[str] = []
        docker = SimpleNamespace(
            require_running=lambda *_: SimpleNamespace(id="c1"), execute=lambda *_, **__: self.said.pop(0)
        )
        backrest: Any = SimpleNamespace(docker=docker, compose=None)
        place = DatabasePlace(tmp_path, tmp_path, "whats_agent")
        super().__init__(place, backrest, heart=Idle(), progress=lambda _step: pytest.fail("no report"))
        self.note = lambda step, _details: self.notes.append(step)
        self.refuses = refuses
        self.state = {"database": "whats_agent", "backup": "b1", **state}

    def _save(self, **changes: Any) -> None:
        self.state.update(changes)

    def _ensure_running(self) -> None:
        pass

    def _projected(self) -> int | None:
        return 500

    def _log_begins(self) -> int | None:
        return 504

    def connect(self, _place: object, dbname: str) -> Any:
        """Return a connection that records what is executed over it."""

        def execute(statement: Any) -> None:
            self.executed.append(f"{dbname}: {statement.as_string(None)}")
            if self.refuses is not None:
                raise self.refuses

        return contextlib.nullcontext(SimpleNamespace(execute=execute))


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Stand in for the checks of the content, which hold; gives what limits they were asked with."""
    limits: list[Any] = []

    def run_checks(_connect: object, _database: str, **options: Any) -> tuple[list[Check], list[str]]:
        limits.append(options.get("query_limit_s", options.get("only")))
        return [Check("rows", True, "3")], []

    monkeypatch.setattr(integrity, "run_checks", run_checks)
    return limits


def serve(server: Server, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Take the step `checked`."""
    monkeypatch.setattr("ansible.module_utils.whats_agent.postgres_restore_steps.connect", server.connect)
    return server._step_checked()


def test_a_proven_backup_has_put_off_what_takes_long(tmp_path: Path, asked: list[Any]) -> None:
    server = Server(tmp_path, proven=True)
    server._step_verified()
    assert asked == [QUICK_QUERY_S]
    assert server.state["structure"] == "later"


def test_of_any_other_all_is_checked_before_it_takes_over_and_not_again(
    tmp_path: Path, asked: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    server = Server(tmp_path, SOUND, proven=False)
    server._step_verified()
    assert asked == [0]
    assert [check["name"] for check in server.state["checks"]] == ["rows", "structure"]
    serve(server, monkeypatch)  # and does not ask pg_amcheck once more


@pytest.mark.usefixtures("asked")
def test_a_damaged_table_rejects_what_nothing_has_vouched_for(tmp_path: Path) -> None:
    with pytest.raises(UnsoundContentError, match="structure: heap table"):
        Server(tmp_path, ExecResult(2, OF_HEAP, ""), proven=False)._step_verified()


@pytest.mark.usefixtures("asked")
def test_an_index_keeps_no_database_from_serving_and_is_rebuilt_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    damaged = ExecResult(2, OF_INDEX, "")
    server = Server(tmp_path, damaged, damaged, SOUND, proven=False)
    server._step_verified()
    details = serve(server, monkeypatch)
    assert server.executed == ['whats_agent: reindex index "public"."messages_pkey"']
    assert "index_damaged" in server.notes
    assert [check["detail"] for check in details["checks"]][-2:] == [
        "rebuilt public.messages_pkey",
        "pg_amcheck found nothing",
    ]


@pytest.mark.usefixtures("asked")
@pytest.mark.parametrize(
    ("said", "refuses", "told"),
    [
        pytest.param([OF_HEAP], None, "heap table", id="a table"),
        pytest.param([OF_INDEX, OF_INDEX], None, "btree index", id="an index that stays damaged"),
        pytest.param(
            [OF_INDEX, OF_INDEX],
            psycopg.errors.UniqueViolation("could not create unique index"),
            "cannot be rebuilt: could not create unique index",
            id="a key twice",
        ),
    ],
)
def test_what_serves_and_stays_unsound_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: list[str], refuses: Exception | None, told: str
) -> None:
    server = Server(tmp_path, *(ExecResult(2, text, "") for text in said), refuses=refuses, proven=True)
    with pytest.raises(UnsoundServiceError, match=told):
        serve(server, monkeypatch)
    assert any(not check["ok"] for check in server.state["checks"])


def test_what_the_message_log_lacks_is_measured_from_what_was_restored(
    tmp_path: Path, asked: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    server = Server(tmp_path, SOUND, proven=True)
    server._step_verified()
    assert server.state["projected"] == 500
    serve(server, monkeypatch)
    assert server.state["log_missing"] == 3
    assert "up to 3 entries" in server.state["log_missing_told"]["en"]
