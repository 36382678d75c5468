# SPDX-License-Identifier: GPL-3.0-or-later
"""What the runbook tests share."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import ansible.module_utils
import pytest

# Our helpers live beside ansible's own, as ansible-playbook sees them through ansible.cfg.
ansible.module_utils.__path__.append(str(Path(__file__).resolve().parents[3] / "module_utils"))


@pytest.fixture
def eventually() -> Callable[..., None]:
    """Return `eventually(condition, timeout=10)`: waits until the condition holds, or fails."""

    def wait(condition: Callable[[], bool], timeout: float = 10) -> None:
        deadline = time.monotonic() + timeout
        while not condition():
            assert time.monotonic() < deadline, "the condition did not come true in time"
            time.sleep(0.05)

    return wait
