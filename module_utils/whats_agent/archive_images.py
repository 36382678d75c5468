# SPDX-License-Identifier: GPL-3.0-or-later
"""The releases' images in the archive: a server that begins anew then needs no registry.

Each release goes in once and is read back at once; only a whole one carries the tag `proven`.
"""

from __future__ import annotations

import hashlib
import subprocess
from typing import IO, TYPE_CHECKING

from . import restic
from .archive_place import environment_of, failure, run, snapshots
from .errors import WhatsAgentError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .docker_host import DockerHost
    from .lock import Heart, Idle
    from .restic import Snapshot, Store

TAG = "images"
PATH = "/images.tar"
KEEP_RELEASES = 2
_PREFIX = "whats_agent/"
_CHUNK = 1 << 20


def tag_of(release: str) -> str:
    """Return the tag that names a release."""
    return f"release={release}"


def release_of(snapshot: Snapshot) -> str:
    """Return the release that a snapshot is of, empty where it names none."""
    return next((tag.partition("=")[2] for tag in snapshot.tags if tag.startswith("release=")), "")


def names_of(docker: DockerHost, release: str) -> list[str]:
    """Return the names of a release's images that are here."""
    return sorted(name for name in docker.image_names() if name.startswith(_PREFIX) and name.endswith(f":{release}"))


def superfluous(found: Iterable[Snapshot]) -> list[Snapshot]:
    """Return the snapshots that are not the newest whole one of one of the newest releases."""
    newest: dict[str, Snapshot] = {}
    rest = []
    for snapshot in sorted(found, key=lambda entry: entry.moment, reverse=True):
        release = release_of(snapshot)
        if not snapshot.proven or release in newest or len(newest) >= KEEP_RELEASES:
            rest.append(snapshot)
        else:
            newest[release] = snapshot
    return rest


def archive(store: Store, docker: DockerHost, release: str, heart: Heart | Idle) -> list[str]:
    """Archive a release's images unless they are there, drop those of older releases; say what was done."""
    steps = []
    tag = tag_of(release)
    if not any(s.proven and tag in s.tags for s in snapshots(store, TAG)):
        names = names_of(docker, release)
        if not names:
            raise WhatsAgentError(f"no image of the release {release} is on this host: it cannot be archived")
        saved = _pipe(["docker", "save", *names], store.backup_stdin(PATH, [TAG, tag]), store, heart)
        taken = max((s for s in snapshots(store, TAG) if tag in s.tags), key=lambda entry: entry.moment)
        if _read(store, taken.id, heart) != saved:
            raise WhatsAgentError(f"the archive gives other images back than it was given (snapshot {taken.id[:8]})")
        run(store.tag(taken.id, restic.PROVEN_TAG), "cannot mark the archived images", store=store)
        steps.append(f"archived the images {', '.join(names)}")
    for snapshot in superfluous(snapshots(store, TAG)):
        run(store.forget_one(snapshot.id), "cannot drop old images", store=store)
        steps.append(f"dropped archived images of {release_of(snapshot) or 'no release'}")
    return steps


def load(store: Store, release: str, heart: Heart | Idle) -> str:
    """Load a release's images into Docker; return the snapshot they came from."""
    found = [s for s in snapshots(store, TAG) if s.proven and tag_of(release) in s.tags]
    if not found:
        known = sorted({release_of(s) for s in snapshots(store, TAG) if s.proven}) or ["none"]
        raise WhatsAgentError(
            f"the archive holds no images of the release {release}; it holds those of {', '.join(known)}"
        )
    _pipe(store.dump(found[-1].id, PATH), ["docker", "load", "--quiet"], store, heart)
    return found[-1].id


def _pump(source: IO[bytes], sink: IO[bytes] | None, heart: Heart | Idle) -> str:
    """Move all bytes on, and return their SHA-256."""
    digest = hashlib.sha256()
    while chunk := source.read(_CHUNK):
        heart.check()
        digest.update(chunk)
        if sink is not None:
            sink.write(chunk)
    return digest.hexdigest()


def _pipe(giver: list[str], taker: list[str], store: Store, heart: Heart | Idle) -> str:
    """Run two commands, the second on what the first writes; return the SHA-256 of that. Either failing is an error.

    A giver that fails ends the taker before it can take half for whole.
    """
    environment = environment_of(store)
    with (
        subprocess.Popen(giver, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment) as first,
        subprocess.Popen(
            taker, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=environment
        ) as second,
    ):
        try:
            digest = _pump(_stream(first.stdout), _stream(second.stdin), heart)
        except BaseException as error:
            first.kill()
            second.kill()
            if isinstance(error, BrokenPipeError):
                raise failure(taker, f"cannot run {taker[0]}", second.wait(), _stream(second.stderr).read()) from error
            raise
        said = _stream(first.stderr).read()
        if first.wait() != 0:
            second.kill()
            raise failure(giver, f"cannot run {giver[0]}", first.returncode, said)
        _stream(second.stdin).close()
        said = _stream(second.stderr).read()
        if second.wait() != 0:
            raise failure(taker, f"cannot run {taker[0]}", second.returncode, said)
    return digest


def _read(store: Store, snapshot: str, heart: Heart | Idle) -> str:
    """Read archived images back and return their SHA-256."""
    argv = store.dump(snapshot, PATH)
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment_of(store)) as process:
        try:
            digest = _pump(_stream(process.stdout), None, heart)
        except BaseException:
            process.kill()
            raise
        said = _stream(process.stderr).read()
        if process.wait() != 0:
            raise failure(argv, "the archived images cannot be read back", process.returncode, said)
    return digest


def _stream(stream: IO[bytes] | None) -> IO[bytes]:
    if stream is None:
        raise WhatsAgentError("a process was started without the pipe that it was to have")
    return stream
