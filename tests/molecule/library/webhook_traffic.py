#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Be Meta and the agent's customers: send signed messages, remember what was acknowledged, settle the account later."""

from __future__ import annotations

DOCUMENTATION = r"""
module: webhook_traffic
short_description: Send signed WhatsApp messages and settle what became of those that were acknowledged
version_added: "0.1.0"
author: whats_agent contributors (@whats-agent)
description:
  - V(sent) posts messages through TLS, as Meta does, and keeps a ledger of each that was answered 200.
  - V(flowing) begins to send such messages in the background, two a second, until V(ended); that fails if any of them was not
    answered 200.
  - V(settled) waits until each message in the ledger is stored once and answered once, and fails with the names of
    those that are lost, doubled or unanswered. Rows are read with a plain psql, answers from the Graph double's record.
options:
  state:
    description: What to do.
    type: str
    choices: [sent, flowing, ended, settled]
    required: true
  count:
    description: How many messages to send, each from another person.
    type: int
    default: 5
  timeout:
    description: Seconds to wait for stragglers.
    type: int
    default: 60
  ledger:
    description: Where acknowledged messages are remembered on the server.
    type: path
    default: /run/whats_agent_test/acknowledged.jsonl
  env_file:
    description: The stack's settings; the app secret signs the messages.
    type: path
    default: /opt/whats_agent/.env
  webhook:
    description: Where Meta delivers. The certificate is not checked.
    type: str
    default: https://127.0.0.1/webhook
  graph_double:
    description: The Graph double's control interface.
    type: str
    default: http://127.0.0.1:9001
attributes:
  check_mode:
    description: Not supported; it is only used by tests.
    support: none
"""

EXAMPLES = r"""
- name: Send ten messages
  webhook_traffic:
    state: sent
    count: 10

- name: See that each acknowledged message is stored once and answered once
  webhook_traffic:
    state: settled
"""

RETURN = r"""
acknowledged:
  description: How many messages were acknowledged since the ledger was begun.
  returned: success
  type: int
lost:
  description: How many of them are not in PostgreSQL. Settled means 0, and so for the others.
  returned: when O(state=settled)
  type: int
answered_twice:
  description: How many of them were answered more than once.
  returned: when O(state=settled)
  type: int
"""

import contextlib  # noqa: E402
import hashlib  # noqa: E402
import hmac  # noqa: E402
import json  # noqa: E402
import os  # noqa: E402
import signal  # noqa: E402
import ssl  # noqa: E402
import subprocess  # noqa: E402
import time  # noqa: E402
import urllib.error  # noqa: E402
import urllib.request  # noqa: E402
import uuid  # noqa: E402
from collections import Counter  # noqa: E402
from collections.abc import Callable  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

from ansible.module_utils.basic import AnsibleModule  # noqa: E402

COUNT_STORED = "select wamid, count(*) from messages group by wamid"
POLL_SECONDS = 0.3
FLOW_SECONDS = 0.5
FLOW = "flow.json"


class TrafficError(Exception):
    """A message was not acknowledged, or the account does not settle."""


def read_env(path: Path) -> dict[str, str]:
    """Read `NAME=value` lines."""
    pairs = (line.split("=", 1) for line in path.read_text(encoding="utf-8").splitlines() if "=" in line)
    return {name.strip(): value.strip() for name, value in pairs if not name.startswith("#")}


def somebody() -> str:
    """The number of a person who has not written before.

    With as many digits as there may be: of eight that are drawn, two are the same once in ten runs of four thousand people.
    """
    return f"55119{uuid.uuid4().int % 10**10:010d}"


def text_webhook(phone_number_id: str, sender: str, wamid: str, text: str) -> bytes:
    """The body Meta sends for one text message."""
    message = {"from": sender, "id": wamid, "timestamp": str(int(time.time())), "type": "text", "text": {"body": text}}
    value = {
        "messaging_product": "whatsapp",
        "metadata": {"display_phone_number": "5511999990000", "phone_number_id": phone_number_id},
        "contacts": [{"profile": {"name": "Cliente"}, "wa_id": sender}],
        "messages": [message],
    }
    change = {"field": "messages", "value": value}
    return json.dumps({"object": "whatsapp_business_account", "entry": [{"id": "1", "changes": [change]}]}).encode()


def post(url: str, body: bytes, secret: str) -> int:
    """Deliver one signed body; return the HTTP status."""
    signature = hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
    headers = {"Content-Type": "application/json", "X-Hub-Signature-256": f"sha256={signature}"}
    request = urllib.request.Request(url, data=body, headers=headers)  # noqa: S310 - the test names the address
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    try:
        with urllib.request.urlopen(request, timeout=10, context=context) as response:  # noqa: S310
            status: int = response.status
    except urllib.error.HTTPError as error:
        return error.code
    return status


def read_ledger(path: Path) -> list[dict[str, str]]:
    """Messages acknowledged so far, oldest first."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def send(params: dict[str, Any]) -> None:
    """Send the messages; each must be acknowledged, whatever else is down."""
    env = read_env(Path(params["env_file"]))
    ledger = Path(params["ledger"])
    ledger.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    for _ in range(params["count"]):
        status = send_one(params["webhook"], env, ledger)
        if status != 200:
            raise TrafficError(f"the webhook answered {status} to a signed message")


def send_one(webhook: str, env: dict[str, str], ledger: Path) -> int:
    """Send a message and note it if it was acknowledged; return the status."""
    wamid = f"wamid.{uuid.uuid4().hex.upper()}"
    # A person of its own for each message: what is sent to that number is the answer to this message.
    sender = somebody()
    body = text_webhook(env["PHONE_NUMBER_ID"], sender, wamid, "Qual o horario de atendimento?")
    status = post(webhook, body, env["META_APP_SECRET"])
    if status == 200:
        with ledger.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps({"wamid": wamid, "from": sender}) + "\n")
    return status


def flow(params: dict[str, Any]) -> None:
    """Leave a process behind that sends until it is told to end, and keeps an account of what was answered."""
    env = read_env(Path(params["env_file"]))
    ledger = Path(params["ledger"])
    ledger.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    report = ledger.parent / FLOW
    if report.exists():
        # Of a scenario that failed before it ended it; the process itself may be gone.
        with contextlib.suppress(ProcessLookupError):
            stop_flow(report, params["timeout"])
        report.unlink(missing_ok=True)
    if os.fork():
        wait_for(report.exists, "the traffic to flow", params["timeout"])
        return
    os.setsid()
    if os.fork():
        os._exit(0)
    null = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(null, stream)
    ended: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _frame: ended.append(number))
    counts: Counter[str] = Counter()
    while not ended:
        try:
            counts[str(send_one(params["webhook"], env, ledger))] += 1
        except OSError as error:
            counts[f"{type(error).__name__}: {error}"] += 1
        write_report(report, counts, running=True)
        time.sleep(FLOW_SECONDS)
    write_report(report, counts, running=False)
    os._exit(0)


def write_report(report: Path, counts: Counter[str], *, running: bool) -> None:
    """Replace the account of the traffic in the background."""
    new = report.with_suffix(".new")
    new.write_text(json.dumps({"pid": os.getpid(), "running": running, "answers": counts}), encoding="utf-8")
    new.replace(report)


def end_flow(params: dict[str, Any]) -> None:
    """End the traffic in the background; every message must have been acknowledged."""
    report = Path(params["ledger"]).parent / FLOW
    if not report.exists():
        raise TrafficError("no traffic flows")
    answers = stop_flow(report, params["timeout"])
    if set(answers) != {"200"}:
        raise TrafficError(f"not every message was acknowledged: {answers}")


def stop_flow(report: Path, timeout: float) -> dict[str, int]:
    """Have the process in the background end; return how often each answer was given."""
    os.kill(int(json.loads(report.read_text(encoding="utf-8"))["pid"]), signal.SIGTERM)
    wait_for(lambda: not json.loads(report.read_text(encoding="utf-8"))["running"], "the traffic to end", timeout)
    answers: dict[str, int] = json.loads(report.read_text(encoding="utf-8"))["answers"]
    report.unlink()
    return answers


def wait_for(holds: Callable[[], bool], what: str, timeout: float) -> None:
    """Wait until a condition holds."""
    deadline = time.monotonic() + timeout
    while not holds():
        if time.monotonic() > deadline:
            raise TrafficError(f"waited {timeout:.0f} s for {what}")
        time.sleep(POLL_SECONDS)


def stored_rows() -> dict[str, int]:
    """How often each message id is in PostgreSQL, over a plain psql in its container."""
    label = ("--filter", "label=com.docker.compose.service=postgres")
    listed = subprocess.run(["docker", "ps", "--quiet", *label], check=True, capture_output=True, text=True)
    container = listed.stdout.split()
    if not container:
        raise TrafficError("no postgres container runs")
    psql = ["docker", "exec", container[0], "psql", "-X", "-U", "postgres", "-d", "whats_agent", "-At", "-c"]
    read = subprocess.run([*psql, COUNT_STORED], check=False, capture_output=True, text=True)
    if read.returncode != 0:
        raise TrafficError(f"psql cannot count the messages: {read.stderr.strip()}")
    return {wamid: int(count) for wamid, count in (line.split("|") for line in read.stdout.splitlines())}


def answered_numbers(graph_double: str) -> list[str]:
    """The number that each text the Graph double accepted went to."""
    with urllib.request.urlopen(f"{graph_double}/_double/sends", timeout=10) as response:  # noqa: S310
        sends = json.load(response)
    return [send["to"] for send in sends if send["type"] == "text"]


def account(ledger: list[dict[str, str]], stored: dict[str, int], answers: list[str]) -> dict[str, list[str]]:
    """Name what does not settle: lost, stored twice, answered twice, unanswered. All empty means all is well."""
    sent_to = Counter(answers)
    people = {entry["wamid"]: entry["from"] for entry in ledger}
    wrote = Counter(people.values())
    wamids = list(people)
    return {
        "lost": [wamid for wamid in wamids if not stored.get(wamid)],
        "stored_twice": [wamid for wamid in wamids if stored.get(wamid, 0) > 1],
        "answered_twice": [wamid for wamid in wamids if sent_to[people[wamid]] > wrote[people[wamid]]],
        "unanswered": [wamid for wamid in wamids if sent_to[people[wamid]] < wrote[people[wamid]]],
    }


def settle(params: dict[str, Any]) -> dict[str, int]:
    """Wait until the account settles, and return it; what was done twice will never settle, so it fails at once."""
    ledger = read_ledger(Path(params["ledger"]))
    if not ledger:
        raise TrafficError("nothing was sent, so nothing can be settled")
    deadline = time.monotonic() + params["timeout"]
    while True:
        open_items = account(ledger, stored_rows(), answered_numbers(params["graph_double"]))
        if not any(open_items.values()):
            return {what: len(names) for what, names in open_items.items()}
        if open_items["stored_twice"] or open_items["answered_twice"] or time.monotonic() > deadline:
            told = "; ".join(
                f"{what} {len(names)}: {', '.join(names[:3])}" for what, names in open_items.items() if names
            )
            raise TrafficError(f"of {len(ledger)} acknowledged messages {told}")
        time.sleep(POLL_SECONDS)


ACTIONS: dict[str, Callable[[dict[str, Any]], dict[str, int] | None]] = {
    "sent": send,
    "flowing": flow,
    "ended": end_flow,
    "settled": settle,
}


def main() -> None:
    """Send or settle."""
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": ["sent", "flowing", "ended", "settled"], "required": True},
            "count": {"type": "int", "default": 5},
            "timeout": {"type": "int", "default": 60},
            "ledger": {"type": "path", "default": "/run/whats_agent_test/acknowledged.jsonl"},
            "env_file": {"type": "path", "default": "/opt/whats_agent/.env"},
            "webhook": {"type": "str", "default": "https://127.0.0.1/webhook"},
            "graph_double": {"type": "str", "default": "http://127.0.0.1:9001"},
        },
        supports_check_mode=False,
    )
    params = module.params
    counts: dict[str, int] = {}
    try:
        counts = ACTIONS[params["state"]](params) or {}
    except (TrafficError, OSError) as error:
        module.fail_json(msg=str(error))
    module.exit_json(
        changed=params["state"] != "settled", acknowledged=len(read_ledger(Path(params["ledger"]))), **counts
    )


if __name__ == "__main__":
    main()
