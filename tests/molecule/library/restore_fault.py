#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Mark moments in the database, and break what a restore needs: backups, archive, key, space, clock, peace."""

from __future__ import annotations

DOCUMENTATION = r"""
module: restore_fault
short_description: Mark moments in the database, and break what a restore needs
version_added: "0.1.0"
author: whats_agent contributors (@whats-agent)
description:
  - Takes the steps in order. Uses the docker command line and files only, so that it shares no code with what it tries.
  - V(marker) commits a row outside of the agent's tables; which ones are there tells to what moment a database went back.
    V(marker_archived) does so too, switches the WAL segment, and waits until that is in the repository.
  - V(byte_flipped) turns one bit of the newest backup's biggest file over. V(segment_lost) removes a marker's segment from the
    repository, V(segments_lost) that and all later ones. V(control_file_lost) kills the server and removes its control file.
  - V(passphrase_changed), V(repository_emptied), V(disk_filled), V(volume_mounted) (by a foreign container that may write) and
    V(stamped_ahead) (the newest backup, by two hours) each have their end in V(passphrase_back), V(repository_back),
    V(disk_freed), V(volume_released) and V(stamped_back).
  - V(server_started) and V(server_restarted) do to the database's container what somebody else may do in the middle of a run.
  - V(lease_ahead) has the lease that a killed run left look younger than now.
  - V(timeline_backed_up) and V(fell_back) only look - whether WAL is archived and a backup was taken on the timeline that the
    database is on; whether the last restore gave the damaged backup up for an older one that is proven.
options:
  steps:
    description:
      - What to do, in order; the description names them.
    type: list
    elements: str
    required: true
  name:
    description: The marker's name.
    type: str
    default: ""
attributes:
  check_mode:
    description: Not supported; it is only used by tests.
    support: none
"""

EXAMPLES = r"""
- name: Commit what is to be undone
  restore_fault:
    steps: [marker]
    name: goes
"""

RETURN = r"""
volume:
  description: The data volume as .env names it.
  returned: success
  type: str
markers:
  description: The markers in the database, oldest first; empty while it cannot be asked.
  returned: success
  type: list
at:
  description: A moment right after the last marker was committed, by the database's clock.
  returned: when a marker was written
  type: str
"""

import hashlib  # noqa: E402
import json  # noqa: E402
import os  # noqa: E402
import re  # noqa: E402
import shutil  # noqa: E402
import subprocess  # noqa: E402
import time  # noqa: E402
from collections.abc import Callable  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

from ansible.module_utils.basic import AnsibleModule  # noqa: E402

STACK = Path("/opt/whats_agent")
REPOSITORY = Path("/var/backups/whats_agent/pgbackrest")
CONFIGURATION = STACK / "config" / "pgbackrest"
STATE = Path("/var/lib/whats_agent")
WORK = Path("/run/whats_agent_test/restore_fault")
KEPT = Path("/var/backups/kept_by_restore_fault")
FILLER = Path("/var/lib/docker/filler")
LEFT_BYTES = 8 * 1024 * 1024
FOREIGN = "restore_fault_foreign"
AHEAD_SECONDS = 2 * 3600
LABEL = "label=com.docker.compose.service=postgres"
SEGMENT = re.compile(r"([0-9A-F]{24})-[0-9a-f]{40}")
MARKERS = "create schema if not exists fault; create table if not exists fault.marker (name text, at timestamptz)"


class FaultError(Exception):
    """A step could not be taken."""


def run(*argv: str, feed: str | None = None) -> str:
    """Run a command; its output, or an error that says what it said."""
    done = subprocess.run(argv, check=False, capture_output=True, text=True, input=feed)
    if done.returncode != 0:
        raise FaultError(f"{' '.join(argv)}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout.strip()


def setting(name: str) -> str:
    """A value of `.env`."""
    lines = (STACK / ".env").read_text(encoding="utf-8").splitlines()
    return next(line.partition("=")[2] for line in lines if line.startswith(f"{name}="))


def wait_until(what: str, holds: Callable[[], bool], timeout: float = 60) -> None:
    """Wait until a condition holds."""
    deadline = time.monotonic() + timeout
    while not holds():
        if time.monotonic() > deadline:
            raise FaultError(f"{what}: not within {timeout:.0f} s")
        time.sleep(0.2)


def note(name: str, text: str) -> None:
    """Remember something between two calls."""
    WORK.mkdir(mode=0o700, parents=True, exist_ok=True)
    (WORK / name).write_text(text, encoding="utf-8")


def noted(name: str) -> str:
    """What was remembered."""
    return (WORK / name).read_text(encoding="utf-8")


class Faults:
    """The steps, each a method of its name."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.at: str | None = None

    def take(self, steps: list[str]) -> None:
        """Take the steps in order; one that is unknown before any of them."""
        unknown = [step for step in steps if step not in STEPS]
        if unknown:
            raise FaultError(f"there is no step {unknown[0]}, only {', '.join(STEPS)}")
        for step in steps:
            getattr(self, step)()

    # Looking ---------------------------------------------------------------------------------------------------------

    def container(self) -> str:
        """The database's container."""
        found = run(
            "docker", "ps", "--all", "--quiet", "--filter", LABEL, "--filter", "label=com.docker.compose.oneoff=False"
        )
        if len(found.split()) != 1:
            raise FaultError(f"expected one postgres container, found {found.split()}")
        return found

    def psql(self, query: str) -> str:
        """Ask the database as its superuser."""
        return run(
            "docker", "exec", self.container(), "psql", "-X", "-q", "-U", "postgres", "-d", "whats_agent", "-Atc", query
        )

    def archive(self) -> dict[str, Path]:
        """The archived segments, by name."""
        files = (REPOSITORY / "archive" / "main").rglob("*")
        return {match[1]: path for path in sorted(files) if (match := SEGMENT.match(path.name))}

    def pgbackrest(self, *argv: str, feed: str | None = None) -> str:
        """Run pgBackRest beside the database."""
        return run("docker", "exec", "--interactive", self.container(), "pgbackrest", *argv, feed=feed)

    def backups(self) -> list[dict[str, Any]]:
        """The backups as pgBackRest describes them, oldest first."""
        backups: list[dict[str, Any]] = json.loads(self.pgbackrest("--stanza=main", "--output=json", "info"))[0][
            "backup"
        ]
        return backups

    def newest_backup(self) -> dict[str, Any]:
        """The newest of them."""
        return self.backups()[-1]

    def mountpoint(self, volume: str) -> Path:
        """Where a volume lies on the host."""
        return Path(run("docker", "volume", "inspect", "--format", "{{.Mountpoint}}", volume))

    def markers(self) -> list[str]:
        """The markers in the database; none while it cannot be asked."""
        try:
            return self.psql("select name from fault.marker order by at").split()
        except FaultError:
            return []

    # Steps -----------------------------------------------------------------------------------------------------------

    def marker(self) -> None:
        """Commit a row, and tell a moment after it and before whatever comes next."""
        self.psql(f"{MARKERS}; insert into fault.marker values ('{self.name}', clock_timestamp())")  # noqa: S608  our own name
        self.at = self.psql("""select to_char(clock_timestamp() at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')""")

    def marker_archived(self) -> None:
        """Commit a row, and see the segment that holds it in the repository, complete."""
        self.marker()
        segment = self.psql("select pg_walfile_name(pg_switch_wal())")
        wait_until(f"the segment {segment} in the repository", lambda: segment in self.archive())
        note(f"segment_{self.name}", segment)

    def segment_lost(self) -> None:
        """Remove a marker's segment from the repository."""
        self.archive()[noted(f"segment_{self.name}")].unlink()

    def segments_lost(self) -> None:
        """Remove it and whatever was archived after it."""
        first = noted(f"segment_{self.name}")
        for name, path in self.archive().items():
            if name >= first:
                path.unlink()

    def byte_flipped(self) -> None:
        """Turn a bit over in the middle of the newest backup's biggest file."""
        label = self.newest_backup()["label"]
        files = [path for path in (REPOSITORY / "backup" / "main" / label).rglob("*") if path.is_file()]
        biggest = max(files, key=lambda path: path.stat().st_size)
        with biggest.open("r+b") as stream:
            middle = biggest.stat().st_size // 2
            stream.seek(middle)
            (byte,) = stream.read(1)
            stream.seek(middle)
            stream.write(bytes([byte ^ 0x10]))
            os.fsync(stream.fileno())
        note("flipped", label)

    def fell_back(self) -> None:
        """Fail unless the last restore tried the flipped backup, gave it up, and took an older one that is proven."""
        state = json.loads((STATE / "restore.json").read_text(encoding="utf-8"))
        flipped = noted("flipped")
        backups = {backup["label"]: backup for backup in self.backups()}
        if state["rejected"] != [flipped]:
            raise FaultError(f"the restore rejected {state['rejected']}, flipped was {flipped}")
        taken = backups[state["backup"]]
        if taken["timestamp"]["stop"] >= backups[flipped]["timestamp"]["stop"]:
            raise FaultError(f"the restore took {state['backup']}, which is no older than {flipped}")
        if "proven" not in (taken.get("annotation") or {}):
            raise FaultError(f"the restore took {state['backup']}, which is not proven: {taken.get('annotation')}")
        if "disproven" not in (backups[flipped].get("annotation") or {}):
            raise FaultError(f"the backup {flipped} is not marked: {backups[flipped].get('annotation')}")

    def control_file_lost(self) -> None:
        """Kill the server, so that it writes no checkpoint, and remove its control file."""
        run("docker", "kill", "--signal", "KILL", self.container())
        (self.mountpoint(setting("DB_VOLUME")) / "global" / "pg_control").unlink()

    def passphrase_changed(self) -> None:
        """Give pgBackRest another passphrase."""
        shutil.copytree(CONFIGURATION, KEPT / "pgbackrest")
        for path in CONFIGURATION.rglob("*.conf"):
            text = path.read_text(encoding="utf-8")
            path.write_text(re.sub(r"(?m)^(repo1-cipher-pass *= *).*", r"\1not-the-passphrase", text), encoding="utf-8")

    def passphrase_back(self) -> None:
        """Take that back."""
        for path in CONFIGURATION.rglob("*.conf"):
            kept = KEPT / "pgbackrest" / path.relative_to(CONFIGURATION)
            path.write_text(kept.read_text(encoding="utf-8"), encoding="utf-8")
        shutil.rmtree(KEPT)

    def repository_emptied(self) -> None:
        """Leave nothing in the repository."""
        KEPT.mkdir(mode=0o700)
        for path in REPOSITORY.iterdir():
            path.rename(KEPT / path.name)

    def repository_back(self) -> None:
        """Take that back."""
        for path in REPOSITORY.iterdir():
            shutil.rmtree(path)
        for path in KEPT.iterdir():
            path.rename(REPOSITORY / path.name)
        KEPT.rmdir()

    def disk_filled(self) -> None:
        """Leave next to nothing free where volumes lie."""
        disk = os.statvfs(FILLER.parent)
        with FILLER.open("wb") as stream:
            os.posix_fallocate(stream.fileno(), 0, disk.f_bavail * disk.f_frsize - LEFT_BYTES)

    def disk_freed(self) -> None:
        """Take that back."""
        FILLER.unlink()

    def volume_mounted(self) -> None:
        """Mount the data volume in a container that is none of the stack's, and may write to it."""
        image = run("docker", "inspect", "--format", "{{.Config.Image}}", self.container())
        volume = f"{setting('DB_VOLUME')}:/data"
        run(
            "docker",
            "run",
            "--detach",
            "--name",
            FOREIGN,
            "--volume",
            volume,
            "--entrypoint",
            "sleep",
            image,
            "infinity",
        )

    def volume_released(self) -> None:
        """Take that back."""
        run("docker", "rm", "--force", FOREIGN)

    def server_started(self) -> None:
        """Start the container that the restore has stopped, on the volume that it replaces."""
        container = self.container()
        run("docker", "start", container)
        wait_until("a start", lambda: "t" in self.psql_or_nothing("select not pg_is_in_recovery()"))

    def server_restarted(self) -> None:
        """Restart the container that the restore has started."""
        run("docker", "restart", self.container())

    def psql_or_nothing(self, query: str) -> str:
        """Ask the database, which may not answer yet."""
        try:
            return self.psql(query)
        except FaultError:
            return ""

    def stamped_ahead(self) -> None:
        """Have the newest backup say that it was taken two hours from now, as on a server whose clock was ahead."""
        label = self.newest_backup()["label"]
        now = int(time.time())
        for name in ("backup.info", "backup.info.copy"):
            told = self.pgbackrest("repo-get", f"backup/main/{name}")
            note(name, told)
            self.pgbackrest("repo-put", f"backup/main/{name}", feed=stamped(told, label, now + AHEAD_SECONDS))
        if self.newest_backup()["timestamp"]["stop"] <= now:
            raise FaultError(f"pgBackRest still says that {label} was taken in the past")

    def stamped_back(self) -> None:
        """Take that back, for that backup only: others may have come to it."""
        kept = backup_entry(noted("backup.info"), self.stamped_label())
        for name in ("backup.info", "backup.info.copy"):
            told = self.pgbackrest("repo-get", f"backup/main/{name}")
            stop = kept["backup-timestamp-stop"]
            self.pgbackrest("repo-put", f"backup/main/{name}", feed=stamped(told, self.stamped_label(), stop))

    def stamped_label(self) -> str:
        """The backup that was stamped ahead."""
        labels: list[str] = re.findall(r"(?m)^(\d{8}-\d{6}F\S*?)=", noted("backup.info"))
        return labels[-1]

    def lease_ahead(self) -> None:
        """Move the lease that a killed run left two hours ahead."""
        path = STATE / "lock.json"
        lease = json.loads(path.read_text(encoding="utf-8"))
        lease["since"] = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + AHEAD_SECONDS))
        path.write_text(json.dumps(lease), encoding="utf-8")

    def container_recreated(self) -> None:
        """Replace the database's container by another on the same volume."""
        compose = ("docker", "compose", "--project-directory", str(STACK))
        run(*compose, "up", "--detach", "--wait", "--force-recreate", "--no-deps", "postgres")

    def timeline_backed_up(self) -> None:
        """Fail unless WAL and a backup of the present timeline are in the repository."""
        timeline = self.psql("select pg_walfile_name(pg_current_wal_lsn())")[:8]
        stop = self.newest_backup()["archive"]["stop"]
        if not stop.startswith(timeline):
            raise FaultError(f"the newest backup ends at {stop}, the database is on timeline {timeline}")
        if not any(name.startswith(timeline) for name in self.archive()):
            raise FaultError(f"no segment of timeline {timeline} is archived")


def backup_entry(info: str, label: str) -> dict[str, Any]:
    """What backup.info says of a backup."""
    line = next(line for line in info.splitlines() if line.startswith(f"{label}="))
    entry: dict[str, Any] = json.loads(line.partition("=")[2])
    return entry


def stamped(info: str, label: str, stop: int) -> str:
    """Return backup.info with another end of a backup, and with the checksum that pgBackRest wants to see."""
    entry = backup_entry(info, label)
    entry["backup-timestamp-start"] += stop - entry["backup-timestamp-stop"]
    entry["backup-timestamp-stop"] = stop
    told = json.dumps(entry, separators=(",", ":"), sort_keys=True)
    lines = [f"{label}={told}" if line.startswith(f"{label}=") else line for line in info.splitlines()]
    checksum = f'backrest-checksum="{info_checksum(lines)}"'
    return "\n".join(checksum if line.startswith("backrest-checksum=") else line for line in lines) + "\n"


def info_checksum(lines: list[str]) -> str:
    """Sum an info file up as pgBackRest does: as one JSON object of its sections, less the checksum itself."""
    sections: dict[str, list[str]] = {}
    for line in lines:
        if line.startswith("["):
            entries = sections.setdefault(line.strip("[]"), [])
        elif line and not line.startswith("backrest-checksum="):
            key, _, value = line.partition("=")
            entries.append(f'"{key}":{value}')
    told = ",".join(f'"{name}":{{{",".join(entries)}}}' for name, entries in sections.items())
    return hashlib.sha1(f"{{{told}}}".encode(), usedforsecurity=False).hexdigest()


# Those methods that take nothing and only do something.
STEPS = [name for name, value in vars(Faults).items() if getattr(value, "__annotations__", None) == {"return": "None"}]


def main() -> None:
    """Take the steps."""
    module = AnsibleModule(
        argument_spec={
            "steps": {"type": "list", "elements": "str", "required": True},
            "name": {"type": "str", "default": ""},
        },
        supports_check_mode=False,
    )
    params = module.params
    faults = Faults(params["name"])
    volume = setting("DB_VOLUME")
    try:
        faults.take(params["steps"])
        markers = faults.markers()
    except (FaultError, OSError, ValueError) as error:
        module.fail_json(msg=f"cannot take the steps: {error}")
    module.exit_json(changed=bool(params["steps"]), volume=volume, markers=markers, at=faults.at)


if __name__ == "__main__":
    main()
