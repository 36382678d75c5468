# SPDX-License-Identifier: GPL-3.0-or-later
"""What a tree of files holds, by sums: so that what comes back out of an archive can be held against what went in."""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import WhatsAgentError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

NAME = "manifest.json"
_CHUNK = 1 << 20
_SHOWN = 5


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def paths(root: Path) -> Iterator[Path]:
    """Yield the files and links below a folder, by name; the manifest itself is none of them."""
    for folder, folders, names in os.walk(root):
        folders.sort()
        links = [name for name in folders if (Path(folder) / name).is_symlink()]
        for name in sorted([*names, *links]):
            path = Path(folder) / name
            if path != root / NAME:
                yield path


def describe(path: Path) -> dict[str, Any]:
    """Return what a file is to be when it comes back. Anything but a file or a link is an error: it cannot be archived."""
    status = path.lstat()
    owner = {"uid": status.st_uid, "gid": status.st_gid}
    if stat.S_ISLNK(status.st_mode):
        return {"link": str(path.readlink()), **owner}
    if not stat.S_ISREG(status.st_mode):
        raise WhatsAgentError(
            f"{path} is neither a file nor a link and cannot be archived: move it away", path=str(path)
        )
    return {"sha256": sha256_of(path), "size": status.st_size, "mode": f"{stat.S_IMODE(status.st_mode):04o}", **owner}


def of(root: Path) -> dict[str, dict[str, Any]]:
    """Describe every file below a folder, by its path from there with a leading slash."""
    return {f"/{path.relative_to(root)}": describe(path) for path in paths(root)}


def differences(
    root: Path, files: Mapping[str, Mapping[str, Any]], wanted: Callable[[str], bool] = lambda _path: True
) -> list[str]:
    """Say how the files below a folder differ from a manifest's, as far as they are `wanted`: missing, changed, too many."""
    expected = {path: dict(entry) for path, entry in files.items() if wanted(path)}
    found = of(root)
    lines = [f"{path} is missing" for path in sorted(expected.keys() - found.keys())]
    lines += [f"{path} is too many" for path in sorted(found.keys() - expected.keys())]
    for path in sorted(expected.keys() & found.keys()):
        changed = sorted(
            key for key in expected[path].keys() | found[path].keys() if expected[path].get(key) != found[path].get(key)
        )
        if changed:
            lines.append(f"{path} differs in {', '.join(changed)}")
    return lines


def summary(lines: list[str]) -> str:
    """Put differences into one line."""
    more = f" and {len(lines) - _SHOWN} more" if len(lines) > _SHOWN else ""
    return "; ".join(lines[:_SHOWN]) + more
