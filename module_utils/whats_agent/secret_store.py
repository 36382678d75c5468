# SPDX-License-Identifier: GPL-3.0-or-later
"""Secrets that a server makes for itself, once: one file each, readable by root only."""

from __future__ import annotations

import re
import secrets
from typing import TYPE_CHECKING

from .errors import WhatsAgentError
from .files import ensure_directory, write_atomic

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

BYTES = 32  # 43 characters of [A-Za-z0-9_-]
_NAME = re.compile(r"[a-z][a-z0-9_]*")


def read_secrets(folder: Path, names: Iterable[str]) -> dict[str, str]:
    """Return those of the named secrets that exist. An empty file is an error: it was meant to hold one."""
    found = {}
    for name in names:
        if not _NAME.fullmatch(name):
            raise WhatsAgentError(
                f"{name!r} is no name for a secret: lower-case letters, digits and underscores", name=name
            )
        path = folder / name
        try:
            text = path.read_text(encoding="ascii").strip()
        except FileNotFoundError:
            continue
        except (OSError, UnicodeDecodeError) as error:
            raise WhatsAgentError(f"cannot read the secret in {path}", path=str(path)) from error
        if not text:
            raise WhatsAgentError(
                f"{path} is empty: put the secret back, or remove the file to have a new one", path=str(path)
            )
        found[name] = text
    return found


def make_secrets(folder: Path, names: Iterable[str], *, write: bool = True) -> tuple[dict[str, str], list[str]]:
    """Return all named secrets, and the names of those made just now; `write=False` keeps them off the disk."""
    wanted = list(names)
    found = read_secrets(folder, wanted)
    missing = [name for name in wanted if name not in found]
    if missing and write:
        ensure_directory(folder)
    for name in missing:
        found[name] = secrets.token_urlsafe(BYTES)
        if write:
            write_atomic(folder / name, found[name] + "\n", mode=0o600)
    return found, missing
