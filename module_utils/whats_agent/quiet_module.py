# SPDX-License-Identifier: GPL-3.0-or-later
"""A module that takes secrets inside of lists of options, and keeps them out of the system's journal.

AnsibleModule writes the options it is called with into that journal. It leaves out what is `no_log`, but looks for those values in
the text of a whole list, where line breaks stand escaped: a secret of several lines is not found there, and logged.
"""

from __future__ import annotations

from ansible.module_utils.basic import AnsibleModule


class QuietModule(AnsibleModule):
    """AnsibleModule, but for what it writes into the system's journal: the options' names only."""

    def _log_invocation(self) -> None:
        """Say that the module ran, and with which options."""
        given = sorted(name for name, value in self.params.items() if value is not None)
        self.log(f"Invoked with the options {', '.join(given)}")
