# SPDX-License-Identifier: GPL-3.0-or-later
"""Ask whether secrets that lie elsewhere open the backup repository: without them no backup is worth anything."""

from __future__ import annotations

import os
import secrets
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from . import pgbackrest
from .errors import WhatsAgentError
from .files import ESCROW_PREFIX, sweep_scratch, write_atomic
from .postgres_backrest import failed
from .postgres_host import GID, UID, one_shot_options, repository_mounts

if TYPE_CHECKING:
    from .postgres_backrest import Backrest

CONFIGURATION_DIR = "/etc/pgbackrest"


def check(backrest: Backrest, content: str) -> None:
    """Open every repository with an escrowed `secrets.conf`; fail saying why it does not open."""
    if "cipher-pass=" not in content:
        raise WhatsAgentError("the escrowed file is no secrets.conf: it has no line repo1-cipher-pass=…")
    sweep_scratch(backrest.place.state_dir / "scratch")
    folder = backrest.place.state_dir / "scratch" / f"{ESCROW_PREFIX}{secrets.token_hex(4)}"
    try:
        (folder / "conf.d").mkdir(parents=True, mode=0o700)
        for path in (folder, folder / "conf.d"):
            os.chown(path, UID, GID)
        write_atomic(folder / "pgbackrest.conf", backrest.configuration(), mode=0o400, owner=(UID, GID))
        write_atomic(folder / "conf.d" / "secrets.conf", content, mode=0o400, owner=(UID, GID))
        mounts = {k: v for k, v in repository_mounts(backrest.service).items() if v["bind"] != CONFIGURATION_DIR}
        mounts[str(folder)] = {"bind": CONFIGURATION_DIR, "mode": "ro"}
        # What reaching a repository takes is the server's own: it opens nothing.
        configuration = Path(backrest.service.binds[CONFIGURATION_DIR][0])
        if (configuration / "sftp").is_dir():
            (folder / "sftp").mkdir(mode=0o700)
            mounts[str(configuration / "sftp")] = {"bind": f"{CONFIGURATION_DIR}/sftp", "mode": "ro"}
        if (configuration / "ca.crt").is_file():
            write_atomic(folder / "ca.crt", (configuration / "ca.crt").read_text(), mode=0o400, owner=(UID, GID))
        result = backrest.docker.run_once(
            backrest.service.image,
            pgbackrest.info_argv(),
            volumes=mounts,
            network="bridge" if backrest.off_host_needed() else "none",
            options=one_shot_options(),
        )
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    if result.exit_code != 0:
        raise failed("cannot read the backup repository", pgbackrest.info_argv(), result)
    repository = pgbackrest.parse_info(result.stdout)
    closed = {
        number: pgbackrest.repository_problem(repository, number)
        for number, code in sorted(repository.keys.items())
        if code == pgbackrest.STATUS_OTHER
    }
    if closed:
        told = "; ".join(f"repository {number}: {problem}" for number, problem in closed.items())
        raise WhatsAgentError(f"the escrowed secrets do not open the backups: {told}")
    if repository.problem:
        raise WhatsAgentError(f"the escrowed secrets do not open the backups: {repository.problem}")
