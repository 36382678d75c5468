# SPDX-License-Identifier: GPL-3.0-or-later
"""No container is signalled through the engine.

It takes any signal, a reload too, for a stop by hand, and a container with `restart: unless-stopped` then stays down after a
restart of the server.
"""

from __future__ import annotations

import re
from pathlib import Path

ROLES = Path(__file__).resolve().parents[3] / "roles"
THROUGH_THE_ENGINE = re.compile(r"^[^#\n]*\bkill\b.{0,5}--signal", re.MULTILINE)


def test_roles_signal_processes_and_not_containers() -> None:
    texts = {path: path.read_text(encoding="utf-8") for path in ROLES.rglob("*") if path.suffix in (".yml", ".j2")}
    assert texts
    assert [str(path) for path, text in texts.items() if THROUGH_THE_ENGINE.search(text)] == []
