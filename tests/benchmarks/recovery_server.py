# SPDX-License-Identifier: GPL-3.0-or-later
"""The throwaway server that the recovery benchmark breaks: made as Molecule's, with the stack on it, removed at the end."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
INVENTORY = ROOT / "tests/molecule/inventory/hosts.yml"
LIFECYCLE = ROOT / "tests/molecule/lifecycle"
MODULES = ROOT / "tests/molecule/library"
DOCKER_DISK = Path("/var/lib/docker")
POSTGRES = "label=com.docker.compose.service=postgres"
SERVICE_ONLY = "label=com.docker.compose.oneoff=False"
COMMAND_LIMIT_S = 3600.0
PROBLEM_LINES = 40
RESTORE_STATE = "/var/lib/whats_agent/restore.json"


class BenchmarkError(Exception):
    """Something the benchmark needs is not there or failed; the text says what and what to do."""


@dataclass(frozen=True)
class Ran:
    """One ansible command: when it was begun and ended (CLOCK_MONOTONIC, as everything here), and whether it changed."""

    began: float
    ended: float
    changed: int
    ok: bool
    output: str

    @property
    def seconds(self) -> float:
        return self.ended - self.began


def need_space(gigabytes: float) -> None:
    """Raise when Docker's disk cannot hold what the benchmark makes."""
    folder = DOCKER_DISK
    if shutil.which("docker"):
        told = subprocess.run(
            ["docker", "info", "--format", "{{.DockerRootDir}}"], check=False, capture_output=True, text=True
        )
        folder = Path(told.stdout.strip() or DOCKER_DISK)
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free / 1e9
    if free < gigabytes:
        raise BenchmarkError(
            f"{gigabytes:.0f} GB of free disk are needed at {folder}, where Docker keeps its data, and {free:.1f} GB are "
            "free: free some, or measure only the small size with --quick"
        )


def changes(output: str) -> int:
    """Read `changed=N` of the one host from the recap that Ansible's own callback prints."""
    found = re.search(r"\bchanged=(\d+) +unreachable=", output)
    return int(found[1]) if found else 0


def _run_group(argv: list[str], environment: dict[str, str]) -> tuple[int, str]:
    """Run a command of the project to its end; when that is not waited for, nothing of it is left at work."""
    process = subprocess.Popen(
        argv,
        cwd=ROOT,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        output, _ = process.communicate(timeout=COMMAND_LIMIT_S)
    except BaseException:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        raise
    return process.returncode, output


class Server:
    """One server by name; `work` keeps its keys and logs."""

    def __init__(self, name: str, work: Path) -> None:
        self.name = name
        self.work = work
        # Ansible's own callback for its recap; the operator's prints less and does not take longer.
        self._environment = {
            **os.environ,
            "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
            "ANSIBLE_STDOUT_CALLBACK": "ansible.builtin.default",
            "ANSIBLE_NOCOLOR": "1",
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "WHATS_AGENT_TEST_SERVER": name,
        }

    # Commands --------------------------------------------------------------------------------------------------------

    def ansible(self, *argv: str, check: bool = True) -> Ran:
        """Run an ansible command of the project against this server; its output goes into the benchmark's log."""
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        began = time.monotonic()
        code, output = _run_group([*argv, "-e", f"server_work_dir={self.work}"], self._environment)
        ran = Ran(began, time.monotonic(), changes(output), code == 0, output)
        with (self.work / "ansible.log").open("a", encoding="utf-8") as log:
            now = resource.getrusage(resource.RUSAGE_CHILDREN)
            cpu = now.ru_utime + now.ru_stime - used.ru_utime - used.ru_stime
            log.write(
                f"$ {' '.join(argv)}  # {ran.seconds:.1f} s, {cpu:.1f} s of CPU here, exit code {code}\n{output}\n"
            )
        if check and not ran.ok:
            tail = "\n".join(output.splitlines()[-PROBLEM_LINES:])
            raise BenchmarkError(f"{' '.join(argv)} failed with exit code {code}:\n{tail}")
        return ran

    def playbook(self, path: str | Path, *arguments: str, check: bool = True) -> Ran:
        """Run a playbook as an operator would."""
        return self.ansible("ansible-playbook", "-i", str(INVENTORY), str(path), *arguments, check=check)

    def run(self, *argv: str, stdin: str | None = None) -> str:
        """Run a command on the server, not through Ansible or ssh; return its output."""
        done = subprocess.run(
            ["docker", "exec", "--interactive", self.name, *argv],
            check=False,
            capture_output=True,
            text=True,
            input=stdin,
            timeout=COMMAND_LIMIT_S,
        )
        if done.returncode != 0:
            said = (done.stderr.strip() or done.stdout.strip()).splitlines()[-PROBLEM_LINES:]
            raise BenchmarkError(
                f"{' '.join(argv)[:200]} on {self.name}: exit code {done.returncode}: " + "\n".join(said)
            )
        return done.stdout

    def start(self, *argv: str, script: str) -> subprocess.Popen[str]:
        """Start a command on the server that reads a script; its output is read by the caller."""
        process = subprocess.Popen(
            ["docker", "exec", "--interactive", self.name, *argv],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert process.stdin is not None
        process.stdin.write(script)
        process.stdin.close()
        process.stdin = None
        return process

    def kill_restore(self, steps: frozenset[str]) -> None:
        """Begin a recovery, and kill it here and on the server once its restore's last finished step is one of these."""
        self.run("rm", "--force", RESTORE_STATE)  # an earlier one's, which has ended
        interrupted = {
            "argv": [
                "ansible-playbook",
                "-i",
                str(INVENTORY),
                "playbooks/recover_db.yml",
                "-e",
                f"server_work_dir={self.work}",
            ],
            "watch": ["docker", "exec", self.name, "cat", RESTORE_STATE],
            "pattern": f'"step": "({"|".join(sorted(steps))})"',
            "chdir": str(ROOT),
        }
        where = ("ansible", "localhost", "-i", str(INVENTORY), "-M", str(MODULES))
        self.ansible(*where, "-m", "interrupted_playbook", "-a", json.dumps(interrupted))
        # What it had running there lives on without it; in the containers nothing is touched.
        self.run("sh", "-c", "pkill -KILL --euid root --exact python3 --ns 1 --nslist pid || [ $? -eq 1 ]")

    # The stack on it -------------------------------------------------------------------------------------------------

    def postgres(self) -> str:
        """The id of the stack's database container; it must exist."""
        found = self.run("docker", "ps", "--all", "--quiet", "--filter", POSTGRES, "--filter", SERVICE_ONLY).split()
        if len(found) != 1:
            raise BenchmarkError(f"expected one postgres container on {self.name}, found {found}")
        return found[0]

    def sql(self, query: str) -> str:
        """Run SQL with a plain psql in the database's container; unaligned tuples."""
        psql = ("psql", "-X", "-q", "-U", "postgres", "-d", "whats_agent", "-At", "-v", "ON_ERROR_STOP=1")
        return self.run("docker", "exec", "--interactive", self.postgres(), *psql, stdin=query).strip()

    def env(self) -> dict[str, str]:
        """The stack's settings; secrets among them, so never printed."""
        lines = self.run("cat", "/opt/whats_agent/.env").splitlines()
        return dict(line.split("=", 1) for line in lines if "=" in line and not line.startswith("#"))

    def address(self) -> str:
        return (self.work / "address").read_text(encoding="utf-8").strip()

    def last_run(self) -> dict[str, Any]:
        """How the newest run ended, as its journal has it; `waited` is how many seconds it waited for a dead one's lease."""
        journals = self.run("sh", "-c", "ls /var/lib/whats_agent/runs/*.jsonl").split()
        events = [json.loads(line) for line in self.run("cat", max(journals)).splitlines()]
        # Word of it may have been sent afterwards.
        closed: list[dict[str, Any]] = [event for event in events if event["event"] == "close"]
        if not closed:
            raise BenchmarkError(f"the run {max(journals)} has not ended: its last line is {events[-1]['event']}")
        begun = {event["event"]: float(event["boot"]) for event in events if event["event"] in {"open", "takeover"}}
        return {**closed[-1], "waited": begun.get("takeover", begun["open"]) - begun["open"]}

    def settle_restore(self) -> None:
        """After a restore: remove the old volumes, since the next case needs the room, and prove a new backup.

        As the timers do in the night after: only what is proven is restored, and the bare tool takes the newest.
        """
        self._remove_old_volumes()
        self.playbook("playbooks/backup.yml", "-e", "prove=true", "-e", "archive=false")

    def _remove_old_volumes(self) -> None:
        used = self.env()["DB_VOLUME"]
        for volume in self.run(
            "docker", "volume", "ls", "--quiet", "--filter", "label=whats_agent.role=pgdata"
        ).split():
            if volume != used:
                self.run("docker", "volume", "rm", volume)

    # Lifecycle -------------------------------------------------------------------------------------------------------

    def exists(self) -> bool:
        return subprocess.run(["docker", "inspect", self.name], check=False, capture_output=True).returncode == 0

    def create(self) -> None:
        """Make the server and put the stack on it. The images are built first where that has not been done."""
        self.ansible("ansible-playbook", "-i", "inventories/local", "playbooks/build.yml")
        self.playbook(LIFECYCLE / "create.yml")
        self.playbook("playbooks/deploy.yml")
        # A backup that a timer begins meanwhile would hold the lock and be measured with.
        self.run("systemctl", "stop", "whats_agent_backup_*.timer")

    def destroy(self) -> None:
        self.playbook(LIFECYCLE / "destroy.yml")


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


@contextlib.contextmanager
def throwaway(name: str, *, keep: bool) -> Iterator[Server]:
    """A server with the stack, removed at the end, after Ctrl-C and SIGTERM as well; `keep` leaves it and uses one left."""
    work = ROOT / ".cache/benchmark" / name
    work.mkdir(parents=True, exist_ok=True, mode=0o700)
    with (work.parent / f"{name}.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BenchmarkError(
                f"another benchmark uses {name}: wait for it, or choose another name with WHATS_AGENT_TEST_SERVER"
            ) from None
        server = Server(name, work)
        # Both, also where whoever started it had them ignored, as a shell does for what it puts into the background.
        signal.signal(signal.SIGINT, _interrupt)
        signal.signal(signal.SIGTERM, _interrupt)
        try:
            if server.exists() and not keep:
                server.destroy()  # left behind by a run that was killed
            server.create()
            yield server
        finally:
            # A second Ctrl-C must not leave half of it.
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            if keep:
                print(f"{name} is left running: remove it with `docker rm -f {name}; docker volume rm {name}-disk`")
            else:
                if (work / "ansible.log").exists():
                    (work / "ansible.log").replace(work.parent / "ansible.log")
                server.destroy()
                shutil.rmtree(work)
            signal.signal(signal.SIGINT, signal.default_int_handler)
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
