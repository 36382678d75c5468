# SPDX-License-Identifier: GPL-3.0-or-later
"""Where the archive of all that is not the database lies, and how its commands are run."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import restic
from .compose import PROJECT
from .errors import WhatsAgentError
from .files import read_json
from .restic import Store

if TYPE_CHECKING:
    from collections.abc import Sequence

DEFAULT_REPOSITORY = "/var/backups/whats_agent/restic"
PASSWORD_NAME = "backup_archive_password"  # noqa: S105 - a file's name
SECOND_NAME = "backup_archive_second.json"
TIMEOUT_S = 6 * 3600
# To say whether there is a repository. Over HTTP restic tries a host that is away again for a quarter of an hour.
LOOK_TIMEOUT_S = 60


@dataclass(frozen=True)
class ArchivePlace:
    """Where the stack and its archive lie."""

    stack_dir: Path = Path("/opt/whats_agent")
    state_dir: Path = Path("/var/lib/whats_agent")
    project: str = PROJECT
    repository: str = DEFAULT_REPOSITORY

    @property
    def password_file(self) -> Path:
        """Return the file with the password of both archives."""
        return self.state_dir / "secrets" / PASSWORD_NAME

    @property
    def scratch(self) -> Path:
        """Return the folder under which snapshots are put together and tried."""
        return self.state_dir / "scratch"

    def sources(self) -> list[Path]:
        """Return what is archived as it lies, as far as it is there."""
        wanted = [self.stack_dir / name for name in (".env", "compose.yml", "config", "certs")]
        wanted += [self.state_dir / name for name in ("secrets", "runs", "restores")]
        return [path for path in wanted if path.exists()]

    def first(self) -> Store:
        """Return the archive on this host."""
        return Store(self.repository, self.password_file)

    def second(self) -> Store | None:
        """Return the archive off this host, as the role wrote it down, or None."""
        path = self.state_dir / "secrets" / SECOND_NAME
        found = read_json(path)
        if found is None:
            return None
        try:
            return Store(
                str(found["repository"]),
                self.password_file,
                tuple(str(option) for option in found.get("options", [])),
                {str(name): str(value) for name, value in found.get("environment", {}).items()},
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise WhatsAgentError(
                f"{path} has another shape than this version writes: run playbooks/deploy.yml"
            ) from error

    def stores(self) -> list[Store]:
        """Return every archive that is configured, this host's first."""
        second = self.second()
        return [self.first(), *([second] if second else [])]


def run(
    argv: Sequence[str],
    what: str,
    *,
    store: Store | None = None,
    stdout: Any = subprocess.PIPE,
    cwd: Path | None = None,
    timeout_s: float = TIMEOUT_S,
) -> str:
    """Run a command and return its standard output; a failure says what was attempted and why."""
    try:
        done = subprocess.run(
            list(argv),
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=subprocess.PIPE,
            timeout=timeout_s,
            check=False,
            cwd=cwd,
            env=environment_of(store),
        )
    except FileNotFoundError as error:
        raise WhatsAgentError(f"{what}: {argv[0]} is not installed: run playbooks/deploy.yml") from error
    except subprocess.TimeoutExpired as error:
        tried = (error.stderr or b"").decode("utf-8", "replace").strip().splitlines()
        last = f" ({tried[-1].strip()[:300]})" if tried else ""
        raise WhatsAgentError(f"{what}: no end within {timeout_s:.0f} s{last}", cmd=list(argv)) from error
    if done.returncode != 0:
        raise failure(argv, what, done.returncode, done.stderr)
    return (done.stdout or b"").decode("utf-8", "replace")


def environment_of(store: Store | None) -> dict[str, str]:
    """Return the environment of a command: the access keys of an archive are in it and in no argument."""
    return {**os.environ, **(store.environment if store else {})}


def failure(argv: Sequence[str], what: str, code: int, stderr: bytes) -> WhatsAgentError:
    """Return the error for a command that failed."""
    text = stderr.decode("utf-8", "replace")
    why = restic.reason(text) if argv[0] == "restic" else (text.strip().splitlines() or ["no message"])[-1]
    return WhatsAgentError(f"{what}: {why}", cmd=list(argv), rc=code, stderr=text[-800:], reason=why)


def look(store: Store, what: str) -> None:
    """Fail, as `what` and why, unless there is a repository that the password opens."""
    run(store.cat_config(), what, store=store, timeout_s=LOOK_TIMEOUT_S)


def is_ready(store: Store) -> bool:
    """Tell whether there is a repository. One that cannot be reached, or that the password does not open, is an error."""
    try:
        look(store, f"cannot open the archive {store.repository}")
    except WhatsAgentError as error:
        if error.details.get("reason") != restic.MISSING:
            raise
        return False
    return True


def make_ready(store: Store) -> bool:
    """Make the repository where there is none; return whether it was made."""
    if is_ready(store):
        return False
    run(store.init(), f"cannot make the archive {store.repository}", store=store)
    return True


def require(store: Store) -> None:
    """Fail when there is no repository: one that has vanished must not be replaced without a word."""
    if not is_ready(store):
        raise WhatsAgentError(
            f"there is no archive at {store.repository}: mount what it lies on, or run playbooks/deploy.yml for a new one"
        )


def snapshots(store: Store, tag: str) -> list[restic.Snapshot]:
    """Return the snapshots with a tag, oldest first."""
    return restic.parse_snapshots(run(store.snapshots(tag), f"cannot list the archive {store.repository}", store=store))
