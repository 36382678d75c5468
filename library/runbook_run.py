#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ansible module: one run of a runbook on its target."""

from __future__ import annotations

DOCUMENTATION = r"""
module: runbook_run
short_description: Open, plan, record and close one run of a runbook on its target
version_added: 0.1.0
description:
  - Keeps the run contract on the target itself - one lease lock per host for every entry point, the plan with consent to
    what destroys, the circuit breaker per component, and an append-only journal of the run.
  - Decides and records, and never touches the stack. It therefore never reports a change.
  - Each call renews the lease; a run that has lost it fails here before it can act beside another.
options:
  state:
    description:
      - V(open) starts a run - it takes the lease, or ends the run as refused when another run holds it.
      - V(plan) decides from a diagnosis what to do, and ends the run when there is nothing to do or nothing may be done. Where the
        diagnosis has only just looked, it begins the first rung as well.
      - V(step) records that a rung of the ladder begins or ends; at its beginning the diagnosis is compared with the plan.
      - V(close) ends the run with its outcome.
    type: str
    required: true
    choices: [open, plan, step, close]
  state_dir:
    description: Directory for lock, journals and breakers.
    type: path
    default: /var/lib/whats_agent
  host:
    description: The target's name in the inventory. Required for O(state=open); the run's journal remembers it.
    type: str
  component:
    description: The component that the runbook is about. Required for O(state=open); the run's journal remembers it.
    type: str
  playbook:
    description: What the run is called, for the journal.
    type: str
    default: ""
  run_id:
    description: The run, as O(state=open) returned it. Required for every other state.
    type: str
  holder:
    description: Who runs it. Required for O(state=open).
    type: dict
    suboptions:
      user:
        description: The person's account.
        type: str
        required: true
      controller:
        description: The machine it is run from.
        type: str
        required: true
      entry_point:
        description: What it is run through, such as C(ansible-playbook), C(oncall) or C(timer).
        type: str
        required: true
  read_only:
    description: The runbook only looks, and so takes no lease. For O(state=open).
    type: bool
    default: false
  env_file:
    description: The stack's C(.env); its secret values are hidden wherever they would be recorded or shown.
    type: path
  diagnosis:
    description: The component's diagnosis. Required for O(state=plan) and for the beginning of a step.
    type: dict
  ladder:
    description: The component's ladder of causes and remedies. Required for O(state=plan).
    type: list
    elements: dict
  confirm:
    description: The consent hash an operator repeats from a plan.
    type: str
    default: ""
  step:
    description: The name of the rung. Required for O(state=step).
    type: str
  phase:
    description: Whether the step begins or ends. Required for O(state=step).
    type: str
    choices: [begin, end]
  ok:
    description: Whether the ended step's tasks ran through.
    type: bool
    default: true
  error:
    description: What stopped the step or the run.
    type: str
    default: ""
  error_pt:
    description: The same in Portuguese, where it is told in that language.
    type: str
    default: ""
  stable_seconds:
    description: How long the stack must stand after a step that ended well, before it is verified.
    type: float
    default: 0
  project:
    description:
      - The compose project whose containers must neither restart nor stop nor turn unhealthy during O(stable_seconds); a step
        after which they do has failed. Without it the time only passes.
    type: str
  verification:
    description: The component's verification, for O(state=close) and for the beginning of the step after a failed one.
    type: dict
  time_to_live:
    description: Seconds without a heartbeat after which the lease may be taken over.
    type: float
    default: 30
  breaker_threshold:
    description: Failed recoveries in a row after which the component's breaker is open.
    type: int
    default: 3
attributes:
  check_mode:
    description: Records the run as a dry run and takes no lease; that record is all that is written.
    support: full
author:
  - whats_agent runbooks (@whats-agent)
"""

EXAMPLES = r"""
- name: Open the run
  runbook_run:
    state: open
    host: "{{ inventory_hostname }}"
    component: database
    holder:
      user: ana
      controller: laptop
      entry_point: ansible-playbook
  register: opened

- name: Decide what to do
  runbook_run:
    state: plan
    run_id: "{{ opened.run_id }}"
    diagnosis: "{{ runbook_diagnosis }}"
    ladder: "{{ database_ladder }}"
  register: planned
"""

RETURN = r"""
run_id:
  description: The run's id, which sorts by start.
  returned: success
  type: str
  sample: 20260131T120000Z-9f2c11aa
result:
  description: The run's end - outcome, cause, remedy, reason, seconds, rpo, next_step and message - or null while it goes on.
  returned: success
  type: dict
held_by:
  description: Who holds the host's lock, seen by a run that takes none.
  returned: when O(state=open)
  type: str
taken_over:
  description: The run whose holder died and whose lease this run took over.
  returned: when O(state=open)
  type: str
plan:
  description: Cause, summary, evidence, remedies (name, destructive, changes, last_seconds), confirm, consented and loses.
  returned: when O(state=plan)
  type: dict
next:
  description: The rung to take next if what went before does not help; null when there is none.
  returned: when O(state=plan), and when O(state=step) and O(phase=end)
  type: str
begun:
  description:
    - The first rung, begun on the diagnosis that was planned for, in the shape that the beginning of a step returns.
    - Null when one more look is needed before it, since that diagnosis is older than 5 s or does not tell when it looked, or since
      the rung destroys.
  returned: when O(state=plan)
  type: dict
step:
  description: The rung that begins or ended.
  returned: when O(state=step)
  type: str
seconds:
  description: How long the ended step took.
  returned: when O(state=step) and O(phase=end)
  type: float
error:
  description: Why the ended step failed, or what did not stand in the stable window; empty when neither is so.
  returned: when O(state=step) and O(phase=end)
  type: str
proceed:
  description: Whether the step may act.
  returned: when O(state=step) and O(phase=begin)
  type: bool
gone:
  description: Whether the symptom went away by itself.
  returned: when O(state=step) and O(phase=begin)
  type: bool
"""

from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.whats_agent.errors import WhatsAgentError
from ansible.module_utils.whats_agent.redact import redact
from ansible.module_utils.whats_agent.run import About, Run, Settings

ARGUMENT_SPEC: dict[str, dict[str, Any]] = {
    "state": {"type": "str", "required": True, "choices": ["open", "plan", "step", "close"]},
    "state_dir": {"type": "path", "default": "/var/lib/whats_agent"},
    "host": {"type": "str"},
    "component": {"type": "str"},
    "playbook": {"type": "str", "default": ""},
    "run_id": {"type": "str"},
    "holder": {
        "type": "dict",
        "options": {
            "user": {"type": "str", "required": True},
            "controller": {"type": "str", "required": True},
            "entry_point": {"type": "str", "required": True},
        },
    },
    "read_only": {"type": "bool", "default": False},
    "env_file": {"type": "path"},
    "diagnosis": {"type": "dict"},
    "ladder": {"type": "list", "elements": "dict"},
    "confirm": {"type": "str", "default": ""},
    "step": {"type": "str"},
    "phase": {"type": "str", "choices": ["begin", "end"]},
    "ok": {"type": "bool", "default": True},
    "error": {"type": "str", "default": ""},
    "error_pt": {"type": "str", "default": ""},
    "stable_seconds": {"type": "float", "default": 0},
    "project": {"type": "str"},
    "verification": {"type": "dict"},
    "time_to_live": {"type": "float", "default": 30},
    "breaker_threshold": {"type": "int", "default": 3},
}

REQUIRED_IF = [
    ("state", "open", ["holder", "host", "component"]),
    ("state", "plan", ["run_id", "diagnosis", "ladder"]),
    ("state", "step", ["run_id", "step", "phase"]),
    ("state", "close", ["run_id"]),
    ("phase", "begin", ["diagnosis"]),
]


def perform(run: Run, params: dict[str, Any]) -> dict[str, Any]:
    """Do what the parameters ask of the run, and return what the module returns."""
    state = params["state"]
    if state == "open":
        return run.open(params["holder"])
    if state == "plan":
        plan, result = run.plan(params["diagnosis"], params["ladder"], params["confirm"])
        fields = {
            "cause": plan.cause,
            "summary": params["diagnosis"].get("summary"),
            "evidence": params["diagnosis"].get("evidence") or [],
            "remedies": [remedy.as_dict() for remedy in plan.remedies],
            "confirm": plan.confirm,
            "consented": plan.consented,
            "loses": plan.loses,
        }
        first = plan.remedies[0].name if plan.remedies else None
        return {"plan": fields, "next": first, "begun": run.begin_first(plan, params["diagnosis"]), "result": result}
    if state == "close":
        return {"result": run.close(params["verification"], params["error"], params["error_pt"])}
    if params["phase"] == "begin":
        return run.begin_step(params["step"], params["diagnosis"], params["confirm"], params["verification"])
    ended = run.end_step(
        params["step"],
        ok=params["ok"],
        error=params["error"],
        error_pt=params["error_pt"],
        stable_seconds=params["stable_seconds"],
        project=params["project"] or "",
    )
    return {**ended, "result": None}


def main() -> None:
    """Parse, perform, exit."""
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, required_if=REQUIRED_IF, supports_check_mode=True)
    params = module.params
    settings = Settings(
        state_dir=Path(params["state_dir"]),
        env_file=Path(params["env_file"]) if params["env_file"] else None,
        time_to_live=params["time_to_live"],
        breaker_threshold=params["breaker_threshold"],
    )
    try:
        if params["state"] == "open":
            run = Run.new(
                settings,
                About(
                    host=params["host"],
                    component=params["component"],
                    playbook=params["playbook"],
                    dry_run=module.check_mode,
                    read_only=params["read_only"],
                ),
            )
        else:
            run = Run.resume(settings, params["run_id"])
        returned = perform(run, params)
    except WhatsAgentError as error:
        module.fail_json(msg=error.message, **error.details)
    module.exit_json(changed=False, **{"run_id": run.run_id, **redact(returned, run.known_secrets)})


if __name__ == "__main__":
    main()
