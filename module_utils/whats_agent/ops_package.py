# SPDX-License-Identifier: GPL-3.0-or-later
"""Install this package, as it came along with a module, where the server's timers find it."""

from __future__ import annotations

import importlib.util
import sys
from typing import TYPE_CHECKING

from .errors import WhatsAgentError
from .files import ensure_directory, write_atomic

if TYPE_CHECKING:
    from pathlib import Path

NAME = "whats_agent_ops"


def sources() -> dict[str, str]:
    """Return the text of every module of this package that is loaded, by file name.

    A module that installs timers imports what they run; all that this needs is then loaded, and nothing else.
    """
    package = __name__.rpartition(".")[0]
    found = {}
    for name in sorted(sys.modules):
        if name != package and not name.startswith(package + "."):
            continue
        spec = importlib.util.find_spec(name)
        loader = spec.loader if spec else None
        text = loader.get_source(name) if loader is not None and hasattr(loader, "get_source") else None
        if text is None:
            raise WhatsAgentError(f"the source of {name} cannot be read")
        found["__init__.py" if name == package else name.removeprefix(package + ".") + ".py"] = text
    return found


def install(folder: Path, *, write: bool) -> list[str]:
    """Bring `folder`/whats_agent_ops to the loaded sources; return the files that differed, stale ones included."""
    target = folder / NAME
    wanted = sources()
    present = {path.name: path for path in target.glob("*.py")} if target.is_dir() else {}
    different = [
        name
        for name, text in wanted.items()
        if name not in present or present[name].read_text(encoding="utf-8") != text
    ]
    stale = sorted(present.keys() - wanted.keys())
    if write and (different or stale):
        ensure_directory(folder, mode=0o755)
        ensure_directory(target, mode=0o755)
        for name in different:
            write_atomic(target / name, wanted[name], mode=0o644)
        for name in stale:
            present[name].unlink()
    return sorted([*different, *stale])
