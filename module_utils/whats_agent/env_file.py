# SPDX-License-Identifier: GPL-3.0-or-later
"""The stack's `.env`: read it, ask it for what must be there, change values by one atomic rename.

Lines are `NAME=value`, values unquoted; blank lines and comments are kept where they are.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from .errors import WhatsAgentError
from .files import write_atomic

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def parse_env(text: str, source: str = ".env") -> dict[str, str]:
    """Return the variables of an env file's text, in order. Errors name the line, never its value."""
    values: dict[str, str] = {}
    for number, raw in enumerate(text.splitlines(), start=1):
        line = raw.strip()
        if not line or line.startswith("#"):
            continue
        name, separator, value = line.partition("=")
        if not separator or not _NAME.fullmatch(name):
            raise WhatsAgentError(
                f"{source} line {number} is not NAME=value",
                pt=f"{source}: a linha {number} não é NOME=valor",
                path=source,
                line=number,
            )
        if name in values:
            raise WhatsAgentError(
                f"{source} line {number} sets {name} a second time",
                pt=f"{source}: a linha {number} define {name} pela segunda vez",
                path=source,
                line=number,
            )
        values[name] = value
    return values


def read_env(path: Path) -> dict[str, str]:
    """Return the variables of an env file. A missing or unreadable file is an error that says what to do."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise WhatsAgentError(
            f"{path} does not exist: deploy first (playbooks/deploy.yml) or restore it (playbooks/recover_config.yml)",
            pt=f"{path} não existe: implante primeiro (playbooks/deploy.yml) ou restaure-o (playbooks/recover_config.yml)",
            path=str(path),
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise WhatsAgentError(
            f"cannot read {path}: {error}", pt=f"não é possível ler {path}: {error}", path=str(path)
        ) from error
    return parse_env(text, str(path))


def require(values: Mapping[str, str], names: Iterable[str], source: str = ".env") -> None:
    """Fail, naming every variable that is missing or empty."""
    missing = [name for name in names if not values.get(name)]
    if missing:
        names = ", ".join(missing)
        raise WhatsAgentError(f"{source} lacks {names}", pt=f"{source} não tem {names}", path=source, missing=missing)


def replace_values(text: str, changes: Mapping[str, str], source: str = ".env") -> str:
    """Return the text with the given variables set in place, new ones appended; every other line stays as it is."""
    for name, value in changes.items():
        if not _NAME.fullmatch(name):
            raise WhatsAgentError(f"{name!r} is no variable name", pt=f"{name!r} não é nome de variável", name=name)
        if any(character in value for character in "\n\r\0") or value != value.strip():
            raise WhatsAgentError(
                f"the value for {name} has a line break or outer spaces",
                pt=f"o valor de {name} tem quebra de linha ou espaços nas pontas",
                name=name,
            )
    parse_env(text, source)
    pending = dict(changes)
    lines = []
    for line in text.splitlines():
        name = line.strip().partition("=")[0]
        lines.append(f"{name}={pending.pop(name)}" if name in pending else line)
    lines += [f"{name}={value}" for name, value in pending.items()]
    return "\n".join(lines) + "\n"


def set_env(path: Path, changes: Mapping[str, str]) -> bool:
    """Set variables in an env file by one atomic rename that keeps owner and mode; return whether anything changed."""
    current = read_env(path)
    if all(current.get(name) == value for name, value in changes.items()):
        return False
    status = path.stat()
    text = replace_values(path.read_text(encoding="utf-8"), changes, str(path))
    write_atomic(path, text, mode=status.st_mode & 0o7777, owner=(status.st_uid, status.st_gid))
    return True
