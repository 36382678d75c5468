#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Break the stack's configuration for real, and compare it with what it was."""

from __future__ import annotations

DOCUMENTATION = r"""
module: config_fault
short_description: Break the stack's configuration for real, and compare it with what it was
version_added: "0.1.0"
author: whats_agent contributors (@whats-agent)
description:
  - V(noted) remembers every configuration file's bytes, owner and mode, and each container's environment and volume.
  - V(broken) does O(faults). Secrets it puts in begin with C(PLANTED), so that a leak can be looked for.
  - V(compared) fails unless all is as it was noted, containers' environment by docker's own word, and when a secret, noted or
    planted, stands in a run's journal, in the system's journal, in a copy of the configuration, or in O(output).
options:
  state:
    description: What to do.
    type: str
    choices: [noted, broken, compared]
    required: true
  faults:
    description:
      - How to break it, in this order. V(secrets_back) undoes V(secrets_lost).
      - Of V(env_missing), V(env_weak_secret), V(env_edited), V(compose_refused), V(nginx_refused), V(services_refused),
        V(key_of_another), V(attributes), V(everything), V(other_volume), V(running_otherwise), V(running_only),
        V(copies_lost), V(secrets_lost), V(secrets_back).
    type: list
    elements: str
    default: []
  output:
    description: Text in which no secret may stand, besides the server's own records.
    type: str
    default: ""
  stack_dir:
    description: Where the stack lies.
    type: path
    default: /opt/whats_agent
  notes:
    description: Where it is remembered.
    type: path
    default: /run/whats_agent_test/configuration.json
attributes:
  check_mode:
    description: Not supported; it is only used by tests.
    support: none
"""

EXAMPLES = r"""
- name: Lose the settings
  config_fault:
    state: broken
    faults: [env_missing]
"""

RETURN = r"""
files:
  description: How many files are remembered.
  returned: success
  type: int
"""

import hashlib  # noqa: E402
import json  # noqa: E402
import os  # noqa: E402
import re  # noqa: E402
import shutil  # noqa: E402
import subprocess  # noqa: E402
from collections.abc import Callable  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

from ansible.module_utils.basic import AnsibleModule  # noqa: E402

SECRETS = Path("/var/lib/whats_agent/secrets")
HIDDEN_SECRETS = Path("/run/whats_agent_test/secrets")
COPIES = Path("/var/backups/whats_agent/config")
RUNS = Path("/var/lib/whats_agent/runs")
PLANTED = "PLANTED" + "0123456789abcdefXYZ"
SECRET_NAMES = re.compile(r"PASSWORD|TOKEN|SECRET|KEY")


class FaultError(Exception):
    """It could not be broken, or is not as it was."""


def run(*argv: str) -> str:
    """Run a command; its output, or an error that says what it said."""
    done = subprocess.run(argv, check=False, capture_output=True, text=True)
    if done.returncode != 0:
        raise FaultError(f"{' '.join(argv)}: {done.stderr.strip()}")
    return done.stdout


def look(stack: Path) -> dict[str, Any]:
    """All configuration files and all containers, as they are."""
    paths = [stack / ".env", stack / "compose.yml", *(stack / "config").rglob("*"), *(stack / "certs").rglob("*")]
    files = {}
    for path in sorted(paths):
        status = path.lstat()
        digest = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "folder"
        files[str(path)] = [digest, oct(status.st_mode), status.st_uid, status.st_gid]
    ids = run("docker", "ps", "--quiet", "--filter", "label=com.docker.compose.project=whats_agent").split()
    containers: dict[str, Any] = {}
    for found in json.loads(run("docker", "inspect", *ids)) if ids else []:
        service = found["Config"]["Labels"]["com.docker.compose.service"]
        environment = hashlib.sha256("\n".join(sorted(found["Config"]["Env"])).encode()).hexdigest()
        mounts = sorted(f"{m['Destination']}={m.get('Name') or m.get('Source')}" for m in found["Mounts"])
        containers.setdefault(service, []).append([found["Config"]["Image"], environment, mounts])
    return {"files": files, "containers": {name: sorted(found) for name, found in sorted(containers.items())}}


def note(stack: Path, notes: Path) -> int:
    """Remember it, and the secrets that must not appear anywhere."""
    seen = look(stack)
    lines = (stack / ".env").read_text(encoding="utf-8").splitlines()
    pairs = [line.split("=", 1) for line in lines if "=" in line and not line.startswith("#")]
    seen["secrets"] = [value for name, value in pairs if SECRET_NAMES.search(name)] + [PLANTED]
    notes.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    notes.write_text(json.dumps(seen), encoding="utf-8")
    notes.chmod(0o600)
    return len(seen["files"])


def compare(stack: Path, noted: dict[str, Any]) -> int:
    """Fail, naming what is not as it was."""
    seen = look(stack)
    differ = [
        name
        for part in ("files", "containers")
        for name in noted[part].keys() | seen[part].keys()
        if noted[part].get(name) != seen[part].get(name)
    ]
    if differ:
        raise FaultError(f"not as it was: {', '.join(sorted(differ))}")
    return len(seen["files"])


def search(noted: dict[str, Any], output: str) -> None:
    """Fail, naming where a secret stands. Only places, never the secret."""
    places = {f"the output {number}": text for number, text in enumerate([output])}
    for folder in (RUNS, COPIES):
        places |= {str(path): path.read_text(encoding="utf-8", errors="replace") for path in folder.glob("*")}
    places["the system's journal"] = run("journalctl", "--no-pager", "--output=cat")
    leaks = [name for name, text in places.items() if any(secret in text for secret in noted["secrets"])]
    if leaks:
        raise FaultError(f"a secret stands in {', '.join(leaks)}")


def edit(path: Path, pattern: str, replacement: str) -> None:
    """Change a file in place, keeping owner and mode, as an editor would."""
    before = path.read_text(encoding="utf-8")
    after = re.sub(pattern, replacement, before, flags=re.MULTILINE)
    if after == before:
        raise FaultError(f"{path} has nothing like {pattern}")
    path.write_text(after, encoding="utf-8")


def weaken(env: Path) -> None:
    """A secret that is a placeholder, and one that is gone."""
    edit(env, r"^META_APP_SECRET=.*$", "META_APP_SECRET=changeme-" + PLANTED)
    edit(env, r"^OPENAI_API_KEY=.*\n", "")


def edit_settings(env: Path) -> None:
    """Values that are as good as any, but not those that were verified."""
    edit(env, r"^LOG_LEVEL=.*$", "LOG_LEVEL=ERROR")
    edit(env, r"^META_VERIFY_TOKEN=.*$", f"META_VERIFY_TOKEN={PLANTED}")


def append(path: Path, text: str) -> None:
    """Add a line at the end."""
    with path.open("a", encoding="utf-8") as stream:
        stream.write(text + "\n")


def run_otherwise(stack: Path) -> None:
    """Change the settings and have compose recreate the agent with them, as somebody in a hurry would."""
    edit(stack / ".env", r"^LOG_LEVEL=.*$", "LOG_LEVEL=ERROR")
    run(
        "docker",
        "compose",
        "--file",
        str(stack / "compose.yml"),
        "up",
        "--detach",
        "--no-deps",
        "--wait",
        "app",
        "worker",
    )


def run_otherwise_only(stack: Path) -> None:
    """The same, and the file is put back without the agent being told."""
    env = stack / ".env"
    before, status = env.read_bytes(), env.stat()
    run_otherwise(stack)
    env.write_bytes(before)
    os.utime(env, ns=(status.st_atime_ns, status.st_mtime_ns))


def lose_everything(stack: Path) -> None:
    """All of it, folders included."""
    for name in ("config", "certs"):
        shutil.rmtree(stack / name)
    for name in (".env", "compose.yml"):
        (stack / name).unlink()


def hide_secrets() -> None:
    """The server's own secrets: gone from where they lie."""
    HIDDEN_SECRETS.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    shutil.move(SECRETS, HIDDEN_SECRETS)


def other_key(stack: Path) -> None:
    """A private key that belongs to another certificate, with the right owner and mode."""
    path = stack / "certs/privkey.pem"
    key = run("openssl", "genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256")
    path.chmod(0o600)
    path.write_text(key, encoding="ascii")
    path.chmod(0o400)


def wrong_attributes(stack: Path) -> None:
    """Secrets that everybody can read, and a folder that nobody may enter."""
    (stack / ".env").chmod(0o644)
    os.chown(stack / "certs/privkey.pem", 0, 0)
    (stack / "config/nginx").chmod(0o700)


def services_refused(stack: Path) -> None:
    """What Redis, PostgreSQL and pgBackRest each refuse."""
    append(stack / "config/redis/redis.conf", "maxmemory lots")
    append(stack / "config/postgres/postgresql.conf", "shared_buffers = plenty")
    edit(stack / "config/pgbackrest/conf.d/secrets.conf", r"^repo1-cipher-pass=.*$", f"repo1-cipher-pass={PLANTED}")


def faults(stack: Path) -> dict[str, Callable[[], Any]]:
    """Each fault by name."""
    env = stack / ".env"
    return {
        "env_missing": env.unlink,
        "env_weak_secret": lambda: weaken(env),
        "env_edited": lambda: edit_settings(env),
        "compose_refused": lambda: append(stack / "compose.yml", "  broken: [never closed"),
        "nginx_refused": lambda: edit(stack / "config/nginx/public.conf", r"^limit_req ", "limit_request "),
        "services_refused": lambda: services_refused(stack),
        "key_of_another": lambda: other_key(stack),
        "attributes": lambda: wrong_attributes(stack),
        "everything": lambda: lose_everything(stack),
        "other_volume": lambda: edit(env, r"^DB_VOLUME=.*$", "DB_VOLUME=whats_agent_pgdata_20200101T000000Z"),
        "running_otherwise": lambda: run_otherwise(stack),
        "running_only": lambda: run_otherwise_only(stack),
        "copies_lost": lambda: shutil.rmtree(COPIES),
        "secrets_lost": hide_secrets,
        "secrets_back": lambda: shutil.move(HIDDEN_SECRETS, SECRETS),
    }


def inflict(stack: Path, wanted: list[str]) -> None:
    """Break it in each of these ways, in order."""
    ways = faults(stack)
    unknown = [name for name in wanted if name not in ways]
    if unknown:
        raise FaultError(f"nobody knows how to do {', '.join(unknown)}")
    for name in wanted:
        ways[name]()


def main() -> None:
    """Do it."""
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": ["noted", "broken", "compared"], "required": True},
            "faults": {"type": "list", "elements": "str", "default": []},
            "output": {"type": "str", "default": ""},
            "stack_dir": {"type": "path", "default": "/opt/whats_agent"},
            "notes": {"type": "path", "default": "/run/whats_agent_test/configuration.json"},
        },
        supports_check_mode=False,
    )
    params = module.params
    stack, notes = Path(params["stack_dir"]), Path(params["notes"])
    files = 0
    try:
        if params["state"] == "noted":
            files = note(stack, notes)
        elif params["state"] == "broken":
            inflict(stack, params["faults"])
        else:
            noted = json.loads(notes.read_text(encoding="utf-8"))
            files = compare(stack, noted)
            search(noted, params["output"])
    except (FaultError, OSError) as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=params["state"] in ("noted", "broken"), files=files)


if __name__ == "__main__":
    main()
