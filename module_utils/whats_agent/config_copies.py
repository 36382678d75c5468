# SPDX-License-Identifier: GPL-3.0-or-later
"""Last good copies of the configuration, kept on the server, encrypted and authenticated.

Each copy is one file: a JSON object of `version`, `at`, `salt`, `nonce` and `data`, the latter AES-256-GCM over the files, with
a key that scrypt derives from the passphrase of the backups. That passphrase lies in the operator's vault (or, for
inventories without one, among the server's own secrets), never beside the copies.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from .clock import SYSTEM_CLOCK, Clock
from .config_files import ConfigFile
from .errors import WhatsAgentError
from .files import ensure_directory, write_atomic

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

VERSION = 1
KEPT = 10
_SUFFIX = ".sealed"
_STAMP = "%Y%m%dT%H%M%SZ"
_NO_CRYPTOGRAPHY = "python3-cryptography is missing: run playbooks/deploy.yml"
_SALT_BYTES, _NONCE_BYTES, _KEY_BYTES = 16, 12, 32


@dataclass(frozen=True)
class Copy:
    """A configuration that was verified when it was kept. `at` is its UTC stamp, which is also its file's name."""

    at: str
    files: dict[str, ConfigFile]


def _cipher(passphrase: str, salt: bytes) -> Any:
    try:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM
    except ImportError as error:
        raise WhatsAgentError(_NO_CRYPTOGRAPHY) from error
    key = hashlib.scrypt(passphrase.encode(), salt=salt, n=2**14, r=8, p=1, dklen=_KEY_BYTES)
    return AESGCM(key)


def seal(copy: Copy, passphrase: str) -> bytes:
    """Return a copy as it is written."""
    salt, nonce = secrets.token_bytes(_SALT_BYTES), secrets.token_bytes(_NONCE_BYTES)
    plain = json.dumps(
        [
            {
                "name": file.name,
                "content": base64.b64encode(file.content).decode("ascii"),
                "attributes": list(file.attributes),
                "changed_ns": file.changed_ns,
            }
            for file in copy.files.values()
        ]
    ).encode()
    sealed = _cipher(passphrase, salt).encrypt(nonce, plain, copy.at.encode())
    document = {"version": VERSION, "at": copy.at, "salt": salt, "nonce": nonce, "data": sealed}
    text = {k: base64.b64encode(v).decode("ascii") if isinstance(v, bytes) else v for k, v in document.items()}
    return (json.dumps(text) + "\n").encode()


def unseal(data: bytes, passphrase: str, source: str) -> Copy:
    """Return what a file holds; a damaged file and a wrong passphrase are one error, since nobody can tell them apart."""
    try:
        from cryptography.exceptions import InvalidTag
    except ImportError as error:
        raise WhatsAgentError(_NO_CRYPTOGRAPHY) from error
    try:
        document = json.loads(data)
        if document["version"] != VERSION:
            raise WhatsAgentError(f"{source} is of version {document['version']}, this release reads {VERSION}")
        salt, nonce, sealed = (base64.b64decode(document[key]) for key in ("salt", "nonce", "data"))
        plain = _cipher(passphrase, salt).decrypt(nonce, sealed, str(document["at"]).encode())
    except InvalidTag as error:
        raise WhatsAgentError(f"{source} does not open: it is damaged, or kept with another passphrase") from error
    except (ValueError, KeyError, TypeError) as error:
        raise WhatsAgentError(f"{source} is damaged: no copy of a configuration") from error
    files = {
        entry["name"]: ConfigFile(
            entry["name"], base64.b64decode(entry["content"]), tuple(entry["attributes"]), entry["changed_ns"]
        )
        for entry in json.loads(plain)
    }
    return Copy(str(document["at"]), files)


def next_stamp(now: str, taken: Iterable[str]) -> str:
    """Return the stamp of a copy kept now: after all others, also where the clock was set back since. Pure.

    The newest by name is what the configuration is held against; one from before the clock was right would stay that for ever.
    """
    for stamp in taken:
        with contextlib.suppress(ValueError):
            after = datetime.strptime(stamp, _STAMP).replace(tzinfo=UTC) + timedelta(seconds=1)
            now = max(now, after.strftime(_STAMP))
    return now


class CopyStore:
    """The copies of one server."""

    def __init__(self, folder: Path, passphrase: str | None, clock: Clock = SYSTEM_CLOCK) -> None:
        """Name the folder; nothing is touched yet. Without a passphrase copies are neither read nor written."""
        self.folder = folder
        self._passphrase = passphrase
        self._clock = clock

    def paths(self) -> list[Path]:
        """Return the copies' files, newest first."""
        return sorted(self.folder.glob(f"*{_SUFFIX}"), reverse=True) if self.folder.is_dir() else []

    def newest(self) -> tuple[Copy | None, list[str]]:
        """Return the newest copy that opens, or None, and why newer ones do not."""
        paths = self.paths()
        if paths and not self._passphrase:
            return None, [f"{len(paths)} copies in {self.folder} cannot be opened: {_KEYLESS}"]
        problems: list[str] = []
        for path in paths:
            try:
                return unseal(path.read_bytes(), self._passphrase or "", str(path)), problems
            except OSError as error:
                problems.append(f"cannot read {path}: {error.strerror}")
            except WhatsAgentError as error:
                problems.append(error.message)
        return None, problems

    def keep(self, files: Mapping[str, ConfigFile], *, write: bool) -> bool:
        """Keep a verified configuration, unless the newest copy holds the same; return whether it was new."""
        if not self._passphrase:
            raise WhatsAgentError(f"cannot keep a copy of the configuration: {_KEYLESS}")
        newest, _problems = self.newest()
        if newest is not None and _bytes(newest.files) == _bytes(files):
            return False
        if write:
            ensure_directory(self.folder)
            copy = Copy(
                next_stamp(self._clock.stamp(), [path.name.removesuffix(_SUFFIX) for path in self.paths()]), dict(files)
            )
            write_atomic(self.folder / f"{copy.at}{_SUFFIX}", seal(copy, self._passphrase), mode=0o600)
            for path in self.paths()[KEPT:]:
                path.unlink()
        return True


_KEYLESS = "the inventory has no backup_cipher_passphrase, and the server none of its own"


def _bytes(files: Mapping[str, ConfigFile]) -> dict[str, bytes]:
    return {name: file.content for name, file in files.items()}
