# SPDX-License-Identifier: GPL-3.0-or-later
"""Put configuration back: checked whole in scratch first, then file by file by rename, what was there kept aside."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from . import config_checks, config_env, config_files, config_observe
from .clock import SYSTEM_CLOCK, Clock
from .config_apply import ORDER
from .config_files import COMPOSE, ENV, ConfigFile, service_of
from .errors import WhatsAgentError
from .files import ensure_directory, sync_directory, write_atomic

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from .config_copies import CopyStore
    from .config_observe import ConfigPlace, Observed
    from .docker_host import DockerHost

_KEPT_ASIDE = 10


@dataclass(frozen=True)
class Placed:
    """What was put in place, where the files that were replaced are kept, and the services that read them."""

    names: tuple[str, ...]
    aside: str | None
    touched: frozenset[str]


def mend_attributes(place: ConfigPlace, seen: Observed, *, write: bool) -> list[str]:
    """Give files and folders the mode and owner they are to have; return what differed."""
    for name, (_has, (mode, uid, gid)) in seen.attributes.items():
        if write:
            # The owner first: changing it may drop bits of the mode.
            os.chown(place.stack_dir / name, uid, gid, follow_symlinks=False)
            (place.stack_dir / name).chmod(mode)
    return list(seen.attributes)


def readers(names: Iterable[str]) -> frozenset[str]:
    """Return the services that read one of these files, or a file in one of these folders. Pure."""
    # As a folder it is the parent of what is read.
    return frozenset(service for name in names for service in (service_of(name), service_of(f"{name}/file")) if service)


def contents(seen: Observed, source: str) -> dict[str, ConfigFile]:
    """Return the content for each broken file from a source (render or restore_copy). Pure.

    `.env` names the volume that is in use, whatever the source says.
    """
    given: Mapping[str, ConfigFile] = {}
    if source == "render" and seen.rendering is not None:
        given = seen.rendering.files
    elif source == "restore_copy" and seen.copy is not None:
        given = seen.copy.files
    lacking = [name for name in seen.broken if name not in given]
    if lacking:
        raise WhatsAgentError(
            f"{source} does not hold {', '.join(lacking)}",
            pt=f"{source} não contém {', '.join(lacking)}",
            source=source,
        )
    found = {name: given[name] for name in seen.broken}
    if ENV in found:
        if seen.volume is None:
            raise WhatsAgentError(
                "nothing tells which volume holds the database: name it with -e volume=NAME",
                pt="nada diz qual volume contém o banco: informe-o com -e volume=NOME",
            )
        found[ENV] = found[ENV].with_text(config_env.with_values(found[ENV].text, {config_env.VOLUME: seen.volume}))
    # The same bytes as the last good copy were written when it says: a service that read them then need not read them again.
    for name, file in found.items():
        copied = seen.copy.files.get(name) if seen.copy else None
        if copied is not None and copied.content == file.content:
            found[name] = replace(file, changed_ns=copied.changed_ns)
    return found


def refuse_unsound(place: ConfigPlace, docker: DockerHost, seen: Observed, new: Mapping[str, ConfigFile]) -> None:
    """Check, in scratch, the configuration that would result; fail saying what is wrong, before anything is put in place."""
    result = {**seen.files, **new}
    services = frozenset(service for name in new if (service := service_of(name)) is not None)
    release = config_env.read_leniently(result[ENV].text)[0].get(config_env.RELEASE) if ENV in result else None
    found = config_observe.check(place, result, services, release)
    if release and docker.image_id(f"whats_agent/app:{release}") is None:
        config_checks.merge(found, {ENV: [f"RELEASE names images that this server does not have: {release}"]})
    missing = [name for name in config_files.REQUIRED if name not in result]
    if missing:
        config_checks.merge(found, {name: ["does not exist"] for name in missing})
    if found:
        said = "; ".join(f"{name}: {', '.join(lines)}" for name, lines in found.items())
        raise WhatsAgentError(
            f"what would be put in place is not sound, so nothing was: {said}",
            pt=f"o que seria instalado não é válido, então nada foi instalado: {said}",
            problems=found,
        )


def put_in_place(
    place: ConfigPlace,
    docker: DockerHost,
    seen: Observed,
    new: Mapping[str, ConfigFile],
    *,
    run_id: str,
    write: bool,
    clock: Clock = SYSTEM_CLOCK,
) -> Placed:
    """Check the whole, keep aside what is there, and rename the new files over it."""
    refuse_unsound(place, docker, seen, new)
    touched = frozenset(
        service for name in new for service in (ORDER if name in (ENV, COMPOSE) else [service_of(name)]) if service
    )
    folder = place.state_dir / "replaced_config" / (run_id or clock.stamp())
    replaced = [name for name in new if os.path.lexists(place.stack_dir / name)]
    aside = str(folder) if replaced else None
    if write:
        config_observe.remove_stale_scratch(place.state_dir)
        for name in replaced:
            keep_aside(place.stack_dir / name, folder / name)
        _prune(folder.parent)
        ensure_folders(place.stack_dir)
        for name, file in new.items():
            write_file(place.stack_dir / name, file)
    return Placed(tuple(new), aside, touched)


def keep_aside(path: Path, target: Path) -> None:
    """Copy a file that is to be replaced to where root alone reads it; what is no file is moved there as it is."""
    ensure_directory(target.parent)
    if path.is_symlink() or not path.is_file():
        if os.path.lexists(target):
            target = target.with_name(f"{target.name}.{os.getpid()}")
        shutil.move(path, target)
        return
    write_atomic(target, path.read_bytes(), mode=0o600)


def _prune(parent: Path) -> None:
    folders = sorted((path for path in parent.glob("*") if path.is_dir()), reverse=True) if parent.is_dir() else []
    for old in folders[_KEPT_ASIDE:]:
        shutil.rmtree(old)


def ensure_folders(stack_dir: Path) -> None:
    """Make the configuration's folders that are missing."""
    for name, (mode, uid, gid) in config_files.FOLDERS.items():
        path = stack_dir / name
        if not path.is_dir():
            path.mkdir(mode=0o700)
            os.chown(path, uid, gid)
            path.chmod(mode)
            sync_directory(path.parent)


def write_file(path: Path, file: ConfigFile) -> None:
    """Write one file by rename, with the attributes it is to have, and the time its content is of, if that is known."""
    mode, uid, gid = config_files.expected_attributes(file.name)
    write_atomic(path, file.content, mode=mode, owner=(uid, gid))
    if file.changed_ns is not None:
        os.utime(path, ns=(file.changed_ns, file.changed_ns))


def keep_copy(place: ConfigPlace, docker: DockerHost, store: CopyStore, *, write: bool) -> bool:
    """Keep the configuration in place as the last good one, if it is sound and what the services run with."""
    seen = config_observe.observe(place, docker, store)
    if seen.engine_error is not None:
        raise WhatsAgentError(
            f"no copy is kept of a configuration that cannot be verified: {seen.engine_error}",
            pt=f"não se guarda cópia de uma configuração que não pode ser verificada: {seen.engine_error}",
        )
    drift = seen.drift
    if not seen.missing and not seen.invalid and seen.changed:
        drift = tuple(config_observe.drift_of(place, docker, docker.containers(place.project), seen.files))
    wrong = [
        *(f"{name} does not exist" for name in seen.missing),
        *(f"{name}: {'; '.join(lines)}" for name, lines in seen.invalid.items()),
        *(f"{name} has another owner or mode" for name in seen.attributes),
        *(f"{entry.service} {entry.why}" for entry in drift),
    ]
    if wrong:
        raise WhatsAgentError(
            f"no copy is kept of a configuration that is not sound: {'; '.join(wrong)}",
            pt=f"não se guarda cópia de uma configuração que não é válida: {'; '.join(wrong)}",
        )
    return store.keep(seen.files, write=write)
