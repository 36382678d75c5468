#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ansible module: prove the way of a webhook from nginx to PostgreSQL."""

from __future__ import annotations

DOCUMENTATION = r"""
module: webhook_probe
short_description: Prove that a signed webhook is accepted, an unsigned one is not, and that it arrives in PostgreSQL
version_added: 0.1.0
description:
  - Posts a signed probe, as Meta would, and waits until its row is in PostgreSQL; that proves nginx, the agent, its message
    log, the worker and the database in one go.
  - Posts the same unsigned, which must be refused.
  - A hop that does not answer as it must is reported and not an error of the module, so that a verification can show all.
  - The app secret is read from the stack's C(.env) on the target and never given as an argument.
options:
  env_file:
    description: The stack's C(.env).
    type: path
    default: /opt/whats_agent/.env
  address:
    description: Where the host's own plain listener is.
    type: str
    default: 127.0.0.1
  port:
    description: Port of the host's own plain listener.
    type: int
    default: 8000
  tls_name:
    description: The public name. When given, the signed probe also goes through TLS, and the certificate must fit this name.
    type: str
  tls_address:
    description: Where the public listener is reached.
    type: str
    default: 127.0.0.1
  tls_port:
    description: Port of the public listener.
    type: int
    default: 443
  tls_ca_file:
    description: Certificates to trust instead of the system's, for a certificate of one's own.
    type: path
  socket_dir:
    description: The directory of PostgreSQL's socket on the host.
    type: path
    default: /opt/whats_agent/run/postgres
  wait_for_row:
    description: Whether to wait until the probe is in PostgreSQL.
    type: bool
    default: true
  timeout:
    description: Seconds for all hops together.
    type: float
    default: 20
  state_dir:
    description: Where runs keep their state.
    type: path
    default: /var/lib/whats_agent
  run_id:
    description: The run whose lease is kept alive meanwhile.
    type: str
attributes:
  check_mode:
    description: Sends nothing; RV(ok) is then null.
    support: full
author:
  - whats_agent runbooks (@whats-agent)
"""

EXAMPLES = r"""
- name: Prove the way of a webhook
  webhook_probe:
  register: probe

- name: Prove it through TLS as well
  webhook_probe:
    tls_name: agent.example.org
    timeout: 30
  register: probe
"""

RETURN = r"""
ok:
  description: Whether every hop answered as it must; null in check mode.
  returned: success
  type: bool
probe_id:
  description: What the row is found by.
  returned: success
  type: str
hops:
  description: Name, ok, detail and seconds of each hop, in order.
  returned: success
  type: list
  elements: dict
  sample: [{"name": "refuses_unsigned", "ok": true, "detail": "HTTP 401", "seconds": 0.01}]
"""

import uuid
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.whats_agent.env_file import read_env, require
from ansible.module_utils.whats_agent.errors import WhatsAgentError
from ansible.module_utils.whats_agent.lock import heartbeat
from ansible.module_utils.whats_agent.probe import Hop, Listener, Prober, count_rows

ARGUMENT_SPEC: dict[str, dict[str, Any]] = {
    "env_file": {"type": "path", "default": "/opt/whats_agent/.env"},
    "address": {"type": "str", "default": "127.0.0.1"},
    "port": {"type": "int", "default": 8000},
    "tls_name": {"type": "str"},
    "tls_address": {"type": "str", "default": "127.0.0.1"},
    "tls_port": {"type": "int", "default": 443},
    "tls_ca_file": {"type": "path"},
    "socket_dir": {"type": "path", "default": "/opt/whats_agent/run/postgres"},
    "wait_for_row": {"type": "bool", "default": True},
    "timeout": {"type": "float", "default": 20},
    "state_dir": {"type": "path", "default": "/var/lib/whats_agent"},
    "run_id": {"type": "str"},
}


def probe(params: dict[str, Any], probe_id: str) -> list[Hop]:
    """Try the hops in order and return how each did. Later hops make no sense once the signed call failed."""
    values = read_env(Path(params["env_file"]))
    require(values, ["META_APP_SECRET", "DB_NAME"], params["env_file"])
    prober = Prober(values["META_APP_SECRET"], probe_id, timeout=params["timeout"])
    local = Listener(params["address"], params["port"])
    hops = [prober.refuses_unsigned(local), prober.accepts_signed(local)]
    if params["tls_name"]:
        ca_file = Path(params["tls_ca_file"]) if params["tls_ca_file"] else None
        public = Listener(params["tls_address"], params["tls_port"], params["tls_name"], ca_file)
        hops.append(prober.accepts_signed(public, "tls"))
    if params["wait_for_row"] and any(hop.ok for hop in hops[1:]):
        hops.append(prober.row(count_rows(Path(params["socket_dir"]), values["DB_NAME"])))
    return hops


def main() -> None:
    """Parse, probe, exit."""
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    probe_id = str(uuid.uuid4())
    if module.check_mode:
        module.exit_json(changed=False, ok=None, probe_id=probe_id, hops=[])
    try:
        with heartbeat(module.params["run_id"], Path(module.params["state_dir"])):
            hops = probe(module.params, probe_id)
    except WhatsAgentError as error:
        module.fail_json(msg=error.message, **error.details)
    module.exit_json(
        changed=False, ok=all(hop.ok for hop in hops), probe_id=probe_id, hops=[hop.as_dict() for hop in hops]
    )


if __name__ == "__main__":
    main()
