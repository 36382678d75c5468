#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Break the stack's Redis for real."""

from __future__ import annotations

DOCUMENTATION = r"""
module: redis_fault
short_description: Break the stack's Redis for real
version_added: "0.1.0"
author: whats_agent contributors (@whats-agent)
description:
  - Does to Redis what happens to it. Uses the docker command line and redis-cli in the container only.
  - V(stopped), V(paused) and V(missing) are what they say; V(frozen) stops it by a signal; V(dump_damaged) overwrites its dump and
    starts it on that; V(password_changed) sets another password while it runs; V(password_new) puts a new one into C(.env).
  - V(memory_full) fills it with cache keys while nothing may be evicted; V(policy_unset) and V(limit_unset) unset those;
    V(no_ttl) writes cache keys that stay; V(foreign) writes keys that are not the agent's.
  - V(storm) starts a writer of ever new cache keys and waits until keys are evicted; V(burst) one that ends once cache keys are
    removed; V(foreign_storm) one of keys that are not the agent's; V(storm_lowered) one that comes back to the same keys, which
    would fit, under a lowered limit. V(storm_ended) ends them.
  - V(dump_failing) takes its folder away and has it write a dump.
options:
  fault:
    description: What to do to it.
    type: str
    required: true
    choices:
      - stopped
      - paused
      - missing
      - frozen
      - dump_damaged
      - password_changed
      - password_new
      - memory_full
      - policy_unset
      - limit_unset
      - storm
      - burst
      - foreign_storm
      - storm_lowered
      - storm_ended
      - no_ttl
      - foreign
      - dump_failing
  timeout:
    description: Seconds until the fault must show.
    type: int
    default: 60
attributes:
  check_mode:
    description: Not supported; it is only used by tests.
    support: none
"""

EXAMPLES = r"""
- name: Fill Redis
  redis_fault:
    fault: memory_full
"""

RETURN = r"""
container:
  description: The container that was broken.
  returned: success
  type: str
"""

import json  # noqa: E402
import os  # noqa: E402
import secrets  # noqa: E402
import signal  # noqa: E402
import subprocess  # noqa: E402
import time  # noqa: E402
from collections.abc import Callable  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

from ansible.module_utils.basic import AnsibleModule  # noqa: E402

LABEL = "label=com.docker.compose.service=redis"
DATA = "/var/lib/redis"
ENV = Path("/opt/whats_agent/.env")
FILL = "for i = 1, 300 do redis.call('SET', ARGV[1] .. i, string.rep('x', 100000), 'EX', 3600) end"
# Two megabytes of new keys a round over one connection, as a program with no bound writes; with ROUNDS it comes back to the same
# keys, so that all of them fit once there is room. It goes on until CONDITION no longer holds, or until it is killed.
WRITER = (
    "before=$(redis-cli INFO commandstats | grep ^cmdstat_unlink:); n=0; "
    "while CONDITION; do n=$(( (n + 1) ROUNDS )); "
    "echo \"EVAL \\\"for i = 1, 40 do redis.call('SET', 'PREFIX' .. ARGV[1] .. ':' .. i, string.rep('x', 50000), 'EX', 3600) end"
    '\\" 0 $n"; sleep 0.1; done | redis-cli >/dev/null'
)
WRITES_ON = ":"
UNTIL_EVICTED = '[ "$(redis-cli INFO commandstats | grep ^cmdstat_unlink:)" = "$before" ]'
SIXTY_MB = "% 30"
WRITER_MARK = "cmdstat_unlink"
WRITER_SECONDS = "900"
# After so many evictions nothing is left of what filled the memory before.
MEMORY_FULL_OF_KEYS = 2700


class FaultError(Exception):
    """Redis could not be broken as wanted."""


def docker(*argv: str) -> str:
    """Run docker; its output, or an error that says what it said."""
    done = subprocess.run(["docker", *argv], check=False, capture_output=True, text=True)
    if done.returncode != 0:
        raise FaultError(f"docker {' '.join(argv[:5])}: {done.stderr.strip()}")
    return done.stdout.strip()


def inspect_redis() -> dict[str, Any]:
    """The one redis container as docker describes it."""
    found = docker("ps", "--all", "--quiet", "--filter", LABEL).split()
    if len(found) != 1:
        raise FaultError(f"expected one redis container, found {found}")
    container: dict[str, Any] = json.loads(docker("inspect", found[0]))[0]
    return container


def ask(*argv: str) -> str:
    """Ask Redis by its own command line; an answer that begins with an error code is an error."""
    answer = docker("exec", inspect_redis()["Id"], "redis-cli", *argv)
    if answer.startswith(("ERR", "NOAUTH", "WRONGPASS", "OOM")):
        raise FaultError(f"redis-cli {argv[0]}: {answer}")
    return answer


def wait_until(what: str, holds: Callable[[], bool], timeout: float) -> None:
    """Wait until a condition holds."""
    deadline = time.monotonic() + timeout
    while not holds():
        if time.monotonic() > deadline:
            raise FaultError(f"{what}: not within {timeout:.0f} s")
        time.sleep(0.2)


def folder() -> Path:
    """Where its volume lies on the host."""
    return next(Path(mount["Source"]) for mount in inspect_redis()["Mounts"] if mount["Destination"] == DATA)


def evicted() -> int:
    """How many keys had to go since Redis started."""
    stats = ask("INFO", "stats").splitlines()
    return int(next(line.partition(":")[2] for line in stats if line.startswith("evicted_keys:")))


def storm(
    container: str, timeout: float, prefix: str, *, condition: str = WRITES_ON, rounds: str = "", least: int = 100
) -> None:
    """Start a writer in the container, and wait until so many keys have gone for those it writes."""
    script = WRITER.replace("CONDITION", condition).replace("ROUNDS", rounds).replace("PREFIX", prefix)
    before = evicted()
    docker("exec", "--detach", container, "timeout", WRITER_SECONDS, "sh", "-c", script)
    wait_until("an eviction", lambda: evicted() > before + least, timeout)


def end_storm(container: str, timeout: float) -> None:
    """End the writers, and see that no key has to go any more."""
    for line in docker("top", container, "-o", "pid,args").splitlines()[1:]:
        pid, _, command = line.strip().partition(" ")
        # Its redis-cli, too, or that would go on with what the pipe still holds: some hundred rounds where the server was slow.
        if WRITER_MARK in command or command.strip() == "redis-cli":
            os.kill(int(pid), signal.SIGKILL)

    def quiet() -> bool:
        before = evicted()
        time.sleep(1)
        return evicted() == before

    wait_until("an end of evictions", quiet, timeout)


def fill(timeout: float) -> None:
    """Write cache keys until nothing more fits, or until keys are being evicted."""
    before = evicted()
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        try:
            ask("EVAL", FILL, "0", f"whats_agent:cache:{secrets.token_hex(4)}:")
        except FaultError as error:
            if "OOM" in str(error):
                return
            raise
        if evicted() != before:
            return
    raise FaultError(f"not full within {timeout:.0f} s")


def damage_dump(container: str, timeout: float) -> None:
    """Write a dump, put noise over its beginning while Redis is stopped, and start it on that."""
    ask("SAVE")
    docker("stop", container)
    with (folder() / "dump.rdb").open("r+b") as stream:
        stream.write(os.urandom(16))
        os.fsync(stream.fileno())
    docker("start", container)
    wait_until("a crash loop", lambda: int(inspect_redis()["RestartCount"]) >= 1, timeout)


def fail_dump(timeout: float) -> None:
    """Take its folder away and have it write a dump."""
    os.chown(folder(), 0, 0)
    folder().chmod(0o700)
    ask("BGSAVE")
    wait_until("a failed dump", lambda: "rdb_last_bgsave_status:err" in ask("INFO", "persistence"), timeout)


def new_password() -> None:
    """Put a new password into `.env`, as a rotation that nobody finished."""
    lines = ENV.read_text(encoding="utf-8").splitlines()
    word = f"REDIS_PASSWORD={secrets.token_urlsafe(24)}"
    ENV.write_text(
        "\n".join(word if line.startswith("REDIS_PASSWORD=") else line for line in lines) + "\n", encoding="utf-8"
    )


def write_keys(prefix: str) -> None:
    """Write keys without a time to live."""
    ask("EVAL", "for i = 1, 500 do redis.call('SET', ARGV[1] .. i, 'x') end", "0", prefix)


def inflict(fault: str, timeout: float) -> str:  # noqa: PLR0912 - one branch a fault
    """Do it; return the container it was done to."""
    container = str(inspect_redis()["Id"])
    if fault == "stopped":
        docker("stop", container)
    elif fault == "paused":
        docker("pause", container)
    elif fault == "missing":
        docker("rm", "--force", container)
    elif fault == "frozen":
        for line in docker("top", container, "-o", "pid").splitlines()[1:]:
            os.kill(int(line), signal.SIGSTOP)
    elif fault == "dump_damaged":
        damage_dump(container, timeout)
    elif fault == "password_changed":
        ask("CONFIG", "SET", "requirepass", secrets.token_urlsafe(24))
    elif fault == "password_new":
        new_password()
    elif fault == "memory_full":
        ask("CONFIG", "SET", "maxmemory-policy", "noeviction")
        fill(timeout)
    elif fault == "policy_unset":
        ask("CONFIG", "SET", "maxmemory-policy", "noeviction")
    elif fault == "limit_unset":
        ask("CONFIG", "SET", "maxmemory", "0")
    elif fault == "storm":
        storm(container, timeout, "whats_agent:cache:storm:")
    elif fault == "burst":
        storm(container, timeout, "whats_agent:cache:burst:", condition=UNTIL_EVICTED)
    elif fault == "foreign_storm":
        storm(container, timeout, "other_program:", least=MEMORY_FULL_OF_KEYS)
    elif fault == "storm_lowered":
        ask("CONFIG", "SET", "maxmemory", "16mb")
        storm(container, timeout, "whats_agent:cache:page:", rounds=SIXTY_MB)
    elif fault == "storm_ended":
        end_storm(container, timeout)
    elif fault == "no_ttl":
        write_keys("whats_agent:cache:forgotten:")
    elif fault == "foreign":
        write_keys("other_program:")
    else:
        fail_dump(timeout)
    return container


def main() -> None:
    """Break it."""
    module = AnsibleModule(
        argument_spec={
            "fault": {
                "type": "str",
                "required": True,
                "choices": [
                    "stopped",
                    "paused",
                    "missing",
                    "frozen",
                    "dump_damaged",
                    "password_changed",
                    "password_new",
                    "memory_full",
                    "policy_unset",
                    "limit_unset",
                    "storm",
                    "burst",
                    "foreign_storm",
                    "storm_lowered",
                    "storm_ended",
                    "no_ttl",
                    "foreign",
                    "dump_failing",
                ],
            },
            "timeout": {"type": "int", "default": 60},
        },
        supports_check_mode=False,
    )
    params = module.params
    try:
        container = inflict(params["fault"], params["timeout"])
    except (FaultError, OSError) as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=True, container=container)


if __name__ == "__main__":
    main()
