# SPDX-License-Identifier: GPL-3.0-or-later
"""Build contexts of the project's images: what goes in, a name for it by content, and one archive to send.

A release is named by a hash over every file of every context and over what else decides about the result (`salt`): the
same content has the same name on every machine, and an unchanged project builds nothing.
"""

from __future__ import annotations

import contextlib
import fnmatch
import hashlib
import os
import stat
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from .errors import WhatsAgentError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

RELEASE_LENGTH = 12
# What tools leave in a working copy: never part of an image, never a reason for a new release.
EXCLUDED = ("__pycache__", ".*", "*.pyc", "*.egg-info", "build", "dist", "*.md")


@dataclass(frozen=True, order=True)
class ContextFile:
    """One file of a build context: its path in there (`agent/Dockerfile`), where it lies, whether it is executable."""

    path: str
    source: Path
    executable: bool


def _is_excluded(name: str) -> bool:
    return any(fnmatch.fnmatch(name, pattern) for pattern in EXCLUDED)


def collect(prefix: str, source: Path) -> list[ContextFile]:
    """Return the files below a folder (or the one file), sorted, with their paths below `prefix`.

    Links are followed by nobody: one is an error, since a build context must not depend on what lies outside it.
    """
    if source.is_symlink():
        raise WhatsAgentError(f"{source} is a symbolic link: a build context holds only files", path=str(source))
    if source.is_file():
        return [ContextFile(prefix, source, bool(source.stat().st_mode & stat.S_IXUSR))]
    if not source.is_dir():
        raise WhatsAgentError(f"{source} does not exist, and an image is built from it", path=str(source))
    found: list[ContextFile] = []
    for entry in sorted(source.iterdir()):
        if not _is_excluded(entry.name):
            found += collect(f"{prefix}/{entry.name}", entry)
    return found


def collect_all(contexts: Mapping[str, Iterable[str | Path]]) -> list[ContextFile]:
    """Return the files of all contexts.

    `contexts` maps an image's name to the folders that are laid over each other.
    """
    files: dict[str, ContextFile] = {}
    for name in sorted(contexts):
        for folder in contexts[name]:
            for file in collect(name, Path(folder)):
                if file.path in files:
                    raise WhatsAgentError(f"{file.path} comes from both {files[file.path].source} and {file.source}")
                files[file.path] = file
        if f"{name}/Dockerfile" not in files:
            raise WhatsAgentError(f"the context of the image {name} has no Dockerfile", image=name)
    return sorted(files.values())


def release_of(files: Sequence[ContextFile], salt: Sequence[str]) -> str:
    """Return the release's name: the first hex digits of a SHA-256 over paths, modes and contents."""
    total = hashlib.sha256()
    for text in salt:
        total.update(f"salt {len(text)} {text}\n".encode())
    for file in files:
        try:
            content = hashlib.sha256(file.source.read_bytes()).hexdigest()
        except OSError as error:
            raise WhatsAgentError(f"cannot read {file.source}: {error.strerror}", path=str(file.source)) from error
        total.update(f"{content} {int(file.executable)} {file.path}\n".encode())
    return total.hexdigest()[:RELEASE_LENGTH]


def _anonymous(member: tarfile.TarInfo, *, executable: bool) -> tarfile.TarInfo:
    """Take from an archive's entry whatever differs between machines."""
    member.uid = member.gid = 0
    member.uname = member.gname = "root"
    member.mtime = 0
    member.mode = 0o755 if executable else 0o644
    return member


def write_archive(destination: Path, files: Sequence[ContextFile]) -> None:
    """Write the files as a tar archive by one rename.

    Equal files give an equal archive, so builders find their cache.
    """
    destination.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=destination.parent, prefix=f".{destination.name}.")
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as stream, tarfile.open(fileobj=stream, mode="w") as archive:
            for file in files:
                member = _anonymous(archive.gettarinfo(str(file.source), file.path), executable=file.executable)
                with file.source.open("rb") as content:
                    archive.addfile(member, content)
        temporary.replace(destination)
    except OSError as error:
        raise WhatsAgentError(f"cannot write {destination}: {error.strerror}", path=str(destination)) from error
    finally:
        with contextlib.suppress(FileNotFoundError):
            temporary.unlink()
