#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
"""A long module for tests: it reports progress to the run's journal and keeps its lease alive."""

from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.whats_agent.clock import SYSTEM_CLOCK
from ansible.module_utils.whats_agent.journal import Progress, journal_for
from ansible.module_utils.whats_agent.lock import heartbeat

TOTAL = 1_000_000_000


def main() -> None:
    """Pretend to copy a gigabyte in `seconds`."""
    spec: dict[str, dict[str, Any]] = {
        "run_id": {"type": "str"},
        "state_dir": {"type": "path"},
        "seconds": {"type": "float", "default": 8},
    }
    module = AnsibleModule(argument_spec=spec)
    state_dir = Path(module.params["state_dir"])
    progress = Progress(journal_for(module.params["run_id"], state_dir), "slow_copy", interval=1)
    with heartbeat(module.params["run_id"], state_dir) as heart:
        for part in range(1, 101):
            heart.check()
            SYSTEM_CLOCK.sleep(module.params["seconds"] / 100)
            progress.update(part * TOTAL // 100, TOTAL)
    module.exit_json(changed=True)


if __name__ == "__main__":
    main()
