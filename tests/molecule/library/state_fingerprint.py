#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Prove that a run changed nothing on a server: take its state before, hold it against the state after."""

from __future__ import annotations

DOCUMENTATION = r"""
module: state_fingerprint
short_description: Prove that nothing on a server changed
version_added: "0.1.0"
author: whats_agent contributors (@whats-agent)
description:
  - Takes a server's whole state, or compares it with one taken before and fails with every difference.
  - Covers files (content, owner, mode, modification time), containers, volumes (names, labels and, where no running
    container writes them, each file's content), networks, images, systemd units, PostgreSQL's rows, Redis's keys and settings.
  - Uses only the docker command line and Python's standard library, so that it shares no code with what it judges.
options:
  state:
    description: V(taken) writes the state to O(path); V(unchanged) compares with what is there.
    type: str
    choices: [taken, unchanged]
    required: true
  path:
    description: Where the state is kept on the server, outside of O(roots).
    type: path
    default: /run/whats_agent_test/fingerprint.json
  roots:
    description: Folders whose files must not change.
    type: list
    elements: path
    default: [/etc, /opt, /usr/local, /root, /var/lib/whats_agent, /var/backups, /var/spool]
  may_grow:
    description:
      - Patterns of files that running services append to by themselves. What was in them must still be there, at the
        same place; new files may appear.
    type: list
    elements: str
    default: [/opt/whats_agent/logs/*, /var/backups/whats_agent/pgbackrest/archive/*]
  ignore:
    description: Patterns of files that the connection itself or sockets leave behind.
    type: list
    elements: str
    default: [/root/.ansible/*, /root/.ssh/*, /opt/whats_agent/run/*, "*/postmaster.pid"]
  run_records:
    description: Folder where a dry run may write its own record, and nothing else. Each line must say that it is one.
    type: path
    default: /var/lib/whats_agent/runs
  database:
    description: The database whose rows are held.
    type: str
    default: whats_agent
attributes:
  check_mode:
    description: Looks the same in check mode.
    support: full
"""

EXAMPLES = r"""
- name: Take the server's state
  state_fingerprint:
    state: taken

- name: See that nothing changed
  state_fingerprint:
    state: unchanged
"""

RETURN = r"""
counts:
  description: How many things of each kind were taken or compared.
  returned: success
  type: dict
  sample: {files: 812, containers: 7, volumes: 4}
differences:
  description: One sentence per difference.
  returned: when O(state=unchanged)
  type: list
  elements: str
"""

import fnmatch  # noqa: E402
import hashlib  # noqa: E402
import json  # noqa: E402
import os  # noqa: E402
import stat  # noqa: E402
import subprocess  # noqa: E402
import time  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

from ansible.module_utils.basic import AnsibleModule  # noqa: E402

State = dict[str, dict[str, Any]]

# Each table's rows as one digest; of a table that cannot be read (a damaged page), the error, which must stay the same.
TABLES = (
    "select format('%I.%I', schemaname, tablename) from pg_tables "
    "where schemaname not in ('pg_catalog', 'information_schema') order by 1"
)
# Redis's keys, each as a digest over name and serialised value and the time at which it expires (ms, -1 for never).
KEYS = (
    "local lines = {} for _, key in ipairs(redis.call('KEYS', '*')) do "
    "lines[#lines + 1] = redis.sha1hex(key .. redis.call('DUMP', key)) .. ' ' .. redis.call('PEXPIRETIME', key) end return lines"
)
REDIS_SETTINGS = ("maxmemory", "maxmemory-policy", "save", "appendonly", "requirepass")
REDIS_SECONDS = 10
ROWS = "select count(*) || ' rows ' || md5(coalesce(string_agg(t::text, E'\\n' order by t::text), '')) from {table} t"


class FingerprintError(Exception):
    """The state could not be taken."""


def matches(path: str, patterns: list[str]) -> bool:
    """Tell whether a path matches a pattern; `*` crosses folders."""
    return any(fnmatch.fnmatchcase(path, pattern) for pattern in patterns)


def digest(path: Path, size: int | None = None) -> str:
    """SHA-256 of a file's first `size` bytes, of the whole file without."""
    sha = hashlib.sha256()
    left = size
    with path.open("rb") as stream:
        while left is None or left > 0:
            chunk = stream.read(1 << 20 if left is None else min(left, 1 << 20))
            if not chunk:
                break
            sha.update(chunk)
            if left is not None:
                left -= len(chunk)
    return sha.hexdigest()


def describe_file(path: Path) -> dict[str, Any] | None:
    """Describe one file; None when it went away meanwhile. Modification times of folders are left out."""
    try:
        info = path.lstat()
        entry: dict[str, Any] = {"mode": stat.filemode(info.st_mode), "owner": f"{info.st_uid}:{info.st_gid}"}
        if stat.S_ISLNK(info.st_mode):
            entry["target"] = str(path.readlink())
        elif stat.S_ISREG(info.st_mode):
            entry.update(size=info.st_size, mtime=info.st_mtime_ns, sha256=digest(path, info.st_size))
    except FileNotFoundError:
        return None
    return entry


def walk(root: Path, ignore: list[str]) -> dict[str, dict[str, Any]]:
    """Describe everything below a folder, the folder itself included."""
    found: dict[str, dict[str, Any]] = {}
    if not root.exists():
        return found
    for folder, folders, files in os.walk(root):
        for name in [".", *folders, *files]:
            path = Path(folder, name)
            if matches(str(path), ignore):
                continue
            entry = describe_file(path)
            if entry is not None:
                found[str(path)] = entry
    return found


def run(*argv: str) -> str:
    """Run a command that must succeed and return its output."""
    done = subprocess.run(argv, check=False, capture_output=True, text=True)
    if done.returncode != 0:
        raise FingerprintError(f"{' '.join(argv[:4])}: exit {done.returncode}: {done.stderr.strip()}")
    return done.stdout


def docker_objects(kind: str, *list_options: str) -> list[dict[str, Any]]:
    """Inspect all Docker objects of one kind."""
    names = run("docker", kind, "ls", "--quiet", *list_options).split()
    objects: list[dict[str, Any]] = json.loads(run("docker", kind, "inspect", *sorted(set(names)))) if names else []
    return objects


def describe_container(raw: dict[str, Any]) -> dict[str, Any]:
    """Keep of `docker inspect` what no container changes by itself while it just runs."""
    state = raw["State"]
    mounts = sorted(raw["Mounts"], key=lambda mount: mount["Destination"])  # docker gives them in any order
    return {
        "id": raw["Id"],
        "image": raw["Image"],
        "created": raw["Created"],
        "configuration": hashlib.sha256(
            json.dumps([raw["Config"], raw["HostConfig"], mounts], sort_keys=True).encode()
        ).hexdigest(),
        "networks": sorted(raw["NetworkSettings"]["Networks"]),
        "status": state["Status"],
        "paused": state["Paused"],
        "exit_code": state["ExitCode"],
        "started": state["StartedAt"],
        "restarts": raw["RestartCount"],
    }


def settle_crash_loop(before: dict[str, Any], after: dict[str, Any]) -> dict[str, Any]:
    """Forgive a container what Docker's own restart policy did to it in between; a start by hand resets the count."""
    if 0 < before["restarts"] <= after["restarts"] and before["id"] == after["id"]:
        return {**after, **{key: before[key] for key in ("status", "exit_code", "started", "restarts")}}
    return after


def written_volumes(containers: list[dict[str, Any]]) -> set[str]:
    """Names of the volumes that a running container may write to at this moment.

    A paused one cannot; one in a crash loop never gets as far, so that its volume is held byte by byte.
    """
    return {
        mount["Name"]
        for raw in containers
        if raw["State"]["Running"] and not raw["State"]["Paused"] and not raw["RestartCount"]
        for mount in raw["Mounts"]
        if mount["Type"] == "volume" and mount["RW"]
    }


def database_rows(containers: list[dict[str, Any]], database: str) -> dict[str, Any]:
    """Digest of each table's rows over a plain psql; empty while PostgreSQL does not run, or only now and then.

    Whatever is not read here is held byte by byte as a volume (see written_volumes).
    """
    running = [
        raw["Id"]
        for raw in containers
        if raw["State"]["Status"] == "running"
        and not raw["RestartCount"]
        and (raw["Config"]["Labels"] or {}).get("com.docker.compose.service") == "postgres"
    ]
    if not running:
        return {}
    psql = ("docker", "exec", running[0], "psql", "-X", "-U", "postgres", "-d", database, "-At", "-c")
    listed = subprocess.run([*psql, TABLES], check=False, capture_output=True, text=True)
    if listed.returncode != 0:
        return {"(cannot connect)": {"rows": "none"}}
    rows: dict[str, Any] = {}
    for table in listed.stdout.split():
        read = subprocess.run([*psql, ROWS.format(table=table)], check=False, capture_output=True, text=True)
        rows[table] = {"rows": (read.stdout if read.returncode == 0 else read.stderr).strip()}
    return rows


def redis_keys(containers: list[dict[str, Any]]) -> dict[str, Any]:
    """Redis's keys and settings over redis-cli in its container; empty while it does not run, or only now and then.

    Where it does not answer, that has to stay so.
    """
    running = [
        raw["Id"]
        for raw in containers
        if raw["State"]["Running"]
        and not raw["State"]["Paused"]
        and not raw["RestartCount"]
        and (raw["Config"]["Labels"] or {}).get("com.docker.compose.service") == "redis"
    ]
    found: dict[str, Any] = {}
    if not running:
        return found
    cli = ("docker", "exec", running[0], "timeout", str(REDIS_SECONDS), "redis-cli")
    asked = subprocess.run([*cli, "EVAL_RO", KEYS, "0"], check=False, capture_output=True, text=True)
    found["answer"] = {"exit": asked.returncode}
    for line in asked.stdout.splitlines():
        digest_of, _, expires = line.partition(" ")
        found[f"key {digest_of}"] = {"expires": int(expires) if expires.lstrip("-").isdigit() else expires}
    for name in REDIS_SETTINGS:
        asked = subprocess.run([*cli, "CONFIG", "GET", name], check=False, capture_output=True, text=True)
        # A digest, since one of the settings is the password.
        found[name] = {"said": hashlib.sha256(asked.stdout.encode()).hexdigest(), "exit": asked.returncode}
    return found


def take(roots: list[str], ignore: list[str], database: str) -> State:
    """Take the server's whole state."""
    containers = docker_objects("container", "--all")
    volumes = docker_objects("volume")
    busy = written_volumes(containers)
    files: dict[str, Any] = {}
    for root in roots:
        files.update(walk(Path(root), ignore))
    contents: dict[str, Any] = {}
    for volume in volumes:
        if volume["Name"] not in busy:
            contents.update(walk(Path(volume["Mountpoint"]), ignore))
    units = run("systemctl", "list-unit-files", "--no-legend", "--plain", "--no-pager")
    return {
        "containers": {raw["Name"].lstrip("/"): describe_container(raw) for raw in containers},
        "files": files,
        "images": {raw["Id"]: {"tags": sorted(raw["RepoTags"] or [])} for raw in docker_objects("image")},
        "networks": {raw["Name"]: {"id": raw["Id"]} for raw in docker_objects("network")},
        "redis": redis_keys(containers),
        "rows": database_rows(containers, database),
        "units": {line.split()[0]: {"enabled": line.split()[1]} for line in units.splitlines() if line.strip()},
        "volume_files": contents,
        "volumes": {
            raw["Name"]: {"created": raw["CreatedAt"], "labels": raw["Labels"], "busy": raw["Name"] in busy}
            for raw in volumes
        },
    }


def expired(entry: dict[str, Any]) -> bool:
    """Tell whether a key of Redis went because its time had come."""
    expires = entry.get("expires")
    return isinstance(expires, int) and 0 < expires <= time.time() * 1000


def grew(path: str, before: dict[str, Any]) -> bool:
    """Tell whether a file still begins with all that it held."""
    file = Path(path)
    return (
        "sha256" in before
        and file.is_file()
        and file.stat().st_size >= before["size"]
        and digest(file, before["size"]) == before["sha256"]
    )


def is_dry_run_record(path: Path, records: Path) -> bool:
    """Tell whether a new file is a run's record of which every line says that the run was dry, or the folder of those."""
    if path == records:
        return True
    if path.parent != records:
        return False
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return bool(lines) and all(line.get("dry_run") is True for line in lines)


def compare(before: State, after: State, may_grow: list[str], run_records: str) -> list[str]:
    """Name every difference that a run which changes nothing cannot explain."""
    differences: list[str] = []
    for kind in sorted(before):
        old, new = before[kind], after[kind]
        for name in sorted(old.keys() | new.keys()):
            label = f"{kind}: {name}"
            growing = kind == "files" and matches(name, may_grow)
            if name not in new:
                if kind == "redis" and expired(old[name]):
                    continue
                differences.append(f"{label} is gone")
            elif name not in old:
                record = kind == "files" and is_dry_run_record(Path(name), Path(run_records))
                if not growing and not record:
                    differences.append(f"{label} is new")
            else:
                entry = settle_crash_loop(old[name], new[name]) if kind == "containers" else new[name]
                changed = [key for key in old[name] if old[name][key] != entry.get(key)]
                if changed and not (growing and grew(name, old[name])):
                    told = ", ".join(f"{key} {old[name][key]!r} -> {entry.get(key)!r}" for key in changed)
                    differences.append(f"{label} changed: {told}")
    return differences


def main() -> None:
    """Take or compare."""
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": ["taken", "unchanged"], "required": True},
            "path": {"type": "path", "default": "/run/whats_agent_test/fingerprint.json"},
            "roots": {
                "type": "list",
                "elements": "path",
                "default": [
                    "/etc",
                    "/opt",
                    "/usr/local",
                    "/root",
                    "/var/lib/whats_agent",
                    "/var/backups",
                    "/var/spool",
                ],
            },
            "may_grow": {
                "type": "list",
                "elements": "str",
                "default": ["/opt/whats_agent/logs/*", "/var/backups/whats_agent/pgbackrest/archive/*"],
            },
            "ignore": {
                "type": "list",
                "elements": "str",
                "default": ["/root/.ansible/*", "/root/.ssh/*", "/opt/whats_agent/run/*", "*/postmaster.pid"],
            },
            "run_records": {"type": "path", "default": "/var/lib/whats_agent/runs"},
            "database": {"type": "str", "default": "whats_agent"},
        },
        supports_check_mode=True,
    )
    params = module.params
    path = Path(params["path"])
    try:
        current = take(params["roots"], params["ignore"], params["database"])
    except FingerprintError as error:
        module.fail_json(msg=f"cannot take the server's state: {error}")
    counts = {kind: len(entries) for kind, entries in current.items()}
    if params["state"] == "taken":
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.write_text(json.dumps(current), encoding="utf-8")
        module.exit_json(changed=False, counts=counts)
    before: State = json.loads(path.read_text(encoding="utf-8"))
    differences = compare(before, current, params["may_grow"], params["run_records"])
    if differences:
        shown = "; ".join(differences[:20])
        module.fail_json(msg=f"{len(differences)} differences: {shown}", differences=differences)
    module.exit_json(changed=False, counts=counts, differences=[])


if __name__ == "__main__":
    main()
