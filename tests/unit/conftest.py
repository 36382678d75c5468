# SPDX-License-Identifier: GPL-3.0-or-later
"""What unit tests of our modules and their helpers share."""

from __future__ import annotations

import importlib
import itertools
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ansible.module_utils
import pytest
from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.testing import patch_module_args

ROOT = Path(__file__).resolve().parents[2]
# Our helpers live beside ansible's own, as ansible-playbook sees them through ansible.cfg.
ansible.module_utils.__path__.append(str(ROOT / "module_utils"))

from ansible.module_utils.whats_agent.clock import Clock  # noqa: E402 (found only by the line above)


class ModuleExit(BaseException):
    """How a module ended. A BaseException, so that no module's own `except` can take it."""

    def __init__(self, failed: bool, result: dict[str, Any]) -> None:
        super().__init__(result)
        self.failed = failed
        self.result = result


RunModule = Callable[..., dict[str, Any]]


@pytest.fixture
def run_module(monkeypatch: pytest.MonkeyPatch) -> RunModule:
    """Return `run(name, params, check=False, fails=False) -> result`, which runs a module's real main()."""

    def exit_json(_self: Any, **result: Any) -> None:
        raise ModuleExit(False, {"changed": False, **result})

    def fail_json(_self: Any, msg: str, **result: Any) -> None:
        raise ModuleExit(True, {"msg": msg, **result})

    monkeypatch.setattr(AnsibleModule, "exit_json", exit_json)
    monkeypatch.setattr(AnsibleModule, "fail_json", fail_json)

    def run(name: str, params: dict[str, Any], *, check: bool = False, fails: bool = False) -> dict[str, Any]:
        module = importlib.import_module(name)
        with patch_module_args({**params, "_ansible_check_mode": check}), pytest.raises(ModuleExit) as exit_info:
            module.main()
        assert exit_info.value.failed is fails, exit_info.value.result
        return exit_info.value.result

    return run


class FakeClock:
    """Clocks that move only when told; made into the product's Clock by `clock`."""

    def __init__(self) -> None:
        self.boot_seconds = 1000.0
        self.wall_seconds = 1_770_000_000.0
        self.boot = "boot-1"
        self.slept: list[float] = []

    def advance(self, seconds: float) -> None:
        """Let time pass on both clocks."""
        self.boot_seconds += seconds
        self.wall_seconds += seconds

    def _sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.advance(seconds)

    @property
    def clock(self) -> Clock:
        """Return it as the product's Clock."""
        return Clock(
            boottime=lambda: self.boot_seconds,
            boot_id=lambda: self.boot,
            wall=lambda: self.wall_seconds,
            sleep=self._sleep,
        )


@pytest.fixture
def fake_clock() -> FakeClock:
    """Return clocks that move only when told."""
    return FakeClock()


@pytest.fixture
def eventually() -> Callable[..., None]:
    """Return `eventually(condition, timeout=10)`: waits until the condition holds, or fails."""

    def wait(condition: Callable[[], bool], timeout: float = 10) -> None:
        deadline = time.monotonic() + timeout
        for _ in itertools.count():
            if condition():
                return
            assert time.monotonic() < deadline, "the condition did not come true in time"
            time.sleep(0.02)

    return wait
