# SPDX-License-Identifier: GPL-3.0-or-later
"""The role `runbook`, driven by the real ansible-playbook over a fake component in a temporary directory."""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.whats_agent.clock import SYSTEM_CLOCK
from ansible.module_utils.whats_agent.consent import Subject, consent_hash

ROOT = Path(__file__).resolve().parents[3]
HERE = Path(__file__).resolve().parent


class Fake:
    """A target with a fake component: `state` holds its cause."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.state_dir = folder / "state_dir"
        self.cause = "healthy"

    @property
    def cause(self) -> str:
        return (self.folder / "state").read_text().strip()

    @cause.setter
    def cause(self, value: str) -> None:
        (self.folder / "state").write_text(f"{value}\n")

    def command(self, *arguments: str, host: str = "box", **variables: Any) -> list[str]:
        given = {"fake_dir": str(self.folder), "runbook_state_dir": str(self.state_dir), "runbook_stable_seconds": 0}
        extra = json.dumps({**given, **variables})
        playbook = Path(sys.executable).with_name("ansible-playbook")
        return [str(playbook), "-i", f"{host},", "-c", "local", str(HERE / "fake.yml"), "-e", extra, *arguments]

    @property
    def environment(self) -> dict[str, str]:
        roles = f"{ROOT / 'roles'}:{HERE / 'roles'}"
        return {
            **os.environ,
            "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
            "ANSIBLE_ROLES_PATH": roles,
            "WHATS_AGENT_LANG": "en",
            "ANSIBLE_NOCOLOR": "1",
        }

    def run(self, *arguments: str, **variables: Any) -> subprocess.CompletedProcess[str]:
        command = self.command(*arguments, **variables)
        return subprocess.run(command, env=self.environment, capture_output=True, text=True, check=False, timeout=120)

    def start(self, *arguments: str, **variables: Any) -> subprocess.Popen[str]:
        return subprocess.Popen(
            self.command(*arguments, **variables),
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def runs(self) -> list[list[dict[str, Any]]]:
        files = sorted((self.state_dir / "runs").glob("*.jsonl"))
        return [[json.loads(line) for line in path.read_text().splitlines()] for path in files]

    def last_outcome(self) -> str:
        closed = [event for event in self.runs()[-1] if event["event"] == "close"]
        return str(closed[-1]["outcome"])

    def digest(self) -> dict[str, str]:
        """Return a checksum per file, run journals left out."""
        files = [p for p in self.folder.rglob("*") if p.is_file() and "runs" not in p.parts]
        return {str(p): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


@pytest.fixture
def fake(tmp_path: Path) -> Fake:
    return Fake(tmp_path)


def outcome_line(output: str) -> str:
    found = re.findall(r"^Outcome: (.*)$", output, re.MULTILINE)
    assert len(found) == 1, output
    return str(found[0])


def test_healthy_changes_nothing_and_is_quick(fake: Fake) -> None:
    done = fake.run()
    assert done.returncode == 0, done.stdout
    assert "already healthy" in outcome_line(done.stdout)
    assert "changed=0" in done.stdout
    assert fake.last_outcome() == "already_healthy"


def test_recovered_then_healthy(fake: Fake) -> None:
    fake.cause = "stopped"
    done = fake.run()
    assert done.returncode == 0, done.stdout
    assert "recovered; cause stopped; remedy start" in outcome_line(done.stdout)
    again = fake.run()
    assert "already healthy" in outcome_line(again.stdout)
    assert not (fake.state_dir / "lock.json").exists()


def test_rolled_back(fake: Fake) -> None:
    fake.cause = "bad_release"
    done = fake.run()
    assert done.returncode == 0, done.stdout
    assert fake.last_outcome() == "rolled_back"


@pytest.mark.parametrize(
    ("cause", "words"),
    [
        ("foreign", "playbooks/recover_db.yml"),
        ("bad_input", "the input is bad"),
        ("weird", "no remedy is known for weird"),
        ("lost", "add -e confirm="),
    ],
)
def test_refused_fails_with_one_line_and_touches_nothing(fake: Fake, cause: str, words: str) -> None:
    fake.cause = cause
    before = fake.digest()
    done = fake.run()
    assert done.returncode == 2, done.stdout
    assert words in outcome_line(done.stdout)
    assert "changed=0" in done.stdout
    assert {path: digest for path, digest in fake.digest().items() if path in before} == before
    assert fake.last_outcome() == "refused"


def test_the_whole_ladder_with_consent(fake: Fake) -> None:
    fake.cause = "stopped"
    first = fake.run(fake_after_start="stopped")
    assert first.returncode == 2, first.stdout
    assert "acted, NOT recovered" in outcome_line(first.stdout)
    confirm = re.search(r"run again with -e confirm=(\S+?);", outcome_line(first.stdout))
    assert confirm is not None
    second = fake.run("-e", f"confirm={confirm[1]}", fake_after_start="stopped")
    assert second.returncode == 0, second.stdout
    assert "remedy rebuild" in outcome_line(second.stdout)


@pytest.mark.parametrize("how", ["wrong", "other host", "moved", "expired"])
def test_a_consent_that_does_not_fit_is_refused_with_the_reason(fake: Fake, how: str) -> None:
    fake.cause = "lost"
    plan = fake.run("--check")
    assert plan.returncode == 0, plan.stdout
    confirm = re.search(r"confirm=(\S+)", plan.stdout)
    assert confirm is not None
    given, host, variables, words = confirm[1], "box", {}, ""
    if how == "wrong":
        given, words = given[:-1] + ("0" if given[-1] != "0" else "1"), "was not issued by a plan on this host"
    elif how == "other host":
        host, words = "elsewhere", "for the host box, not elsewhere"
    elif how == "moved":
        variables, words = {"fake_backup": "b2"}, "for a state that has moved since"
    else:
        given, words = self_made_consent(fake, age=3600), "expired"
    done = fake.run("-e", f"confirm={given}", host=host, **variables)
    assert done.returncode == 2, done.stdout
    assert words in outcome_line(done.stdout)
    assert fake.cause == "lost"


def self_made_consent(fake: Fake, age: int) -> str:
    """Return a consent to what is planned now, as if issued `age` seconds ago."""
    plan = next(event for event in fake.runs()[-1] if event["event"] == "plan")
    return consent_hash(Subject.of(plan["subject"]), int(SYSTEM_CLOCK.wall()) - age)


def test_a_rung_that_fails_is_recorded_and_the_run_is_not_recovered(fake: Fake) -> None:
    fake.cause = "bad_release"
    done = fake.run(fake_start_fails=True, fake_after_start="bad_release")
    assert done.returncode == 2, done.stdout
    assert "Fail where the test wants it: the start broke" in outcome_line(done.stdout)
    ends = [event for event in fake.runs()[-1] if event["event"] == "step" and event["phase"] == "end"]
    assert (ends[0]["ok"], "the start broke" in ends[0]["error"]) == (False, True)
    assert not (fake.state_dir / "lock.json").exists()


def test_what_stopped_a_rung_is_told_in_portuguese_too(fake: Fake) -> None:
    fake.cause = "bad_release"
    fake.run(fake_start_fails_in_both_languages=True, fake_after_start="bad_release")
    reason = fake.runs()[-1][-1]["reason"]
    assert re.search(r"Fail as a module of ours does: .*no\.env does not exist", reason["en"])
    assert re.search(r"o passo \w+ falhou: .*no\.env não existe: implante primeiro", reason["pt"])


def test_a_symptom_that_went_away_meanwhile_is_only_verified(fake: Fake) -> None:
    fake.cause = "stopped"
    done = fake.run(fake_heals_after_looks=1)
    assert done.returncode == 0, done.stdout
    assert fake.last_outcome() == "already_healthy"
    assert "changed=0" in done.stdout


def test_a_diagnosis_that_breaks_closes_the_run(fake: Fake) -> None:
    (fake.folder / "state").unlink()
    done = fake.run()
    assert done.returncode == 2, done.stdout
    assert "Look at the state" in outcome_line(done.stdout)
    assert fake.last_outcome() == "refused"
    assert not (fake.state_dir / "lock.json").exists()


@pytest.mark.parametrize("cause", ["healthy", "stopped", "lost"])
def test_a_dry_run_leaves_only_its_record(fake: Fake, cause: str) -> None:
    fake.cause = cause
    before = fake.digest()
    done = fake.run("--check")
    assert done.returncode == 0, done.stdout
    assert done.stdout.count("DRY RUN") >= 2
    assert fake.digest() == before
    assert len(fake.runs()) == 1
    assert all(event["dry_run"] for event in fake.runs()[0])
    assert fake.last_outcome() == ("already_healthy" if cause == "healthy" else "predicted")


def test_two_playbooks_at_once(fake: Fake, eventually: Callable[..., None]) -> None:
    fake.cause = "stopped"
    first = fake.start(fake_start_waits=True)
    eventually((fake.folder / "waiting").exists, timeout=60)
    second = fake.start()
    # The first one's next call shows life while the second one watches.
    eventually(lambda: len(fake.runs()) == 2, timeout=60)
    (fake.folder / "go_on").touch()
    output, _ = second.communicate(timeout=120)
    assert second.returncode == 2, output
    assert "another run holds this host" in outcome_line(output)
    assert fake.runs()[0][0]["run"] in outcome_line(output)
    output, _ = first.communicate(timeout=120)
    assert first.returncode == 0, output


def test_killed_with_9_in_the_middle_a_rerun_converges(fake: Fake, eventually: Callable[..., None]) -> None:
    fake.cause = "stopped"
    victim = fake.start(fake_start_waits=True, runbook_lease_seconds=3)
    eventually((fake.folder / "waiting").exists, timeout=60)
    os.killpg(victim.pid, signal.SIGKILL)
    victim.communicate(timeout=30)
    done = fake.run()
    assert done.returncode == 0, done.stdout
    assert "took over from run" in done.stdout
    assert "recovered" in outcome_line(done.stdout)
    dead, alive = fake.runs()
    assert dead[-1]["outcome"] == "abandoned"
    assert alive[-1]["outcome"] == "recovered"
    assert not (fake.state_dir / "lock.json").exists()


@pytest.mark.parametrize("limit", ["nobody", "stranger"])
def test_nobody_matched_is_a_failure(fake: Fake, tmp_path: Path, limit: str) -> None:
    inventory = tmp_path / "hosts.ini"
    inventory.write_text("[agent_hosts]\nbox ansible_connection=local\n[others]\nstranger ansible_connection=local\n")
    playbook = Path(sys.executable).with_name("ansible-playbook")
    command = [str(playbook), "-i", str(inventory), str(ROOT / "playbooks" / "recover_db.yml"), "--limit", limit]
    done = subprocess.run(command, env=fake.environment, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 1
    assert "nobody" in done.stderr or "no host matched agent_hosts" in done.stderr


def skewed_interpreter(folder: Path, days: int) -> str:
    """Return a Python for the target whose wall clock is apart from this machine's by so many days."""
    (folder / "sitecustomize.py").write_text(
        f"import time\n_now = time.time\ntime.time = lambda: _now() + {days * 86400}\n"
    )
    wrapper = folder / "python"
    wrapper.write_text(f'#!/bin/sh\nPYTHONPATH="{folder}" exec /usr/bin/python3 "$@"\n')
    wrapper.chmod(0o755)
    return str(wrapper)


@pytest.mark.parametrize("days", [400, -400])
def test_a_target_whose_clock_is_apart_from_the_controller_s(
    fake: Fake, tmp_path_factory: pytest.TempPathFactory, days: int
) -> None:
    python = skewed_interpreter(tmp_path_factory.mktemp("clock"), days)
    fake.cause = "lost"
    plan = fake.run("--check", ansible_python_interpreter=python)
    confirm = re.search(r"confirm=(\S+)", plan.stdout)
    assert confirm is not None, plan.stdout
    done = fake.run("-e", f"confirm={confirm[1]}", ansible_python_interpreter=python)
    assert done.returncode == 0, done.stdout
    assert "recovered; cause lost; remedy rebuild" in outcome_line(done.stdout)
    closed = fake.runs()[-1][-1]
    at = datetime.fromisoformat(closed["at"])
    assert abs((at - datetime.now(UTC)).total_seconds() - days * 86400) < 3600, "the clock of the target was not apart"
    assert 0 <= closed["seconds"]["total"] < 600


LONG_LOOP = """
- name: Build
  hosts: all
  gather_facts: false
  tasks:
    - name: Build the images
      ansible.builtin.command: sleep 1.2
      changed_when: false
      loop: [app, nginx, redis]
      loop_control: {extended: true, extended_allitems: false}
    - name: Look at something
      ansible.builtin.command: "true"
      changed_when: false
      loop: [quick, quicker]
      loop_control: {extended: true, extended_allitems: false}
"""


def test_a_long_loop_tells_percent_and_time_left(fake: Fake, tmp_path: Path) -> None:
    playbook = tmp_path / "build.yml"
    playbook.write_text(LONG_LOOP)
    program = Path(sys.executable).with_name("ansible-playbook")
    command = [str(program), "-i", "box,", "-c", "local", str(playbook)]
    done = subprocess.run(command, env=fake.environment, capture_output=True, text=True, check=False, timeout=120)
    found = re.findall(r"… Build the images: (\w+) (\d+) % \((\d)/3(, \d+ s left)?\)", done.stdout)
    assert [(label, percent, bool(left)) for label, percent, _, left in found] == [
        ("app", "33", True),
        ("nginx", "67", True),
        ("redis", "100", False),
    ], done.stdout
