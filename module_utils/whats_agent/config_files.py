# SPDX-License-Identifier: GPL-3.0-or-later
"""The files that make up the stack's configuration: which there are, whose they are, and what lies there now."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from .errors import WhatsAgentError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

ENV = ".env"
COMPOSE = "compose.yml"
CHAIN = "certs/fullchain.pem"
KEY = "certs/privkey.pem"
NGINX = "config/nginx/nginx.conf"
POSTGRES = "config/postgres/postgresql.conf"
REDIS = "config/redis/redis.conf"
PGBACKREST = "config/pgbackrest/pgbackrest.conf"
PASSPHRASES = "config/pgbackrest/conf.d/secrets.conf"
# What reaching a second repository takes, a folder for SFTP and a CA for HTTPS, and how pgBackRest's configuration names it.
REACHING = {
    "config/pgbackrest/sftp/": "/etc/pgbackrest/sftp/",
    "config/pgbackrest/ca.crt": "/etc/pgbackrest/ca.crt",
}
# Without these the stack does not run. Others may lie beside them; the last good copy knows those.
REQUIRED = (
    ENV,
    COMPOSE,
    NGINX,
    "config/nginx/agent.conf",
    "config/nginx/headers.conf",
    "config/nginx/public.conf",
    "config/nginx/webhook.conf",
    POSTGRES,
    "config/postgres/pg_hba.conf",
    "config/postgres/pg_ident.conf",
    REDIS,
    PGBACKREST,
    PASSPHRASES,
    CHAIN,
    KEY,
)
SECRET = frozenset([ENV, KEY, PASSPHRASES])
_ROOTS = ("config", "certs")

# (mode, owner, group), as docs/interfaces.md has them.
Attributes = tuple[int, int, int]
_POSTGRES, _NGINX, _GROUP = 64011, 64013, 64000
FOLDERS: dict[str, Attributes] = {
    "config": (0o755, 0, 0),
    "config/nginx": (0o755, 0, 0),
    "config/postgres": (0o755, 0, 0),
    "config/redis": (0o755, 0, 0),
    "config/pgbackrest": (0o755, 0, 0),
    "config/pgbackrest/conf.d": (0o500, _POSTGRES, _GROUP),
    "certs": (0o755, 0, 0),
}


@dataclass(frozen=True)
class ConfigFile:
    """One file. `name` is relative to the stack's folder; `changed_ns` when its content was last written, if known."""

    name: str
    content: bytes
    attributes: Attributes
    changed_ns: int | None = None

    @property
    def text(self) -> str:
        """Return the content as text; bytes that are none are replaced."""
        return self.content.decode("utf-8", "replace")

    def with_text(self, text: str) -> ConfigFile:
        """Return it with another content."""
        return replace(self, content=text.encode("utf-8"), changed_ns=None)


def expected_attributes(name: str) -> Attributes:
    """Return mode, owner and group that a file of this name is to have."""
    if name == ENV:
        return 0o600, 0, 0
    if name.startswith("config/pgbackrest/conf.d/"):
        return 0o400, _POSTGRES, _GROUP
    if name.startswith("config/pgbackrest/"):
        return 0o444, _POSTGRES, _GROUP
    if name.startswith("certs/"):
        return 0o400, _NGINX, _GROUP
    return 0o644, 0, 0


def service_of(name: str) -> str | None:
    """Return the service that reads a mounted file; None for what compose reads itself."""
    if name.startswith("certs/"):
        return "nginx"
    parts = name.split("/")
    if parts[0] == "config" and len(parts) > 2:
        return "postgres" if parts[1] == "pgbackrest" else parts[1]
    return None


def shown(attributes: Attributes) -> str:
    """Return attributes as people read them."""
    return "{:04o} {}:{}".format(*attributes)


def attributes_of(path: Path) -> Attributes:
    """Return what a path has."""
    status = path.lstat()
    return stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid


def read_files(stack_dir: Path) -> dict[str, ConfigFile]:
    """Return the configuration's regular files by name. Links and half-written temporary files are not among them."""
    paths = [stack_dir / ENV, stack_dir / COMPOSE]
    for root in _ROOTS:
        for folder, _folders, names in os.walk(stack_dir / root):
            paths += [stack_dir / folder / name for name in names if not name.startswith(".")]
    found: dict[str, ConfigFile] = {}
    for path in paths:
        try:
            status = path.lstat()
            if not stat.S_ISREG(status.st_mode):
                continue
            content = path.read_bytes()
        except FileNotFoundError:
            continue
        except OSError as error:
            raise WhatsAgentError(f"cannot read {path}: {error.strerror}", path=str(path)) from error
        name = str(path.relative_to(stack_dir))
        found[name] = ConfigFile(name, content, attributes_of(path), status.st_mtime_ns)
    return found


def wrong_attributes(stack_dir: Path, files: Mapping[str, ConfigFile]) -> dict[str, tuple[Attributes, Attributes]]:
    """Return the files and folders with another mode or owner than they are to have: name → (has, should have)."""
    wrong = {
        name: (file.attributes, expected_attributes(name))
        for name, file in files.items()
        if name in REQUIRED and file.attributes != expected_attributes(name)
    }
    for name, wanted in FOLDERS.items():
        path = stack_dir / name
        if path.is_dir() and not path.is_symlink() and attributes_of(path) != wanted:
            wrong[name] = (attributes_of(path), wanted)
    return wrong
