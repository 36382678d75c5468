# SPDX-License-Identifier: GPL-3.0-or-later
"""What the modules about the configuration are told, and how it is read."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from .config_files import ConfigFile, expected_attributes
from .config_observe import ConfigPlace, Rendering

if TYPE_CHECKING:
    from collections.abc import Mapping

ARGUMENTS: dict[str, dict[str, Any]] = {
    "stack_dir": {"type": "path", "default": "/opt/whats_agent"},
    "state_dir": {"type": "path", "default": "/var/lib/whats_agent"},
    "copies_dir": {"type": "path", "default": "/var/backups/whats_agent/config"},
    "repository": {"type": "path", "default": "/var/backups/whats_agent/pgbackrest"},
    "project": {"type": "str", "default": "whats_agent"},
    "passphrase": {"type": "str", "no_log": True},
    "volume": {"type": "str", "default": ""},
    "rendered": {
        "type": "list",
        "elements": "dict",
        # The list itself is no secret, its contents are.
        "no_log": False,
        "options": {
            "path": {"type": "path", "required": True},
            "content": {"type": "str", "required": True, "no_log": True},
            "mode": {"type": "str"},
            "owner": {"type": "int"},
            "group": {"type": "int"},
        },
    },
    "lacks": {"type": "list", "elements": "str", "default": []},
    "makes_certificate": {"type": "bool", "default": False},
}


def place_of(parameters: Mapping[str, Any]) -> ConfigPlace:
    """Return where the parameters say that the stack's configuration lies."""
    folders = {name: Path(parameters[name]) for name in ("stack_dir", "state_dir", "copies_dir", "repository")}
    return ConfigPlace(**folders, project=parameters["project"])


def rendering_of(parameters: Mapping[str, Any]) -> Rendering | None:
    """Return what the controller would write, or None when nobody asked it."""
    if parameters["rendered"] is None:
        return None
    root = Path(parameters["stack_dir"])
    files = {}
    for item in parameters["rendered"]:
        path = Path(item["path"])
        if path.is_relative_to(root):
            name = str(path.relative_to(root))
            files[name] = ConfigFile(name, item["content"].encode("utf-8"), expected_attributes(name))
    return Rendering(files, parameters["makes_certificate"], tuple(parameters["lacks"]))
