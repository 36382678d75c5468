# SPDX-License-Identifier: GPL-3.0-or-later
"""Archive all of the stack that is not the database, prove it, and get it back.

A snapshot is put together as a folder first: settings, configuration, certificates, secrets, journals, Redis' file, the message
log's export and a manifest of sums. It is proven by what it gives back in scratch: the same files byte for byte, and a message
log that a fresh agent reads.
"""

from __future__ import annotations

import secrets
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import archive_images, archive_log, archive_manifest, env_file, restic
from .archive_place import ArchivePlace, is_ready, look, make_ready, require, run, snapshots
from .clock import SYSTEM_CLOCK, Clock
from .errors import WhatsAgentError
from .files import ESCROW_PREFIX, ensure_directory, read_json, sweep_scratch, write_atomic, write_json
from .postgres_host import free_bytes
from .restic import Store

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from .docker_host import DockerHost
    from .journal import Progress
    from .lock import Heart, Idle
    from .restic import Snapshot

TAG = "state"
RESERVE_BYTES = 512 * 1024 * 1024
PARTS = ("message log", "snapshot", "proof", "images", "check", "copy", "done")


@dataclass(frozen=True)
class Archived:
    """What was done. `log` is what the proven snapshot holds of the message log, `not_copied` why it is on this host only."""

    snapshot: str
    steps: list[str]
    log: archive_log.Export
    not_copied: str = ""


@dataclass
class Readiness:
    """What was made, or would be, and the second archive's reason where it is left for when its host is back."""

    steps: list[str] = field(default_factory=list)
    away: str = ""


def ready(place: ArchivePlace, *, dry: bool = False) -> Readiness:
    """Make every archive that is configured and not there.

    A server that has archived before goes on beside a second one that cannot be reached; one that has not is not ready for it.
    """
    made = Readiness()
    first = place.first()
    for store in place.stores():
        try:
            if dry and not is_ready(store):
                made.steps.append(f"make the archive {store.repository}")
            elif not dry and make_ready(store):
                made.steps.append(f"made the archive {store.repository}")
        except WhatsAgentError as error:
            if store == first or not _archived_before(first):
                raise
            made.away = error.message
    return made


def _archived_before(store: Store) -> bool:
    return is_ready(store) and bool(snapshots(store, TAG))


def archive(
    place: ArchivePlace,
    docker: DockerHost,
    *,
    heart: Heart | Idle,
    progress: Progress,
    clock: Clock = SYSTEM_CLOCK,
) -> Archived:
    """Take a snapshot, prove it, archive the release's images, copy it all off the host where that is configured."""

    def tell(part: str) -> None:
        heart.check()
        progress.update(PARTS.index(part), len(PARTS) - 1, part)

    env = env_file.read_env(place.stack_dir / ".env")
    env_file.require(env, ("RELEASE",), str(place.stack_dir / ".env"))
    release = env["RELEASE"]
    store = place.first()
    require(store)
    run(store.unlock(), "cannot remove the locks that killed runs left", store=store)
    archive_log.sweep(docker)
    work = place.scratch / "archive"
    # What a killed run left here is nobody's: one run at a time holds the host.
    shutil.rmtree(work, ignore_errors=True)
    ensure_directory(work)
    try:
        tell("message log")
        log = gather(place, docker, work / "given", release, clock)
        tell("snapshot")
        tags = [TAG, archive_images.tag_of(release)]
        output = run(store.backup_here(tags), "cannot write the archive", store=store, cwd=work / "given")
        taken = restic.parse_backup(output)
        tell("proof")
        image = f"whats_agent/app:{release}"
        prove(store, taken, work, log, lambda path: archive_log.prove(docker, image, path, work / "fresh", heart))
        run(store.tag(taken, restic.PROVEN_TAG), "cannot mark the snapshot as proven", store=store)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    snapshot = snapshots(store, TAG)[-1].id
    steps = [f"archived the stack as snapshot {snapshot[:8]} and proved it"]
    tell("images")
    steps += archive_images.archive(store, docker, release, heart)
    drop_old(store, "cannot drop old snapshots")
    tell("check")
    run(store.check(restic.CHECKED_SHARE), "the archive is damaged", store=store)
    # The last thing, since it may fail while all else is done: that host is somebody else's.
    not_copied = ""
    second = place.second()
    if second is not None:
        tell("copy")
        try:
            steps.append(copy(store, second, snapshot))
        except WhatsAgentError as error:
            not_copied = error.message
    tell("done")
    return Archived(snapshot, steps, log, not_copied)


def gather(place: ArchivePlace, docker: DockerHost, root: Path, release: str, clock: Clock) -> archive_log.Export:
    """Put together what a snapshot is to hold, under its root; return what it holds of the message log."""
    root.mkdir(mode=0o700)
    sources = place.sources()
    redis = docker.volume(f"{place.project}_redis")
    log = docker.volume(f"{place.project}_message_log")
    size = sum(size_of(path) for path in sources)
    size += sum(size_of(Path(volume.mountpoint)) for volume in (redis, log) if volume is not None)
    # What is put together, what comes back, and the message log once more as a database.
    needed, free = 3 * size + RESERVE_BYTES, free_bytes(place.state_dir)
    if free < needed:
        raise WhatsAgentError(
            f"the archive needs {needed >> 20} MB under {place.state_dir} and {free >> 20} MB are free: "
            "free space first (playbooks/reclaim_disk.yml)",
            needed=needed,
            free=free,
        )
    names = [str(path).lstrip("/") for path in sources]
    run(["cp", "--archive", "--parents", "--", *names, str(root)], "cannot copy what is to be archived", cwd=Path("/"))
    if redis is not None:
        run(["cp", "--archive", "--", redis.mountpoint, str(root / "redis")], "cannot copy Redis' files")
    exported = archive_log.export(place, docker, root / archive_log.EXPORT_NAME)
    manifest = {
        "taken_at": clock.rfc3339(),
        "release": release,
        "message_log": exported.as_dict(),
        "files": archive_manifest.of(root),
    }
    write_json(root / archive_manifest.NAME, manifest)
    return exported


def size_of(path: Path) -> int:
    """Return the bytes of all files at or below a path."""
    if path.is_file():
        return path.lstat().st_size
    return sum(entry.lstat().st_size for entry in path.rglob("*") if entry.is_file())


def prove(
    store: Store,
    snapshot: str,
    work: Path,
    exported: archive_log.Export,
    read_log: Callable[[Path], archive_log.Export],
) -> None:
    """Restore a snapshot in scratch, hold it against what went in, and have a fresh agent read its message log."""
    back = work / "back"
    run(store.restore(snapshot, back), f"cannot restore the snapshot {snapshot[:8]}", store=store)
    files = archive_manifest.of(work / "given")
    wrong = archive_manifest.differences(back, files)
    if wrong or (back / archive_manifest.NAME).read_bytes() != (work / "given" / archive_manifest.NAME).read_bytes():
        raise WhatsAgentError(
            f"the snapshot {snapshot[:8]} does not give back what it was given: "
            f"{archive_manifest.summary(wrong) or 'another manifest'}"
        )
    read = read_log(back / archive_log.EXPORT_NAME)
    if (read.identity, read.records, read.digest) != (exported.identity, exported.records, exported.digest):
        raise WhatsAgentError(
            f"a fresh message log made of the snapshot {snapshot[:8]} holds {read.records} records of "
            f"{exported.records}, or other ones"
        )


def drop_old(store: Store, what: str) -> None:
    """Apply retention to what is proven, and drop what killed runs left unproven, once there is something proven after it.

    Retention keeps the last of an hour, a day and a week: an unproven one among them would take the place of a proven one.
    """
    found = snapshots(store, TAG)
    proven = [snapshot.moment for snapshot in found if snapshot.proven]
    for left in [s for s in found if not s.proven and proven and s.moment < max(proven)]:
        run(store.forget_one(left.id), what, store=store)
    run(store.forget(f"{TAG},{restic.PROVEN_TAG}"), what, store=store)


def copy(store: Store, second: Store, snapshot: str) -> str:
    """Copy what the second archive lacks, apply retention there too, and read the newest manifest back from there."""
    require(second)
    run(second.unlock(), "cannot remove the locks that killed runs left", store=second)
    # Access keys of the second; the first needs none.
    run(second.copy_from(store), f"cannot copy the archive to {second.repository}", store=second)
    drop_old(second, "cannot drop old snapshots of the second archive")
    for old in archive_images.superfluous(snapshots(second, archive_images.TAG)):
        run(second.forget_one(old.id), "cannot drop old images of the second archive", store=second)
    here = run(store.dump(snapshot, f"/{archive_manifest.NAME}"), "cannot read the archive back", store=store)
    newest = snapshots(second, TAG)[-1].id
    there = run(second.dump(newest, f"/{archive_manifest.NAME}"), "cannot read the second archive back", store=second)
    if here != there:
        raise WhatsAgentError(f"the newest snapshot of {second.repository} is not the one that was copied there")
    return f"copied it to {second.repository}"


def choose(found: Sequence[Snapshot], wanted: str) -> Snapshot:
    """Return the snapshot of an id, or the newest proven one for `latest`."""
    if wanted == "latest":
        proven = [snapshot for snapshot in found if snapshot.proven]
        if not proven:
            raise WhatsAgentError(f"the archive holds {len(found)} snapshots and none that was proven")
        return proven[-1]
    named = [snapshot for snapshot in found if snapshot.id.startswith(wanted)]
    if len(named) != 1 or not wanted:
        raise WhatsAgentError(f"the archive holds {len(named)} snapshots of the id {wanted!r}")
    return named[0]


def included(include: Sequence[str]) -> Callable[[str], bool]:
    """Return what tells whether a path is one of those asked for, or lies below one; none asked for means all."""
    roots = [path.rstrip("/") for path in include]
    return lambda path: not roots or any(path == root or path.startswith(f"{root}/") for root in roots)


def extract(store: Store, wanted: str, target: Path, include: Sequence[str]) -> dict[str, Any]:
    """Put parts of a snapshot under an empty folder and hold them against its manifest; say what is there now."""
    relative = [path for path in include if not path.startswith("/")]
    if relative:
        raise WhatsAgentError(f"not absolute: {', '.join(relative)}; name paths as they are on the server")
    include = [path.rstrip("/") for path in include]
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise WhatsAgentError(f"{target} is not an empty folder: what is extracted must not mix with other files")
    snapshot = choose(snapshots(store, TAG), wanted)
    ensure_directory(target)
    target.chmod(0o700)
    paths = [*include, f"/{archive_manifest.NAME}"] if include else []
    run(store.restore(snapshot.id, target, paths), f"cannot restore the snapshot {snapshot.id[:8]}", store=store)
    manifest = read_json(target / archive_manifest.NAME)
    if not isinstance(manifest, dict):
        raise WhatsAgentError(f"the snapshot {snapshot.id[:8]} has no manifest: it was cut short; take another")
    wrong = archive_manifest.differences(target, manifest["files"], included(include))
    if wrong:
        raise WhatsAgentError(
            f"the snapshot {snapshot.id[:8]} came back damaged: {archive_manifest.summary(wrong)}", target=str(target)
        )
    files = [path for path in manifest["files"] if included(include)(path)]
    missing = [path for path in include if not any(included([path])(name) for name in files)]
    if missing:
        raise WhatsAgentError(f"the snapshot {snapshot.id[:8]} holds nothing at {', '.join(missing)}")
    return {
        "snapshot": snapshot.id,
        "release": manifest["release"],
        "taken_at": manifest["taken_at"],
        "files": sorted(files),
    }


def check_escrow(place: ArchivePlace, content: str) -> None:
    """Open every archive with an escrowed password; fail saying which one it does not open."""
    sweep_scratch(place.scratch)
    folder = place.scratch / f"{ESCROW_PREFIX}{secrets.token_hex(4)}"
    ensure_directory(folder)
    try:
        path = folder / "password"
        write_atomic(path, content.strip() + "\n", mode=0o600)
        for store in place.stores():
            trial = Store(store.repository, path, store.options, store.environment)
            look(trial, f"the escrowed password does not open the archive {store.repository}")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def describe(found: Sequence[Snapshot]) -> Iterator[dict[str, Any]]:
    """Yield snapshots as people and callers read them."""
    for snapshot in found:
        yield {
            "id": snapshot.id,
            "time": snapshot.time,
            "release": archive_images.release_of(snapshot),
            "proven": snapshot.proven,
        }
