# SPDX-License-Identifier: GPL-3.0-or-later
"""ansible-runner for real: outcomes, an unreachable host, Ctrl-C, a time-out, progress and planted secrets."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from oncall.engine import EngineError, Finished, ask, run_playbook

ROOT = Path(__file__).resolve().parents[3]
HERE = Path(__file__).resolve().parent
FAKE = HERE / "fake.yml"
NAMED = {"fake_told": {"db_password": "planted-secret-four"}}  # what a task returns under a name that says it


@pytest.fixture(autouse=True)
def roles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANSIBLE_ROLES_PATH", f"{ROOT / 'roles'}:{HERE / 'roles'}")
    monkeypatch.setenv("WHATS_AGENT_LANG", "en")


class Bench:
    """A fake component on this machine and what was printed about it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.inventory = folder / "hosts.ini"
        self.inventory.write_text(
            "[agent_hosts]\nbox ansible_connection=local ansible_python_interpreter=/usr/bin/python3\n"
        )
        self.lines: list[str] = []

    def variables(self, **more: Any) -> dict[str, Any]:
        state_dir = str(self.folder / "state_dir")
        return {"fake_dir": str(self.folder), "runbook_state_dir": state_dir, "runbook_stable_seconds": 0, **more}

    def play(self, cause: str, **options: Any) -> Finished:
        (self.folder / "state").write_text(f"{cause}\n")
        more = options.pop("variables", {})
        variables = self.variables(**more)
        return run_playbook(FAKE, self.inventory, variables=variables, show=self.lines.append, **options)

    @property
    def printed(self) -> str:
        return "\n".join(self.lines)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_the_result_of_the_contract_comes_back(bench: Bench) -> None:
    finished = bench.play("stopped")
    (ended,) = finished.hosts
    assert (finished.status, ended.host, ended.outcome) == ("successful", "box", "recovered")
    assert ended.result["remedy"] == "start"
    assert "Outcome: fake@box: recovered" in bench.printed
    opened = json.loads(next((bench.folder / "state_dir" / "runs").glob("*.jsonl")).read_text().splitlines()[0])
    assert opened["holder"]["entry_point"] == "oncall"


def test_a_refused_run(bench: Bench) -> None:
    (ended,) = bench.play("lost").hosts
    assert (ended.outcome, ended.result["ok"]) == ("refused", False)


def test_an_unreachable_host_is_named(bench: Bench) -> None:
    bench.inventory.write_text("[agent_hosts]\nbox ansible_host=127.0.0.1 ansible_port=1 ansible_user=nobody\n")
    finished = bench.play("healthy")
    assert [(ended.host, ended.outcome) for ended in finished.hosts] == [("box", "unreachable")]


def test_a_time_out_ends_in_a_state_that_a_rerun_mends(bench: Bench) -> None:
    waits = {"fake_start_waits": True, "runbook_lease_seconds": 3}
    finished = bench.play("stopped", variables=waits, timeout=25)
    assert finished.status == "timeout"
    assert [ended.outcome for ended in finished.hosts] == ["interrupted"]
    (ended,) = bench.play("stopped").hosts
    assert ended.outcome == "recovered"


def test_ctrl_c_ends_in_a_state_that_a_rerun_mends(bench: Bench, eventually: Callable[..., None]) -> None:
    (bench.folder / "state").write_text("stopped\n")
    variables = bench.variables(fake_start_waits=True, runbook_lease_seconds=3)
    code = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r})\n"
        "from pathlib import Path\nfrom oncall.engine import run_playbook\n"
        f"done = run_playbook(Path({str(FAKE)!r}), Path({str(bench.inventory)!r}), variables={variables!r})\n"
        "print(done.status, [host.outcome for host in done.hosts])"
    )
    started = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=dict(os.environ))
    eventually((bench.folder / "waiting").exists, timeout=90)
    started.send_signal(signal.SIGINT)
    output, _ = started.communicate(timeout=60)
    assert output.strip() == "canceled ['interrupted']"
    (ended,) = bench.play("stopped").hosts
    assert ended.outcome == "recovered"


def test_progress_is_seen_while_the_module_runs(bench: Bench) -> None:
    shown: list[tuple[float, str]] = []
    bench.lines = _Stamped(shown)
    (ended,) = bench.play("slow").hosts
    assert ended.outcome == "recovered"
    progress = [(at, line) for at, line in shown if "slow_copy" in line and "%" in line]
    assert len(progress) >= 2, bench.printed
    done = next(at for at, line in shown if "done in" in line)
    assert progress[0][0] < done - 2, "the progress came only when the module had ended"
    journal = next((bench.folder / "state_dir" / "runs").glob("*.jsonl")).read_text()
    events = [json.loads(line) for line in journal.splitlines()]
    percents = [event["percent"] for event in events if event["event"] == "progress"]
    assert percents == sorted(percents)
    assert percents[-1] == 100
    lease_kept = [event for event in events if event["event"] == "close"]
    assert lease_kept[-1]["outcome"] == "recovered"


class _Stamped(list[str]):
    """Keeps the time beside each line."""

    def __init__(self, shown: list[tuple[float, str]]) -> None:
        super().__init__()
        self._shown = shown

    def append(self, line: str) -> None:
        super().append(line)
        self._shown.append((time.monotonic(), line))


def test_planted_secrets_are_on_no_screen_and_in_no_record(bench: Bench) -> None:
    env = bench.folder / "dotenv"
    env.write_text("DB_PASSWORD=planted-secret-one\nREDIS_URL=redis://:planted-secret-two@redis/0\nRELEASE=a\n")
    variables = {"runbook_env_file": str(env), "fake_leaks": "planted-secret-one and redis://:planted-secret-two@redis"}
    finished = bench.play(
        "bad_release", variables={**variables, "fake_start_fails": True, "fake_after_start": "bad_release"}
    )
    assert finished.hosts[0].outcome == "acted_not_recovered"
    records = "".join(path.read_text() for path in (bench.folder / "state_dir").rglob("*") if path.is_file())
    assert "[redacted]" in records
    for where in (records, bench.printed, json.dumps([ended.as_dict() for ended in finished.hosts])):
        assert "planted-secret" not in where


@pytest.mark.parametrize("verbosity", ["-v", "-vvv"])
def test_secrets_with_a_name_or_a_shape_are_on_no_verbose_screen(bench: Bench, verbosity: str) -> None:
    leaks = "DB_PASSWORD=planted-secret-one redis://:planted-secret-two@redis, Bearer planted-secret-three"
    finished = bench.play(
        "bad_release",
        variables={"fake_start_fails": True, "fake_after_start": "bad_release", "fake_leaks": leaks, **NAMED},
        arguments=[verbosity],
    )
    assert finished.hosts[0].outcome == "acted_not_recovered"
    assert "TASK [fake : Fail where the test wants it]" in bench.printed, "this is not Ansible's own output"
    assert "[redacted]" in bench.printed
    assert "planted-secret" not in bench.printed


def test_asking_a_host_that_does_not_exist_is_an_error(bench: Bench) -> None:
    with pytest.raises(EngineError):
        ask("runbook_info", {"parts": ["lock"]}, bench.inventory, host="nobody")


def test_asking_returns_one_answer_per_host(bench: Bench) -> None:
    (answer,) = ask("runbook_info", {"parts": ["lock"], "state_dir": str(bench.folder)}, bench.inventory)
    assert (answer.host, answer.outcome, answer.result["seen"]) == ("box", "ok", {"lock": None})


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_watcher_tells_people_once_and_ends_cleanly(
    tmp_path: Path, number: signal.Signals, eventually: Callable[..., None]
) -> None:
    inventory = tmp_path / "hosts.ini"
    inventory.write_text("[agent_hosts]\nbox ansible_host=127.0.0.1 ansible_port=1 ansible_user=nobody\n")
    told = tmp_path / "told"
    code = f"import sys; open({str(told)!r}, 'a').write(sys.stdin.read() + '\\n')"
    channels = tmp_path / "notify.json"
    channels.write_text(json.dumps({"command": [sys.executable, "-c", code]}))
    log = tmp_path / "log"
    arguments = ["watch", "-i", inventory, "--every", "0.1s", "--json", "--notify", channels]
    with log.open("w") as output:
        watcher = subprocess.Popen(
            [ROOT / "scripts" / "oncall", *map(str, arguments)], stdout=output, stderr=subprocess.STDOUT
        )
        eventually(told.exists, timeout=60)
        looks = len(log.read_text())
        watcher.send_signal(number)
        assert watcher.wait(timeout=30) == 0
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert looks
    assert [line["kind"] for line in lines] == ["begin", "no_runbook", "end"]
    (word,) = told.read_text().splitlines()
    assert (json.loads(word)["host"], json.loads(word)["alert"]) == ("box", "unreachable")


def test_the_course_is_told_in_portuguese_by_locale_installed_or_not(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ansible itself refuses to start under a locale that the machine has not got; that must not stop an operator."""
    for name in ("WHATS_AGENT_LANG", "LC_ALL", "LC_MESSAGES"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("LANG", "pt_BR.UTF-8")
    (ended,) = bench.play("stopped", check=True).hosts
    assert ended.outcome == "predicted"
    words = (
        "SIMULAÇÃO",
        "Diagnóstico: stopped",
        "Plano",
        "1. start: inicia",
        "Resultado: SIMULAÇÃO: fake@box: previsto",
    )
    assert [word for word in words if word not in bench.printed] == [], bench.printed
