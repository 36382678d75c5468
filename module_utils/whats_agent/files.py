# SPDX-License-Identifier: GPL-3.0-or-later
"""Files that survive a crash: written whole or not at all, and on the disk when the call returns."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
from pathlib import Path

from .errors import Json, WhatsAgentError

ESCROW_PREFIX = "escrow-"  # of folders in which escrowed secrets lie while they are tried


def sync_directory(path: Path) -> None:
    """Flush a directory, so that names created or renamed in it survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def ensure_directory(path: Path, mode: int = 0o700) -> bool:
    """Create a directory and its parents; return whether it was missing. An existing one keeps its mode."""
    if path.is_dir():
        return False
    try:
        path.mkdir(mode=mode, parents=True, exist_ok=True)
    except OSError as error:
        raise WhatsAgentError(f"cannot create the directory {path}: {error.strerror}", path=str(path)) from error
    sync_directory(path.parent)
    return True


def sweep_scratch(scratch: Path, prefix: str = ESCROW_PREFIX) -> None:
    """Remove the folders that killed runs left: with secrets in them that were to lie there for a moment."""
    for left in scratch.glob(f"{prefix}*"):
        shutil.rmtree(left, ignore_errors=True)


def write_atomic(
    path: Path,
    data: bytes | str,
    *,
    mode: int = 0o600,
    owner: tuple[int, int] | None = None,
    durable: bool = True,
) -> None:
    """Replace a file by rename, so that a reader or a crash sees the old content or the new one.

    `owner` is (uid, gid). `durable=False` leaves out the flushes, for content that a reboot makes void anyway.
    """
    content = data.encode("utf-8") if isinstance(data, str) else data
    temporary: Path | None = None
    try:
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        temporary = Path(name)
        with os.fdopen(descriptor, "wb") as stream:
            os.fchmod(stream.fileno(), mode)
            if owner is not None:
                os.fchown(stream.fileno(), *owner)
            stream.write(content)
            stream.flush()
            if durable:
                os.fsync(stream.fileno())
        temporary.replace(path)
        temporary = None
        if durable:
            sync_directory(path.parent)
    except OSError as error:
        raise WhatsAgentError(f"cannot write {path}: {error.strerror}", path=str(path), errno=error.errno) from error
    finally:
        if temporary is not None:
            with contextlib.suppress(FileNotFoundError):
                temporary.unlink()


def write_json(path: Path, value: Json, *, mode: int = 0o600, durable: bool = True) -> None:
    """Write a value as JSON, atomically."""
    write_atomic(path, json.dumps(value, ensure_ascii=False, sort_keys=True) + "\n", mode=mode, durable=durable)


def read_json(path: Path) -> Json | None:
    """Return a JSON file's value, or None when there is no such file. Broken JSON is an error that names the file."""
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except OSError as error:
        raise WhatsAgentError(f"cannot read {path}: {error.strerror}", path=str(path), errno=error.errno) from error
    except ValueError as error:
        raise WhatsAgentError(f"{path} is not valid JSON: {error}", path=str(path)) from error


def append_line(path: Path, line: str, *, mode: int = 0o600) -> None:
    """Append one line with a single write and flush it; lines of several writers never mix.

    A line that a crash cut short is closed first, so that it spoils itself and not its successor.
    """
    if "\n" in line:
        raise WhatsAgentError(f"a line for {path} holds a line break", path=str(path))
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, mode)
        try:
            size = os.fstat(descriptor).st_size
            broken = size > 0 and os.pread(descriptor, 1, size - 1) != b"\n"
            payload = ("\n" if broken else "").encode() + line.encode("utf-8") + b"\n"
            if os.write(descriptor, payload) != len(payload):
                raise WhatsAgentError(f"cannot append to {path}: the disk took only part of the line", path=str(path))
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        if size == 0:
            sync_directory(path.parent)
    except OSError as error:
        raise WhatsAgentError(
            f"cannot append to {path}: {error.strerror}", path=str(path), errno=error.errno
        ) from error
