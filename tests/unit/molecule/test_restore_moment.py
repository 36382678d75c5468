# SPDX-License-Identifier: GPL-3.0-or-later
"""A restore must be stopped right behind the wanted step, however quickly the next ones would follow."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

SOURCE = Path(__file__).resolve().parents[3] / "tests" / "molecule" / "library" / "restore_moment.py"
# Takes all steps at once, as soon as somebody watches it.
RESTORE = """
import fcntl, json, os, sys
folder, steps = sys.argv[1], sys.argv[2:]
guard = open(f"{folder}/restore.guard", "w")
fcntl.flock(guard, fcntl.LOCK_EX)
while "TracerPid:\\t0\\n" in open("/proc/self/status").read():
    pass
for step in steps:
    with open(f"{folder}/new", "w") as stream:
        json.dump({"step": step, "old_volume": "old"}, stream)
    os.rename(f"{folder}/new", f"{folder}/restore.json")
"""


def load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("restore_moment", SOURCE)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules["restore_moment"] = module
    spec.loader.exec_module(module)
    return module


moment = load()


def parameters(folder: Path, step: str) -> dict[str, object]:
    return {"state_dir": str(folder), "step": step, "freeze": True, "timeout": 30, "flag": str(folder / "flag")}


def step_in(folder: Path) -> str:
    return str(json.loads((folder / "restore.json").read_text(encoding="utf-8"))["step"])


@pytest.mark.parametrize("step", moment.STEPS[:-1])
def test_stops_right_behind_the_step_and_lets_go_on(tmp_path: Path, step: str) -> None:
    with subprocess.Popen([sys.executable, "-c", RESTORE, str(tmp_path), *moment.STEPS]) as restore:
        try:
            reached = moment.reach(parameters(tmp_path, step))
            assert reached == {"step": step, "old_volume": "old", "pids": [restore.pid]}
            assert step_in(tmp_path) == step
            assert (tmp_path / "flag").read_text(encoding="utf-8") == f"{step}\n"
            moment.resume(parameters(tmp_path, step))
            assert restore.wait(30) == 0
        finally:
            restore.kill()
    assert step_in(tmp_path) == moment.STEPS[-1]
    assert not (tmp_path / "flag").exists()


def test_tells_of_a_restore_that_ends_before_the_step(tmp_path: Path) -> None:
    command = [sys.executable, "-c", RESTORE, str(tmp_path), "planned", "fenced"]
    with subprocess.Popen(command), pytest.raises(moment.MomentError, match="ended before it came to restored"):
        moment.reach(parameters(tmp_path, "restored"))


def test_tells_that_there_is_nothing_to_hold(tmp_path: Path) -> None:
    with pytest.raises(moment.MomentError, match="no restore has begun"):
        moment.reach({**parameters(tmp_path, "planned"), "timeout": 0})
    with pytest.raises(moment.MomentError, match="no restore is held"):
        moment.resume(parameters(tmp_path, "planned"))
