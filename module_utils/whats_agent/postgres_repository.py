# SPDX-License-Identifier: GPL-3.0-or-later
"""Keep beside the backup repository the two small files without which nothing in it can be read, and put them back.

`archive.info` and `backup.info` each hold the key to what lies beside them, encrypted with the repository's passphrase. pgBackRest
writes each twice, side by side: what removes one removes both, and it makes neither anew where the other files are still there.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from .errors import WhatsAgentError
from .files import ensure_directory, write_atomic
from .pgbackrest import STANZA
from .postgres_host import GID, REPOSITORY_DIR, UID

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from .postgres_host import DatabasePlace

INFOS = (f"archive/{STANZA}/archive.info", f"backup/{STANZA}/backup.info")
COPY = ".copy"


def repository_of(binds: Mapping[str, tuple[str, bool]]) -> Path | None:
    """Return where the repository lies on this host, given what the service mounts; None where it is elsewhere."""
    found = binds.get(REPOSITORY_DIR)
    return Path(found[0]) if found is not None else None


def folder_of(configuration: str, repo: int, binds: Mapping[str, tuple[str, bool]]) -> Path | None:
    """Return where a repository lies on this host, given `pgbackrest.conf` and what the service mounts; None if elsewhere."""
    settings = dict(re.findall(rf"^repo{repo}-(type|path)=(\S+)", configuration, re.MULTILINE))
    if settings.get("type", "posix") != "posix" or settings.get("path") not in binds:
        return None
    return Path(binds[settings["path"]][0])


def listing(folder: Path) -> str:
    """Return the files under a folder of a repository as `pgbackrest repo-ls --recurse --output=json` does, if it is there.

    Path below the folder → type, size (bytes) and time (seconds since the epoch).
    """
    found = {}
    for path in _files_under(folder):
        with contextlib.suppress(FileNotFoundError):  # expired meanwhile
            status = path.stat()
            name = str(path.relative_to(folder))
            found[name] = {"type": "file", "size": status.st_size, "time": int(status.st_mtime)}
    return json.dumps(found)


def _files_under(folder: Path) -> Iterator[Path]:
    def refuse(error: OSError) -> None:
        if not isinstance(error, FileNotFoundError):
            raise WhatsAgentError(
                f"cannot list {error.filename}: {error.strerror}", path=str(error.filename)
            ) from error

    for where, _folders, names in os.walk(folder, onerror=refuse):
        yield from (Path(where) / name for name in names)


def kept_dir(place: DatabasePlace) -> Path:
    """Return where the copies are kept."""
    return place.state_dir / "repository"


def lacks(repository: Path) -> tuple[str, ...]:
    """Return the files of both whose copies are gone, though what they open is still there."""
    return tuple(name for name in INFOS if not _present(repository, name) and _opens(repository / name))


def _present(repository: Path, name: str) -> list[Path]:
    both = (repository / name, repository / f"{name}{COPY}")
    return [path for path in both if path.is_file() and path.stat().st_size > 0]


def _opens(path: Path) -> bool:
    """Tell whether there is something beside an info file that it opens: a version's WAL, a backup."""
    return path.parent.is_dir() and any(entry.is_dir() for entry in path.parent.iterdir())


def keep(place: DatabasePlace, repository: Path) -> list[str]:
    """Keep both files as they are now; return those that were kept anew. One that is lost leaves the kept copy as it is."""
    folder = kept_dir(place)
    anew = []
    for name in INFOS:
        present = _present(repository, name)
        if not present:
            continue
        try:
            content = present[0].read_bytes()
        except OSError as error:
            raise WhatsAgentError(f"cannot read {present[0]}: {error.strerror}", path=str(present[0])) from error
        target = folder / Path(name).name
        if not target.is_file() or target.read_bytes() != content:
            ensure_directory(folder)
            write_atomic(target, content, mode=0o600)
            anew.append(name)
    return anew


def put_back(place: DatabasePlace, repository: Path, *, write: bool) -> list[str]:
    """Put back what `lacks` names from the kept copies; nothing that is there is overwritten. Returns what was put back.

    That no copy was kept is an error which says what a person can do.
    """
    missing = lacks(repository)
    unknown = [name for name in missing if not (kept_dir(place) / Path(name).name).is_file()]
    if unknown:
        raise WhatsAgentError(_nothing_kept(repository, unknown), repository=str(repository), lost=unknown)
    for name in missing if write else ():
        content = (kept_dir(place) / Path(name).name).read_bytes()
        for path in (repository / name, repository / f"{name}{COPY}"):
            write_atomic(path, content, mode=0o640, owner=(UID, GID))
    return [f"put {name} back into the repository" for name in missing]


def refuse_unopened(place: DatabasePlace, repository: Path) -> None:
    """Refuse to restore from a repository that has lost what opens it; say how to put it back."""
    missing = lacks(repository)
    kept = [name for name in missing if (kept_dir(place) / Path(name).name).is_file()]
    if missing and kept != list(missing):
        raise WhatsAgentError(_nothing_kept(repository, [name for name in missing if name not in kept]))
    if missing:
        copies = "; ".join(
            f"install -o {UID} -g {GID} -m 640 {kept_dir(place) / Path(name).name} {repository / name}"
            for name in missing
        )
        raise WhatsAgentError(
            f"{repository} has lost {', '.join(missing)}, both copies, and nothing that lies beside it can be read without: "
            f"put back what this host keeps ({copies}), and run this again",
            pt=f"{repository} perdeu {', '.join(missing)}, ambas as cópias, e sem isso nada ao lado pode ser lido: "
            f"recoloque o que este servidor guarda ({copies}) e execute de novo",
        )


def _nothing_kept(repository: Path, unknown: list[str]) -> str:
    folders = " and ".join(str(repository / part / STANZA) for part in ("archive", "backup"))
    return (
        f"{repository} has lost {', '.join(unknown)}, both copies, and this host has kept none: nothing that lies beside it can be "
        "read without. The database is untouched. Put it back from a copy of the repository; if there is none, the backups are "
        f"lost: move {folders} aside, and run this again, then playbooks/backup.yml -e type=full"
    )
