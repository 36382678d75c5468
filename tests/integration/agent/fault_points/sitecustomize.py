# SPDX-License-Identifier: GPL-3.0-or-later
"""Kills the process at a chosen step of the message's path. Mounted into the agent's containers by the chaos test only.

Python imports a module of this name at its start. It wraps the functions named in POINTS as their modules are loaded; a wrapped
function whose point is armed ends the process as ``kill -9`` would, before or after its work. The test arms a point by making
the file ``/fault_points/armed/<point>``; whoever removes that file first dies, so that each arming kills once.
"""

from __future__ import annotations

import functools
import importlib.abc
import importlib.machinery
import importlib.util
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

ARMED = Path("/fault_points/armed")

# point -> (module, function or Class.method)
POINTS = {
    "log_insert": ("whats_agent.message_log.store", "insert"),
    "project_item": ("whats_agent.projection.apply", "apply"),
    "project_batch": ("whats_agent.projection.projector", "Projector._step"),
    "claim": ("whats_agent.outbox.queue", "claim"),
    "ask_openai": ("whats_agent.openai_client.client", "OpenAIAnswerer.answer"),
    "keep_reply": ("whats_agent.outbox.queue", "keep_reply"),
    "start_sending": ("whats_agent.outbox.queue", "start_sending"),
    "send": ("whats_agent.graph.client", "GraphClient.send_text"),
    "settle": ("whats_agent.outbox.settle", "apply_result"),
}


def die_if_armed(point: str) -> None:
    try:
        (ARMED / point).unlink()
    except FileNotFoundError:
        return
    os.kill(os.getpid(), signal.SIGKILL)


def wrapped(point: str, function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        die_if_armed(f"before_{point}")
        result = function(*args, **kwargs)
        die_if_armed(f"after_{point}")
        return result

    return call


def instrument(module: ModuleType) -> None:
    """Wrap this module's points; an AttributeError here says that POINTS no longer fits the agent."""
    for point, (name, path) in POINTS.items():
        if name == module.__name__:
            holder: Any = module
            *parents, last = path.split(".")
            for parent in parents:
                holder = getattr(holder, parent)
            setattr(holder, last, wrapped(point, getattr(holder, last)))


class Loader(importlib.abc.Loader):
    """Loads as the real loader does, then instruments."""

    def __init__(self, real: importlib.abc.Loader) -> None:
        self._real = real

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        return self._real.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        self._real.exec_module(module)
        instrument(module)


class Finder(importlib.abc.MetaPathFinder):
    """Finds only the modules that hold points."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if name not in {module for module, _ in POINTS.values()}:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = Loader(spec.loader)
        return spec


sys.meta_path.insert(0, Finder())
