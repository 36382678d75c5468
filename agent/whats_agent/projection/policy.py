# SPDX-License-Identifier: GPL-3.0-or-later
"""The few settings that decide how the log becomes rows."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Policy:
    """Our own number, seconds of Meta's answer window, seconds that a send of unknown fate waits for its status."""

    phone_number_id: str
    answer_window: float
    echo_wait: float
