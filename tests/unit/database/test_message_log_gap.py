# SPDX-License-Identifier: GPL-3.0-or-later
"""What the message log no longer holds of what a restored database lacks: measured, never claimed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ansible.module_utils.whats_agent import message_log_gap as gap
from ansible.module_utils.whats_agent import postgres_plan as plan
from ansible.module_utils.whats_agent.clock import Clock
from ansible.module_utils.whats_agent.docker_host import ExecResult
from ansible.module_utils.whats_agent.errors import WhatsAgentError
from ansible.module_utils.whats_agent.pgbackrest import Backup
from ansible.module_utils.whats_agent.report import describe_rpo
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar

DAY = 86400
NOW = 100.0 * DAY
ROLE = Path(__file__).parents[3] / "roles" / "database"


@pytest.mark.parametrize(
    ("position", "first", "missing"),
    [
        pytest.param(500, 501, 0, id="the next one is there"),
        pytest.param(500, 1, 0, id="nothing was pruned"),
        pytest.param(500, 502, 1, id="one is gone"),
        pytest.param(500, 9_001, 8_500, id="weeks are gone"),
        pytest.param(None, 9_001, None, id="nobody knows what the database holds"),
        pytest.param(500, None, None, id="nobody knows what the log holds"),
    ],
)
def test_the_gap_lies_between_what_the_database_holds_and_what_the_log_begins_with(
    position: int | None, first: int | None, missing: int | None
) -> None:
    assert gap.between(position, first) == missing


class Docker:
    """Docker, as far as the log is asked for through it."""

    def __init__(self, **answers: Any) -> None:
        self.answers = answers
        self.asked: list[str] = []

    def container(self, _project: str, service: str) -> Any:
        """Return a service's container."""
        return SimpleNamespace(id=service, running=True) if service in self.answers else None

    def execute(self, container: str, argv: list[str], *, timeout: float) -> ExecResult:
        """Answer."""
        assert argv == ["whats-agent", "log-status"]
        assert timeout <= 10
        self.asked.append(container)
        answer = self.answers[container]
        if isinstance(answer, Exception):
            raise answer
        return ExecResult(0, answer, "")


@pytest.mark.parametrize(
    ("answers", "first"),
    [
        ({"app": '{"first_id": 7, "last_id": 9, "records": 3, "bytes": 1}'}, 7),
        ({"app": WhatsAgentError("it is just dying"), "worker": '{"first_id": 7}'}, 7),
        ({"worker": '{"last_id": 9, "records": 3, "bytes": 1}'}, None),
        ({"app": "Traceback"}, None),
        ({}, None),
    ],
    ids=["the app", "the worker", "of an older release", "no answer to read", "nobody there"],
)
def test_whoever_runs_is_asked_where_the_log_begins(answers: dict[str, Any], first: int | None) -> None:
    docker: Any = Docker(**answers)
    assert gap.first_held(docker, "whats_agent") == first


BACKUP = Backup("1F", "full", 1, 1, 70 * DAY, 1, 1, False, "", "", "", "", (), {"projected": "500"})
HOLE = ("000000010000000000000009",)


@pytest.mark.parametrize(
    ("days", "holes", "backup", "expected", "asked"),
    [
        pytest.param(80, (), BACKUP, 8_500, True, id="back by weeks: the log was pruned since"),
        pytest.param(93, (), BACKUP, 0, False, id="back by a week: all younger entries are there"),
        pytest.param(None, (), BACKUP, 0, False, id="to the end of the WAL"),
        pytest.param(None, HOLE, BACKUP, 8_500, True, id="to a hole after an old backup"),
        pytest.param(None, HOLE, replace(BACKUP, stop=99 * DAY), 0, False, id="to a hole after a new backup"),
        pytest.param(80, (), replace(BACKUP, annotations={}), None, True, id="a backup without its position"),
    ],
)
def test_the_plan_looks_at_the_log_only_where_it_may_be_too_short(
    days: int | None, holes: tuple[str, ...], backup: Backup, expected: int | None, asked: bool
) -> None:
    docker = Docker(app='{"first_id": 9001}')
    backrest: Any = SimpleNamespace(docker=docker, place=SimpleNamespace(project="whats_agent"))
    moment = None if days is None else float(days * DAY)
    assert plan.expected_gap(backrest, backup, holes, moment, Clock(wall=lambda: NOW)) == expected
    assert bool(docker.asked) is asked


@pytest.mark.parametrize(
    ("missing", "en", "pt"), [(8_500, "up to 8500", "até 8500"), (None, "unknown", "desconhecido")]
)
def test_a_gap_is_told_with_where_its_entries_are(missing: int | None, en: str, pt: str) -> None:
    told = gap.told(missing)
    assert told is not None
    assert en in told["en"]
    assert "archives have them" in told["en"]
    assert pt in told["pt"]
    assert gap.told(0) is None


def rpo(**variables: Any) -> dict[str, Any]:
    """Return what the role's verification says was lost."""
    loaded = DataLoader().load_from_file(str(ROLE / "vars" / "main.yml"), trusted_as_template=True)
    known = {
        **loaded,
        "__database_checked": {"verification": {"ok": True, "checks": []}},
        "__database_probed": {"ok": True},
    }
    found = Templar(DataLoader(), variables={**known, **variables}).template(loaded["__database_verification"])
    assert found["ok"] is True
    lost = found["rpo"]
    assert isinstance(lost, dict)
    return lost


REPLAYED = {"ok": True, "target_id": 9, "seconds": 1, "problem": ""}


@pytest.mark.parametrize(
    ("missing", "words"),
    [(0, "0 acknowledged messages lost"), (8_500, "up to 8500 entries"), (None, "an unknown number of entries")],
)
def test_a_restore_reports_what_was_measured(missing: int | None, words: str) -> None:
    restored = {"log_missing": missing, "log_missing_told": gap.told(missing)}
    lost = rpo(__database_restored={"restore": restored}, __database_replayed=REPLAYED)
    described = describe_rpo(lost)
    assert described is not None
    assert words in described["en"]
    assert ("messages_lost" in lost) is (missing == 0)


def test_a_restore_of_an_older_release_claims_nothing() -> None:
    assert "messages_lost" not in rpo(__database_restored={"restore": {}}, __database_replayed=REPLAYED)


def test_without_a_restore_the_database_went_back_nowhere() -> None:
    assert rpo(__database_replayed={"skipped": True})["messages_lost"] == 0
