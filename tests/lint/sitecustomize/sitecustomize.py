"""Let tools that import our modules outside Ansible's own loader find `ansible.module_utils.whats_agent`.

Python imports this file by itself at start-up when its folder is on PYTHONPATH. ansible-lint loads each module to read
its argument spec (rule `args`); without this the import fails and the rule passes the task unchecked.
"""

from __future__ import annotations

from pathlib import Path

import ansible.module_utils

_OURS = str(Path(__file__).resolve().parents[3] / "module_utils")
if _OURS not in ansible.module_utils.__path__:
    ansible.module_utils.__path__.append(_OURS)
