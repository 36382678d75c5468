# SPDX-License-Identifier: GPL-3.0-or-later
"""Many small files and folders, brought to a wanted state in one go: each file is replaced atomically or left alone."""

from __future__ import annotations

import os
import shutil
import stat
from dataclasses import dataclass
from pathlib import Path

from .errors import WhatsAgentError
from .files import sync_directory, write_atomic


@dataclass(frozen=True)
class Folder:
    """A folder that is to exist. `mode` is the permission bits, owner and group are numbers."""

    path: Path
    mode: int
    owner: int
    group: int


@dataclass(frozen=True)
class File:
    """A file that is to hold exactly `content`. A `secret` one never shows in a difference."""

    path: Path
    content: str
    mode: int
    owner: int
    group: int
    secret: bool


@dataclass(frozen=True)
class Change:
    """One difference found: what about the path differs, and texts of before and after to show."""

    path: str
    what: str
    before: str
    after: str


def _attributes(path: Path) -> tuple[int, int, int] | None:
    """Return permission bits, owner and group, or None when nothing is there; a link is refused."""
    try:
        status = path.lstat()
    except FileNotFoundError:
        return None
    if stat.S_ISLNK(status.st_mode):
        raise WhatsAgentError(f"{path} is a symbolic link: remove it first", path=str(path))
    return stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid


def _shown(attributes: tuple[int, int, int] | None) -> str:
    return "absent" if attributes is None else "{:04o} {}:{}".format(*attributes)


def settle_folder(folder: Folder, *, write: bool) -> Change | None:
    """Create or correct a folder; return what differed."""
    before = _attributes(folder.path)
    wanted = (folder.mode, folder.owner, folder.group)
    if before == wanted:
        return None
    if before is not None and not folder.path.is_dir():
        raise WhatsAgentError(f"{folder.path} is no folder: move it away first", path=str(folder.path))
    if write:
        if before is None:
            folder.path.mkdir(mode=0o700, parents=True)
            sync_directory(folder.path.parent)
        os.chown(folder.path, folder.owner, folder.group)
        folder.path.chmod(folder.mode)
    return Change(str(folder.path), "folder", _shown(before), _shown(wanted))


def settle_file(file: File, *, write: bool) -> Change | None:
    """Write or correct a file; return what differed."""
    before = _attributes(file.path)
    wanted = (file.mode, file.owner, file.group)
    old = None
    if before is not None:
        if not file.path.is_file():
            raise WhatsAgentError(f"{file.path} is no file: move it away first", path=str(file.path))
        old = file.path.read_text(encoding="utf-8", errors="surrogateescape")
    if old == file.content:
        if before == wanted:
            return None
        if write:
            os.chown(file.path, file.owner, file.group)
            file.path.chmod(file.mode)
        return Change(str(file.path), "attributes", _shown(before), _shown(wanted))
    if write:
        write_atomic(file.path, file.content, mode=file.mode, owner=(file.owner, file.group))
    if file.secret:
        return Change(str(file.path), "content", "(secret)", "(secret, changed)")
    return Change(str(file.path), "content", old or "", file.content)


def settle_absent(path: Path, *, write: bool) -> Change | None:
    """Remove a file, a link or a folder with all that is in it; return what differed."""
    if not os.path.lexists(path):
        return None
    if write:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
    return Change(str(path), "presence", "present", "absent")


def settle(absent: list[Path], folders: list[Folder], files: list[File], *, write: bool) -> list[Change]:
    """Bring what must go, then all folders, then all files, to their wanted state, in the order given."""
    try:
        changes = [settle_absent(path, write=write) for path in absent]
        changes += [settle_folder(folder, write=write) for folder in folders]
        changes += [settle_file(file, write=write) for file in files]
    except OSError as error:
        raise WhatsAgentError(f"cannot write {error.filename}: {error.strerror}", path=str(error.filename)) from error
    return [change for change in changes if change is not None]
