#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Send signed webhooks without a pause while something else is going on, and fail when one was not answered 200."""

from __future__ import annotations

DOCUMENTATION = r"""
module: webhook_stream
short_description: Send signed webhooks all the while, and fail when one was not answered 200
version_added: "0.1.0"
author: whats_agent contributors (@whats-agent)
description:
  - V(started) leaves a process behind on the server, which posts probes through TLS, each on a connection of its own, and writes
    down every status.
  - V(ended) ends it and fails unless there were some answers and all of them 200. A connection that was refused or broken counts
    as status 0.
options:
  state:
    description: What to do.
    type: str
    choices: [started, ended]
    required: true
  least:
    description: How many answers there must have been.
    type: int
    default: 10
  folder:
    description: Where the process keeps its number and what it saw.
    type: path
    default: /run/whats_agent_test/stream
  env_file:
    description: The stack's settings; the app secret signs the probes.
    type: path
    default: /opt/whats_agent/.env
attributes:
  check_mode:
    description: Not supported; it is only used by tests.
    support: none
"""

EXAMPLES = r"""
- name: Send webhooks while the agent is replaced
  webhook_stream:
    state: started
"""

RETURN = r"""
answers:
  description: How often each status came.
  returned: when O(state=ended)
  type: dict
"""

import os  # noqa: E402
import signal  # noqa: E402
import subprocess  # noqa: E402
import sys  # noqa: E402
from collections import Counter  # noqa: E402
from pathlib import Path  # noqa: E402

from ansible.module_utils.basic import AnsibleModule  # noqa: E402

PROGRAM = r"""
import hashlib, hmac, http.client, json, ssl, sys, time, uuid
secret = sys.stdin.read().encode()
context = ssl._create_unverified_context()
with open(sys.argv[1], "a", buffering=1) as seen:
    while True:
        value = {"probe_id": str(uuid.uuid4())}
        change = {"field": "whats_agent_probe", "value": value}
        body = json.dumps({"object": "whatsapp_business_account", "entry": [{"id": "probe", "changes": [change]}]}).encode()
        signature = "sha256=" + hmac.new(secret, body, hashlib.sha256).hexdigest()
        try:
            connection = http.client.HTTPSConnection("127.0.0.1", 443, timeout=30, context=context)
            connection.request("POST", "/webhook", body, {"X-Hub-Signature-256": signature, "Content-Type": "application/json"})
            status = connection.getresponse().status
            connection.close()
        except (OSError, http.client.HTTPException):
            status = 0
        seen.write(f"{status}\n")
        time.sleep(0.1)
"""


def start(folder: Path, env_file: Path) -> None:
    """Leave the process behind. Under Python's full name: what kills modules by the name python3 must not end it."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    (folder / "seen").write_text("", encoding="ascii")
    lines = env_file.read_text(encoding="utf-8").splitlines()
    secret = next(line.split("=", 1)[1] for line in lines if line.startswith("META_APP_SECRET="))
    process = subprocess.Popen(
        [os.path.realpath(sys.executable), "-c", PROGRAM, str(folder / "seen")],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        text=True,
    )
    if process.stdin is None:
        raise OSError("the process has no standard input")
    process.stdin.write(secret)
    process.stdin.close()
    (folder / "pid").write_text(str(process.pid), encoding="ascii")


def end(folder: Path) -> Counter[str]:
    """End it and count what it saw."""
    os.kill(int((folder / "pid").read_text(encoding="ascii")), signal.SIGKILL)
    return Counter((folder / "seen").read_text(encoding="ascii").split())


def main() -> None:
    """Start or end."""
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": ["started", "ended"], "required": True},
            "least": {"type": "int", "default": 10},
            "folder": {"type": "path", "default": "/run/whats_agent_test/stream"},
            "env_file": {"type": "path", "default": "/opt/whats_agent/.env"},
        },
        supports_check_mode=False,
    )
    params = module.params
    folder = Path(params["folder"])
    try:
        if params["state"] == "started":
            start(folder, Path(params["env_file"]))
            module.exit_json(changed=True)
        answers = end(folder)
    except OSError as error:
        module.fail_json(msg=str(error))
    if set(answers) != {"200"} or answers["200"] < params["least"]:
        module.fail_json(msg=f"not all were answered 200: {dict(answers)}", answers=dict(answers))
    module.exit_json(changed=True, answers=dict(answers))


if __name__ == "__main__":
    main()
