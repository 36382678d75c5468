# SPDX-License-Identifier: GPL-3.0-or-later
"""The command line, over an engine that answers what the test says."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from oncall import cli as command_line
from oncall import engine as real_engine
from oncall.commands.options import PlaybookName
from oncall.engine import EngineError, Finished, HostResult
from oncall.outcomes import EXIT_CODES, exit_code, gravest
from oncall.project import PLAYBOOKS, ROOT, parse_duration, read_runbook
from oncall.texts import TEXTS

MESSAGE = {"en": "database@box: recovered", "pt": "database@box: recuperado"}


class Engine:
    """Stands in for ansible-runner: keeps what it was asked, answers what it was told."""

    def __init__(self) -> None:
        self.played: list[dict[str, Any]] = []
        self.asked: list[tuple[str, dict[str, Any], str | None]] = []
        self.finished = Finished("successful", 0, [], [])
        self.answers: dict[str, Callable[[dict[str, Any], str | None], list[HostResult]]] = {}

    def run_playbook(self, playbook: Path, inventory: Path, **options: Any) -> Finished:
        self.played.append({"playbook": playbook.name, "inventory": inventory, **options})
        if options["show"] is not None:
            options["show"]("what the callback prints")
        return self.finished

    def ask(
        self, module: str, parameters: dict[str, Any], inventory: Path, *, host: str | None = None
    ) -> list[HostResult]:
        self.asked.append((module, parameters, host))
        return self.answers[module](parameters, host)


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Engine:
    fake = Engine()
    monkeypatch.setattr(real_engine, "run_playbook", fake.run_playbook)
    monkeypatch.setattr(real_engine, "ask", fake.ask)
    monkeypatch.setenv("WHATS_AGENT_LANG", "en")
    return fake


@pytest.fixture
def oncall(tmp_path: Path, engine: Engine) -> Callable[..., Result]:
    inventory = tmp_path / "hosts.yml"
    inventory.write_text("---\n")

    def call(*arguments: str) -> Result:
        return CliRunner().invoke(
            command_line.cli, list(arguments), env={"ONCALL_INVENTORY": str(inventory)}, prog_name="oncall"
        )

    return call


def _ended(*outcomes: str) -> Finished:
    hosts = [HostResult(f"box{n}", name, {"outcome": name, "message": MESSAGE}) for n, name in enumerate(outcomes)]
    return Finished("successful", 0, hosts, [])


@pytest.mark.parametrize(("outcome", "code"), EXIT_CODES.items())
def test_each_outcome_has_its_own_exit_code(
    engine: Engine, oncall: Callable[..., Result], outcome: str, code: int
) -> None:
    engine.finished = _ended(outcome)
    assert oncall("run", "recover_db").exit_code == code


def test_exit_codes_are_distinct_and_leave_usage_alone() -> None:
    assert len(set(EXIT_CODES.values())) == len(EXIT_CODES)
    assert 2 not in EXIT_CODES.values()


def test_exit_codes_are_documented_as_they_are() -> None:
    page = (ROOT / "docs" / "oncall.md").read_text(encoding="utf-8")
    documented = {int(code) for code in re.findall(r"^\| (\d+) \|", page, re.MULTILINE)}
    assert documented == {*EXIT_CODES.values(), 2}
    contract = (ROOT / "docs" / "runbook_contract.md").read_text(encoding="utf-8")
    for outcome, code in re.findall(r"^\| `(\w+)` \| (?:ok|fails) \| (\d+) \|", contract, re.MULTILINE):
        assert EXIT_CODES[outcome] == int(code)


def test_of_several_hosts_the_gravest_outcome_counts(engine: Engine, oncall: Callable[..., Result]) -> None:
    engine.finished = _ended("already_healthy", "acted_not_recovered", "recovered")
    assert oncall("run", "recover_db").exit_code == EXIT_CODES["acted_not_recovered"]
    assert gravest(["recovered", "refused"]) == "refused"
    assert exit_code([]) == 1


def test_run_hands_everything_on(engine: Engine, oncall: Callable[..., Result]) -> None:
    engine.finished = _ended("recovered")
    arguments = [
        "--host",
        "box",
        "--confirm",
        "tp0-123",
        "-e",
        "target_time=2026-01-31T12:00:00-03:00",
        "--timeout",
        "2m",
    ]
    result = oncall("run", "recover_db.yml", *arguments)
    (played,) = engine.played
    assert (played["playbook"], played["host"], played["check"], played["timeout"]) == (
        "recover_db.yml",
        "box",
        False,
        120,
    )
    assert played["variables"] == {"confirm": "tp0-123", "target_time": "2026-01-31T12:00:00-03:00"}
    assert "what the callback prints" in result.output


def test_plan_is_a_dry_run(engine: Engine, oncall: Callable[..., Result]) -> None:
    engine.finished = _ended("predicted")
    assert oncall("plan", "recover_db").exit_code == EXIT_CODES["predicted"]
    assert engine.played[0]["check"] is True


def test_json_is_one_document_and_nothing_else(engine: Engine, oncall: Callable[..., Result]) -> None:
    engine.finished = _ended("refused")
    result = oncall("run", "recover_db", "--json")
    document = json.loads(result.stdout)
    assert document["exit_code"] == result.exit_code == EXIT_CODES["refused"]
    assert document["hosts"][0]["outcome"] == "refused"
    assert result.stderr == ""


@pytest.mark.parametrize("status", ["canceled", "timeout"])
def test_an_interrupted_run_says_that_a_rerun_mends(engine: Engine, oncall: Callable[..., Result], status: str) -> None:
    engine.finished = Finished(status, 254, [HostResult("box", "interrupted")], [])
    result = oncall("run", "recover_db")
    assert result.exit_code == EXIT_CODES["interrupted"]
    assert "Run the same command again" in result.stderr


def test_a_run_over_nobody_is_an_error(engine: Engine, oncall: Callable[..., Result]) -> None:
    engine.finished = Finished("failed", 1, [], ["[ERROR]: no host matched"])
    result = oncall("run", "recover_db")
    assert result.exit_code == EXIT_CODES["error"]
    assert "nothing ran" in result.stderr


@pytest.mark.parametrize("name", ["nope", "../evil", "/etc/passwd", "tests/integration/runbook/fake.yml"])
def test_a_wrong_name_is_answered_with_those_that_exist(oncall: Callable[..., Result], name: str) -> None:
    result = oncall("run", name)
    assert result.exit_code == 2
    assert "recover_db" in result.stderr or "not one of playbooks/" in result.stderr


@pytest.mark.parametrize("argument", ["novalue", "1x=2", "a b=c"])
def test_a_wrong_variable_is_wrong_usage(oncall: Callable[..., Result], argument: str) -> None:
    assert oncall("run", "recover_db", "-e", argument).exit_code == 2


RUN: dict[str, Any] = {
    "run": "20260131T120000Z-00000001",
    "at": "2026-01-31T12:00:00.000Z",
    "component": "database",
    "playbook": "p",
    "host": "box",
    "holder": "ana@laptop through oncall",
    "dry_run": False,
    "cause": "container_stopped",
    "remedy": "start",
    "outcome": "recovered",
    "seconds": 9.1,
}
HEALTHY: dict[str, Any] = {
    "lock": None,
    "breakers": [],
    "mutes": [],
    "runs": [RUN],
    "containers": [{"service": "app", "status": "running"}],
    "health": {"status": "healthy", "parts": {"postgres": {"state": "up"}}},
    "alerts": [],
    "backup": {
        "last": {"label": "l", "type": "full", "seconds_old": 840, "error": False},
        "proven": {"label": "l", "seconds_old": 7200},
        "count": 1,
        "off_host": True,
    },
}


def _seeing(**changes: Any) -> Callable[[dict[str, Any], str | None], list[HostResult]]:
    def look(parameters: dict[str, Any], host: str | None) -> list[HostResult]:
        seen = {name: value for name, value in {**HEALTHY, **changes}.items() if name in parameters["parts"]}
        return [HostResult("box", "ok", {"seen": seen, "now": "2026-01-31T12:05:00.000Z"})]

    return look


def test_status_of_a_sound_host(engine: Engine, oncall: Callable[..., Result]) -> None:
    engine.answers["runbook_info"] = _seeing()
    result = oncall("status")
    assert result.exit_code == 0, result.output
    for words in ("healthy", "free", "database recovered", "full 14 min ago, proven 2 h ago"):
        assert words in result.output


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"health": {"status": "degraded", "parts": {"postgres": {"state": "down"}}}}, "degraded (postgres)"),
        ({"health": {"problem": "connection refused"}}, "connection refused"),
        ({"breakers": [{"component": "database", "open": True, "threshold": 3, "failures": [1, 2, 3]}]}, "database OPEN"),
        ({"alerts": {"alerts": [{"name": "slow answers"}]}}, "slow answers"),
        (
            {
                "lock": {
                    "run": "r1", "component": "database", "user": "ana", "controller": "laptop",
                    "entry_point": "timer", "dead": True, "seconds_since_heartbeat": None,
                }
            },
            "left behind",
        ),
    ],
    ids=["degraded", "unseen", "breaker", "alert", "dead lock"],
)  # fmt: skip
def test_status_of_a_host_that_needs_a_person(
    engine: Engine, oncall: Callable[..., Result], changes: dict[str, Any], words: str
) -> None:
    engine.answers["runbook_info"] = _seeing(**changes)
    result = oncall("status")
    assert result.exit_code == 3
    assert words in result.output
    assert json.loads(oncall("status", "--json").stdout)["attention"]["box"]


@pytest.mark.parametrize(
    ("now", "words"), [("2020-01-01T00:05:00Z", "5 min ago"), ("2036-01-01T00:05:00Z", "5 min ago")]
)
def test_ages_are_by_the_host_s_clock_wherever_this_machine_s_is(
    engine: Engine, oncall: Callable[..., Result], now: str, words: str
) -> None:
    at = now.replace("05:00Z", "00:00.000Z")
    engine.answers["runbook_info"] = lambda *_: [
        HostResult("box", "ok", {"seen": {**HEALTHY, "runs": [{**RUN, "at": at}]}, "now": now})
    ]
    assert f"database recovered {words}" in oncall("status").output


def test_an_alert_of_a_muted_component_is_shown_and_needs_nobody(engine: Engine, oncall: Callable[..., Result]) -> None:
    mute = {"component": "database", "until": "2026-01-31T14:00:00+00:00"}
    alerts = {"alerts": [{"name": "database_down", "severity": "P0", "runbook": "recover_db.yml"}]}
    engine.answers["runbook_info"] = _seeing(alerts=alerts, mutes=[mute])
    result = oncall("status")
    assert result.exit_code == 0, result.output
    assert "database_down (muted)" in result.output
    engine.answers["runbook_info"] = _seeing(alerts=alerts, mutes=[{**mute, "component": "app"}])
    assert oncall("status").exit_code == 3


def test_status_shows_an_unreachable_host_beside_the_others(engine: Engine, oncall: Callable[..., Result]) -> None:
    sound = _seeing()
    unreachable = HostResult("lost", "unreachable", {}, "no route to host")
    engine.answers["runbook_info"] = lambda parameters, host: [*sound(parameters, host), unreachable]
    result = oncall("status")
    assert result.exit_code == 3
    assert "no route to host" in result.output
    assert "healthy" in result.output


def test_runs_and_their_json(engine: Engine, oncall: Callable[..., Result]) -> None:
    engine.answers["runbook_info"] = _seeing()
    assert RUN["run"] in oncall("runs").output
    assert json.loads(oncall("runs", "--json").stdout) == {"box": [RUN]}


EVENTS: list[dict[str, Any]] = [
    {"at": "t", "boot": 10.0, "run": RUN["run"], "event": "open", "component": "database", "host": "box", "holder": {}},
    {"at": "t", "boot": 11.0, "run": RUN["run"], "event": "diagnosis", "cause": "c", "summary": MESSAGE, "evidence": []},
    {"at": "t", "boot": 11.1, "run": RUN["run"], "event": "plan", "remedies": [{"name": "start"}]},
    {"at": "t", "boot": 12.0, "run": RUN["run"], "event": "step", "phase": "begin", "step": "start"},
    {"at": "t", "boot": 13.0, "run": RUN["run"], "event": "progress", "step": "start", "percent": 40.0, "done": 4, "total": 10,
     "unit": "bytes", "seconds_left": 3.0},
    {"at": "t", "boot": 14.0, "run": RUN["run"], "event": "step", "phase": "end", "step": "start", "ok": True, "seconds": 2.0},
    {"at": "t", "boot": 15.0, "run": RUN["run"], "event": "verify", "checks": [{"name": "rows", "ok": True}]},
    {"at": "t", "boot": 15.0, "run": RUN["run"], "event": "takeover", "of": "x"},
    {"at": "t", "boot": 16.5, "run": RUN["run"], "event": "close", "outcome": "recovered", "message": MESSAGE},
]  # fmt: skip


def _recorded(parameters: dict[str, Any], host: str | None) -> list[HostResult]:
    if parameters.get("run_id"):
        assert host == "box"
        known = parameters.get("after", 0)
        # A follower sees the run grow: three events a look.
        return [HostResult("box", "ok", {"events": EVENTS[known : known + 3] if "after" in parameters else EVENTS})]
    return [HostResult("box", "ok", {"seen": {"runs": [RUN]}})]


@pytest.mark.parametrize("name", ["last", RUN["run"], "20260131"])
def test_show_prints_the_timeline(engine: Engine, oncall: Callable[..., Result], name: str) -> None:
    engine.answers["runbook_info"] = _recorded
    output = oncall("show", name).output
    assert "6.5 s  close" in output
    assert "40.0 % (4/10 bytes, 3.0 s left)" in output
    assert "✓ rows" in output


def test_show_of_an_unknown_run(engine: Engine, oncall: Callable[..., Result]) -> None:
    engine.answers["runbook_info"] = _recorded
    result = oncall("show", "20990101")
    assert result.exit_code == 1
    assert "no host has a run 20990101" in result.stderr


def test_follow_ends_with_the_run_and_its_exit_code(engine: Engine, oncall: Callable[..., Result]) -> None:
    engine.answers["runbook_info"] = _recorded
    result = oncall("follow", "--every", "0")
    assert result.exit_code == EXIT_CODES["recovered"]
    assert [line.split()[2] for line in result.stdout.splitlines()] == [event["event"] for event in EVENTS]


def test_decisions_are_taken_on_the_one_host_with_who_and_why(engine: Engine, oncall: Callable[..., Result]) -> None:
    engine.answers["runbook_info"] = _seeing()
    muted = {"component": "database", "until": "2026-01-31T14:00:00+00:00"}
    engine.answers["runbook_control"] = lambda _parameters, _host: [
        HostResult("box", "ok", {"changed": True, "mute": muted})
    ]
    result = oncall("mute", "database", "for", "2h", "--why", "disk swap")
    assert "muted until 2026-01-31T14:00:00" in result.output
    module, parameters, host = engine.asked[-1]
    assert (module, host, parameters["seconds"], parameters["why"]) == ("runbook_control", "box", 7200, "disk swap")
    assert parameters["by"]["entry_point"] == "oncall"


@pytest.mark.parametrize(
    "arguments",
    [
        ["mute", "database", "for", "2h"],
        ["mute", "database", "--why", "x"],
        ["mute", "database", "for", "ever", "--why", "x"],
        ["lock", "break", "r1"],
        ["breaker", "close", "database"],
    ],
)
def test_decisions_without_reason_or_time_are_wrong_usage(
    engine: Engine, oncall: Callable[..., Result], arguments: list[str]
) -> None:
    assert oncall(*arguments).exit_code == 2
    assert engine.asked == []


def test_a_decision_over_several_hosts_asks_which(engine: Engine, oncall: Callable[..., Result]) -> None:
    engine.answers["runbook_info"] = lambda _parameters, _host: [HostResult("a", "ok", {}), HostResult("b", "ok", {})]
    result = oncall("breaker", "close", "database", "--why", "looked into")
    assert result.exit_code == 2
    assert "--host" in result.stderr


def test_an_engine_that_can_not_start_is_one_line(
    engine: Engine, oncall: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_arguments: Any, **_options: Any) -> None:
        raise EngineError("[ERROR]: the inventory is broken")

    monkeypatch.setattr(real_engine, "ask", broken)
    result = oncall("status")
    assert result.exit_code == 1
    assert result.stderr.strip().splitlines() == ["Error: [ERROR]: the inventory is broken"]


def _commands(group: click.Group, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    for name, command in group.commands.items():
        yield (*path, name), command
        if isinstance(command, click.Group):
            yield from _commands(command, (*path, name))


@pytest.mark.parametrize(
    "command", [pytest.param(command, id=" ".join(path)) for path, command in _commands(command_line.cli)]
)
def test_every_command_that_answers_has_json(command: click.Command) -> None:
    options = {option for parameter in command.params for option in parameter.opts}
    assert ("--json" in options) == (command.name != "completion")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts(oncall: Callable[..., Result], shell: str) -> None:
    assert "_ONCALL_COMPLETE" in oncall("completion", shell).output


def test_runbooks_are_completed_with_their_purpose() -> None:
    found = PlaybookName().shell_complete(None, None, "recover_d")  # type: ignore[arg-type]
    assert [item.value for item in found] == ["recover_db"]
    assert found[0].help


def test_texts_exist_in_both_languages() -> None:
    for key, texts in TEXTS.items():
        assert set(texts) == {"en", "pt"}, key


def test_colours_only_on_a_terminal() -> None:
    """What a table is made of, once into a pipe and once on a pseudo-terminal."""
    code = "from oncall.render import console, outcome; console.print(outcome('recovered'))"
    command = [sys.executable, "-c", code]
    environment = {**os.environ, "TERM": "xterm-256color", "PYTHONPATH": str(ROOT)}
    environment.pop("NO_COLOR", None)
    piped = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60, env=environment)
    assert piped.stdout == "recovered\n"
    ours, theirs = pty.openpty()
    subprocess.run(command, stdin=theirs, stdout=theirs, stderr=theirs, check=True, timeout=60, env=environment)
    os.close(theirs)
    shown = os.read(ours, 65536).decode()
    os.close(ours)
    assert "\x1b[32mrecovered" in shown


def test_portuguese_by_locale(engine: Engine, oncall: Callable[..., Result], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WHATS_AGENT_LANG")
    monkeypatch.delenv("LC_ALL", raising=False)
    monkeypatch.delenv("LC_MESSAGES", raising=False)
    monkeypatch.setenv("LANG", "pt_BR.UTF-8")
    engine.answers["runbook_info"] = _seeing()
    assert "saúde" in oncall("status").output


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("30m", 1800), ("2h", 7200), ("1.5d", 129600)])
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


def test_a_header_is_read_by_field() -> None:
    found = read_runbook(PLAYBOOKS / "recover_db.yml")
    assert found.is_runbook
    assert found.header["Purpose"].startswith("bring the stack's database back")
    assert "guide:" in found.header["When"]
