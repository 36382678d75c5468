#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Read what the last run of a runbook recorded on its server, and hold it against what the scenario expects."""

from __future__ import annotations

DOCUMENTATION = r"""
module: run_record
short_description: Hold the last run's record against what is expected
version_added: "0.1.0"
author: whats_agent contributors (@whats-agent)
description:
  - Reads the newest run journal line by line, with nothing but the standard library, and fails unless outcome and cause
    are those expected.
options:
  outcome:
    description: The outcome the run must have closed with.
    type: str
    required: true
  cause:
    description: The cause the diagnosis must have named.
    type: str
  remedy:
    description: The last remedy that must have been applied.
    type: str
  says:
    description: Words that must all stand in the reason the run gave, in English.
    type: list
    elements: str
    default: []
  loses:
    description: Words that must all stand in what the plan said would be lost, in English.
    type: list
    elements: str
    default: []
  noted:
    description: Steps that the run must have noted under way.
    type: list
    elements: str
    default: []
  aged:
    description: Also return the consent that this run's plan would have printed so many seconds earlier.
    type: int
    default: 0
  run:
    description: Which run. Without it the newest one.
    type: str
    default: ""
  runs:
    description: Where the journals lie.
    type: path
    default: /var/lib/whats_agent/runs
attributes:
  check_mode:
    description: Only looks.
    support: full
"""

EXAMPLES = r"""
- name: See that the run recovered a stopped container
  run_record:
    outcome: recovered
    cause: container_stopped
"""

RETURN = r"""
run:
  description: The run's id.
  returned: success
  type: str
aged:
  description: That consent; empty without O(aged).
  returned: success
  type: str
cause:
  description: The cause it named.
  returned: success
  type: str
remedy:
  description: The remedy that it ended with, or null.
  returned: success
  type: str
confirm:
  description: The consent that it asked for, or null.
  returned: success
  type: str
seconds:
  description: How long detecting, acting and verifying took.
  returned: success
  type: dict
rpo:
  description: What a restore or a rehearsal measured, or null.
  returned: success
  type: dict
"""

import hashlib  # noqa: E402
import json  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

from ansible.module_utils.basic import AnsibleModule  # noqa: E402


class RecordError(Exception):
    """There is no record, or it is not what was expected."""


def last_events(runs: Path, run: str) -> list[dict[str, Any]]:
    """The events of a run's journal, or of the newest. Run ids begin with the time, so their names sort by age."""
    journals = sorted(runs.glob(f"{run or '*'}.jsonl"))
    if not journals:
        raise RecordError(f"no run has left a record in {runs}")
    return [json.loads(line) for line in journals[-1].read_text(encoding="utf-8").splitlines()]


def last_event(events: list[dict[str, Any]], name: str) -> dict[str, Any]:
    """The last event of that name, or an error that lists those there are."""
    found = [event for event in events if event["event"] == name]
    if not found:
        raise RecordError(f"the run has no event {name}, only {', '.join(event['event'] for event in events)}")
    return found[-1]


def check(events: list[dict[str, Any]], params: dict[str, Any]) -> dict[str, Any]:
    """Return the closing event when it is as expected."""
    closed = last_event(events, "close")
    reason = (closed.get("reason") or {}).get("en", "")
    said = {name: closed.get(name) for name in ("outcome", "cause", "remedy")}
    problems = [f"{n} {said[n]} instead of {params[n]}" for n in said if params[n] is not None and said[n] != params[n]]
    problems += [f"the reason does not say {word!r}" for word in params["says"] if word not in reason]
    if params["loses"]:
        told = (last_event(events, "plan").get("loses") or {}).get("en", "")
        problems += [f"the plan does not say {word!r} but {told!r}" for word in params["loses"] if word not in told]
    steps = {event.get("step") for event in events}
    problems += [f"nothing was noted of {step}" for step in params["noted"] if step not in steps]
    if problems:
        raise RecordError(f"{'; '.join(problems)}; the run said: {closed.get('message', {}).get('en', reason)}")
    return closed


def aged_consent(plan: dict[str, Any], seconds: int) -> str:
    """The consent to what a plan would do, had it been printed earlier. It is no secret how one is made, only what fits."""
    stamp = int(plan["confirm"].partition("-")[0], 36) - seconds
    digits = ""
    rest = stamp
    while rest:
        rest, digit = divmod(rest, 36)
        digits = "0123456789abcdefghijklmnopqrstuvwxyz"[digit] + digits
    content = json.dumps([stamp, plan["subject"]], sort_keys=True, ensure_ascii=False)
    return f"{digits}-{hashlib.sha256(content.encode()).hexdigest()[:12]}"


def main() -> None:
    """Read, compare."""
    module = AnsibleModule(
        argument_spec={
            "outcome": {"type": "str", "required": True},
            "cause": {"type": "str"},
            "remedy": {"type": "str"},
            "says": {"type": "list", "elements": "str", "default": []},
            "loses": {"type": "list", "elements": "str", "default": []},
            "noted": {"type": "list", "elements": "str", "default": []},
            "aged": {"type": "int", "default": 0},
            "run": {"type": "str", "default": ""},
            "runs": {"type": "path", "default": "/var/lib/whats_agent/runs"},
        },
        supports_check_mode=True,
    )
    params = module.params
    try:
        events = last_events(Path(params["runs"]), params["run"])
        closed = check(events, params)
        aged = aged_consent(last_event(events, "plan"), params["aged"]) if params["aged"] else ""
    except RecordError as error:
        module.fail_json(msg=str(error))
    told = {name: closed.get(name) for name in ("run", "cause", "remedy", "confirm", "seconds", "rpo")}
    module.exit_json(changed=False, aged=aged, **told)


if __name__ == "__main__":
    main()
