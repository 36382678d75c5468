# SPDX-License-Identifier: GPL-3.0-or-later
"""restic's commands and what it answers: the archive of everything that is not the database. Nothing here runs anything.

All of it works with restic 0.14 (Debian 12) as with 0.18 (Debian 13).
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING

from .errors import WhatsAgentError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

HOST = "whats_agent"  # one name for all snapshots: a server that replaces another goes on with its archive
PROVEN_TAG = "proven"
KEEP = ("--keep-hourly=24", "--keep-daily=7", "--keep-weekly=5")
CHECKED_SHARE = "10%"  # of the data, read after each snapshot


@dataclass(frozen=True)
class Snapshot:
    """One snapshot: its id, when it was taken (RFC 3339), its tags."""

    id: str
    time: str
    tags: tuple[str, ...]

    @property
    def moment(self) -> datetime:
        """Return when it was taken, to be compared: the texts may have different offsets."""
        return datetime.fromisoformat(self.time)

    @property
    def proven(self) -> bool:
        """Whether it was restored in scratch and found the same."""
        return PROVEN_TAG in self.tags


@dataclass(frozen=True)
class Store:
    """A repository (a path, or any of restic's URLs), the file with its password, and what reaching it takes.

    `options` are restic's extended ones (`sftp.command=…`), `environment` holds access keys, which are in no argument.
    """

    repository: str
    password_file: Path
    options: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)

    def _argv(self, command: str, *arguments: str) -> list[str]:
        where = [f"--repo={self.repository}", f"--password-file={self.password_file}"]
        return ["restic", command, *where, "--no-cache", *(f"--option={o}" for o in self.options), *arguments]

    def init(self) -> list[str]:
        """Return the command that makes the repository."""
        return self._argv("init")

    def cat_config(self) -> list[str]:
        """Return the command that fails unless the repository is there and the password opens it."""
        return self._argv("cat", "config")

    def unlock(self) -> list[str]:
        """Return the command that removes locks whose process is gone; a living one's stays."""
        return self._argv("unlock")

    def snapshots(self, tag: str) -> list[str]:
        """Return the command that lists the snapshots with a tag as JSON."""
        return self._argv("snapshots", "--json", f"--tag={tag}")

    def backup_here(self, tags: Sequence[str]) -> list[str]:
        """Return the command that takes a snapshot of the folder it is run in: that folder is the snapshot's root."""
        return self._argv("backup", "--json", f"--host={HOST}", *(f"--tag={tag}" for tag in tags), ".")

    def backup_stdin(self, name: str, tags: Sequence[str]) -> list[str]:
        """Return the command that takes a snapshot of what comes on its standard input."""
        given = ("--stdin", f"--stdin-filename={name}")
        return self._argv("backup", "--json", f"--host={HOST}", *(f"--tag={tag}" for tag in tags), *given)

    def dump(self, snapshot: str, path: str) -> list[str]:
        """Return the command that writes one file of a snapshot to standard output."""
        return self._argv("dump", snapshot, path)

    def restore(self, snapshot: str, target: Path, include: Sequence[str] = ()) -> list[str]:
        """Return the command that puts a snapshot, or the named paths of it, under a folder."""
        return self._argv("restore", snapshot, f"--target={target}", *(f"--include={path}" for path in include))

    def tag(self, snapshot: str, tag: str) -> list[str]:
        """Return the command that adds a tag; the snapshot gets another id by it."""
        return self._argv("tag", f"--add={tag}", snapshot)

    def forget(self, tag: str, keep: Sequence[str] = KEEP) -> list[str]:
        """Return the command that removes what retention no longer keeps of the snapshots with a tag (`A,B`: with both)."""
        return self._argv("forget", "--prune", f"--tag={tag}", "--group-by=host", *keep)

    def forget_one(self, snapshot: str) -> list[str]:
        """Return the command that removes one snapshot, and its data if nothing else has it."""
        return self._argv("forget", "--prune", snapshot)

    def copy_from(self, other: Store) -> list[str]:
        """Return the command that copies what this repository lacks from another one."""
        return self._argv(
            "copy", f"--from-repo={other.repository}", f"--from-password-file={other.password_file}", f"--host={HOST}"
        )

    def check(self, share: str = "100%") -> list[str]:
        """Return the command that checks the repository and reads a share of its data."""
        return self._argv("check", f"--read-data-subset={share}")


def parse_snapshots(output: str) -> list[Snapshot]:
    """Read `snapshots --json`, oldest first."""
    try:
        found = json.loads(output) or []
        snapshots = [Snapshot(str(e["id"]), str(e["time"]), tuple(e.get("tags") or ())) for e in found]
    except (ValueError, KeyError, TypeError) as error:
        raise WhatsAgentError("restic's list of snapshots has another shape", stdout=output[:400]) from error
    return sorted(snapshots, key=lambda snapshot: snapshot.moment)


def parse_backup(output: str) -> str:
    """Return the id of the snapshot that `backup --json` took."""
    for line in reversed(output.splitlines()):
        try:
            message = json.loads(line)
        except ValueError:
            continue
        if isinstance(message, dict) and message.get("message_type") == "summary":
            return str(message["snapshot_id"])
    raise WhatsAgentError("restic said nothing of a snapshot", stdout=output[-400:])


# What restic says → what it means. Its exit code tells these apart only from 0.17 on.
_REASONS = (
    ("wrong password or no key found", "the password does not open the archive"),
    ("unable to open config file", "there is no archive"),
    ("Is there a repository at the following location", "there is no archive"),
    ("repository is already locked", "another restic is at work on the archive"),
    ("no space left on device", "the disk is full"),
)
MISSING = "there is no archive"


def reason(stderr: str) -> str:
    """Return why restic failed, in a line."""
    for words, meaning in _REASONS:
        if words in stderr:
            return meaning
    lines = [line.removeprefix("subprocess ssh: ").removeprefix("Fatal: ").strip() for line in stderr.splitlines()]
    return next((line for line in lines if line and not line.startswith("open repository")), "no message")
