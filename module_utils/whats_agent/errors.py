# SPDX-License-Identifier: GPL-3.0-or-later
"""The one error class that the project's modules and timers catch."""

from __future__ import annotations

from typing import Any

Json = Any  # a value that json.loads gives or json.dumps takes
Text = dict[str, str]  # {"en": …, "pt": …}: every text for people comes in both languages


class WhatsAgentError(Exception):
    """Something an operator must read: what failed, on which value, why, and what to do next.

    `details` (JSON-able) go beside the message into `fail_json` and into the run journal, for example `cmd`, `rc`,
    `stderr`.
    """

    def __init__(self, message: str, **details: Json) -> None:
        super().__init__(message)
        self.message = message
        self.details: dict[str, Json] = details
