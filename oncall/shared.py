# SPDX-License-Identifier: GPL-3.0-or-later
"""What the controller shares with the modules, from module_utils/, under the name that modules import it by."""

from __future__ import annotations

import ansible.module_utils

from oncall.project import ROOT

_FOLDER = str(ROOT / "module_utils")
if _FOLDER not in ansible.module_utils.__path__:
    ansible.module_utils.__path__.append(_FOLDER)

from ansible.module_utils.whats_agent import notify  # noqa: E402 - only now is it to be found
from ansible.module_utils.whats_agent.errors import WhatsAgentError  # noqa: E402
from ansible.module_utils.whats_agent.playbooks import by_hand  # noqa: E402

__all__ = ["WhatsAgentError", "by_hand", "notify"]
