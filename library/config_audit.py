#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Name what is wrong with the stack's configuration and secrets, with the evidence."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: config_audit
short_description: Name what is wrong with the stack's configuration and secrets, with the evidence
version_added: "0.1.0"
description:
  - Compares C(.env), the compose file, the services' configuration and the certificate with the last good copy, has the very
    programs that read them check what differs, in scratch, and compares the containers with the files. It touches nothing.
  - The cause is one of a closed list. Variables and files are named, a secret's value never is.
author: "The whats-agent-runbooks authors (@whats-agent-runbooks)"
options:
  stack_dir:
    description: Where the stack lies.
    type: path
    default: /opt/whats_agent
  state_dir:
    description: Where runs keep their state.
    type: path
    default: /var/lib/whats_agent
  copies_dir:
    description: Where the last good copies lie, encrypted.
    type: path
    default: /var/backups/whats_agent/config
  repository:
    description: The backup repository on this server.
    type: path
    default: /var/backups/whats_agent/pgbackrest
  project:
    description: The compose project.
    type: str
    default: whats_agent
  passphrase:
    description: The backups' passphrase, which opens the copies. Without it the one the server made for itself is used, if any.
    type: str
  volume:
    description: The database's volume, as the operator names it where nothing on the server tells.
    type: str
    default: ""
  rendered:
    description:
      - What the controller would write. The content may hold C(@@volume@@), C(@@release@@) and C(@@secret:NAME@@), which stand for
        what only the server knows.
      - Without this it is not said where the content of broken files could come from.
    type: list
    elements: dict
    suboptions:
      path:
        description: Where it would be written; what is outside of O(stack_dir) is left out.
        type: path
        required: true
      content:
        description: The whole content.
        type: str
        required: true
      mode:
        description: Permission bits in octal.
        type: str
      owner:
        description: The owner's number.
        type: int
      group:
        description: The group's number.
        type: int
  lacks:
    description: Why the controller cannot give everything, one sentence each.
    type: list
    elements: str
    default: []
  makes_certificate:
    description: Whether the inventory has the server sign its own certificate, so that a lost one can be made anew.
    type: bool
    default: false
attributes:
  check_mode:
    description: It only looks.
    support: full
  diff_mode:
    description: It changes nothing.
    support: none
"""

EXAMPLES = r"""
- name: Look at the configuration
  config_audit:
  register: configuration

- name: Show the cause
  ansible.builtin.debug:
    msg: "{{ configuration.diagnosis.summary.en }}"
"""

RETURN = r"""
diagnosis:
  description: The cause, in the shape that the role C(runbook) takes.
  returned: always
  type: dict
  contains:
    component: {description: Always C(config)., type: str}
    cause: {description: One of the closed list., type: str, sample: file_missing}
    healthy: {description: Whether nothing has to be mended., type: bool}
    evidence: {description: What shows it., type: list, elements: dict}
    summary: {description: The cause in words., type: dict}
    belongs_to: {description: The playbook that mends it if this one does not., type: str}
    refuse: {description: "Why nothing can be done, or null.", type: dict}
    state: {description: What a consent covers., type: dict}
    facts: {description: "Broken files, and where their content can come from.", type: dict}
    loses: {description: Always null., type: dict}
"""

from ansible.module_utils.whats_agent import config_diagnosis, config_observe
from ansible.module_utils.whats_agent.config_parameters import ARGUMENTS, place_of, rendering_of
from ansible.module_utils.whats_agent.docker_host import DockerHost
from ansible.module_utils.whats_agent.errors import WhatsAgentError
from ansible.module_utils.whats_agent.quiet_module import QuietModule as AnsibleModule


def main() -> None:
    """Run the module."""
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    try:
        place = place_of(module.params)
        seen = config_observe.observe(
            place,
            DockerHost(),
            place.store(module.params["passphrase"]),
            rendered=rendering_of(module.params),
            named_volume=module.params["volume"],
        )
        diagnosis = config_diagnosis.assemble(seen)
    except WhatsAgentError as error:
        module.fail_json(msg=error.message, **error.details)
    except OSError as error:
        module.fail_json(msg=f"cannot read or write {error.filename}: {error.strerror}")
    module.exit_json(changed=False, diagnosis=diagnosis)


if __name__ == "__main__":
    main()
