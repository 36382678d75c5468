# SPDX-License-Identifier: GPL-3.0-or-later
"""Look at the stack's configuration: files, last good copy, the controller's rendering, and what the containers run with."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
import time
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import config_checks, config_drift, config_env, config_files
from .config_copies import Copy, CopyStore
from .config_files import COMPOSE, ENV, PGBACKREST, REACHING, REQUIRED, ConfigFile, service_of
from .config_volume import VolumeEvidence, choose
from .docker_host import DockerHost
from .errors import WhatsAgentError
from .files import ensure_directory, read_json, write_atomic
from .postgres_host import DATA_DIR, VOLUME_LABEL, VOLUME_ROLE, DatabasePlace, connect
from .secret_store import read_secrets

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from .config_checks import Problems
    from .config_drift import Drift
    from .docker_host import ContainerState

_PLACEHOLDER = re.compile(r"@@(?P<what>volume|release|secret:(?P<name>[a-z0-9_]+))@@")
_SCRATCH_PREFIX = "config-"
_STALE_SCRATCH_S = 600


@dataclass(frozen=True)
class ConfigPlace:
    """Where a stack's configuration lies, and what keeps it."""

    stack_dir: Path = Path("/opt/whats_agent")
    state_dir: Path = Path("/var/lib/whats_agent")
    copies_dir: Path = Path("/var/backups/whats_agent/config")
    repository: Path = Path("/var/backups/whats_agent/pgbackrest")
    project: str = "whats_agent"

    def store(self, passphrase: str | None) -> CopyStore:
        """Return the store of copies; without a passphrase from the inventory the server's own is used, if it has one."""
        name = "backup_cipher_passphrase"
        own = None if passphrase else read_secrets(self.state_dir / "secrets", [name]).get(name)
        return CopyStore(self.copies_dir, passphrase or own)

    @property
    def database(self) -> DatabasePlace:
        """Return where the database lies."""
        return DatabasePlace(self.stack_dir, self.state_dir, self.project)


@dataclass(frozen=True)
class Rendering:
    """What the controller would write. `files` is empty where `lacks` says why it cannot."""

    files: dict[str, ConfigFile] = field(default_factory=dict)
    makes_certificate: bool = False
    lacks: tuple[str, ...] = ()


@dataclass(frozen=True)
class Observed:
    """Everything that was seen. `strange` are names that are no regular files; `changed` differ from the last good copy."""

    files: dict[str, ConfigFile] = field(default_factory=dict)
    copy: Copy | None = None
    copy_problems: tuple[str, ...] = ()
    strange: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    invalid: Problems = field(default_factory=dict)
    changed: tuple[str, ...] = ()
    attributes: dict[str, tuple[config_files.Attributes, config_files.Attributes]] = field(default_factory=dict)
    drift: tuple[Drift, ...] = ()
    volume: str | None = None
    volumes: tuple[str, ...] = ()
    release: str | None = None
    unfinished: dict[str, Any] | None = None
    containers: int = 0
    rendering: Rendering | None = None
    engine_error: str | None = None

    @property
    def broken(self) -> tuple[str, ...]:
        """Return the files that need another content."""
        return tuple(dict.fromkeys([*self.missing, *self.invalid, *self.changed]))


def observe(
    place: ConfigPlace,
    docker: DockerHost,
    store: CopyStore,
    *,
    rendered: Rendering | None = None,
    named_volume: str = "",
) -> Observed:
    """Look at everything; nothing is changed but a scratch folder, which is gone again afterwards."""
    files = config_files.read_files(place.stack_dir)
    copy, copy_problems = store.newest()
    try:
        containers = docker.containers(place.project)
        volumes = [volume.name for volume in docker.volumes(f"{VOLUME_LABEL}={VOLUME_ROLE}")]
    except WhatsAgentError as error:
        return Observed(engine_error=error.message, files=files)
    evidence = volume_evidence(place, files, copy, containers=containers, volumes=volumes, named=named_volume)
    release = release_in_use(files, copy, containers)
    rendering = resolve(rendered, place.state_dir, evidence, release) if rendered is not None else None
    missing = tuple(name for name in expected(files, copy.files if copy else {}) if name not in files)
    changed = tuple(differing(files, copy.files)) if copy else ()
    # What equals the last good copy was accepted when that was kept, and is not asked again.
    invalid = _invalid(place, docker, files, frozenset(changed if copy else files), release)
    volume = choose(evidence)
    if ENV in files and volume is not None and evidence.env and evidence.env != volume:
        said = f"DB_VOLUME names {evidence.env}, and the database is in {volume}"
        config_checks.merge(invalid, {ENV: [said]})
    sound = not missing and not invalid
    return Observed(
        files=files,
        copy=copy,
        copy_problems=tuple(copy_problems),
        strange=tuple(name for name in missing if os.path.lexists(place.stack_dir / name)),
        missing=missing,
        invalid=invalid,
        changed=changed,
        attributes=config_files.wrong_attributes(place.stack_dir, files),
        drift=tuple(drift_of(place, docker, containers, files)) if sound and not changed else (),
        volume=volume,
        volumes=tuple(volumes),
        release=release,
        unfinished=dict(evidence.unfinished) if evidence.unfinished else None,
        containers=len(containers),
        rendering=rendering,
    )


def expected(files: Mapping[str, ConfigFile], copied: Mapping[str, ConfigFile]) -> list[str]:
    """Return what must be there: what every stack has, and what the last good copy holds. Pure.

    Less what only a second repository took that is configured no longer: its key and its host's, or its CA.
    """
    backrest = files.get(PGBACKREST)
    taken_out = [place for place, named in REACHING.items() if backrest is not None and named not in backrest.text]
    return [name for name in dict.fromkeys([*REQUIRED, *copied]) if not name.startswith(tuple(taken_out))]


def volume_evidence(
    place: ConfigPlace,
    files: Mapping[str, ConfigFile],
    copy: Copy | None,
    *,
    containers: Sequence[ContainerState],
    volumes: Sequence[str],
    named: str,
) -> VolumeEvidence:
    """Collect what tells which volume holds the database."""
    postgres = [state for state in containers if state.service == "postgres"]
    state = read_json(place.state_dir / "restore.json")
    finished = sorted((place.state_dir / "restores").glob("*.json"))
    last = read_json(finished[-1]) if finished else None
    return VolumeEvidence(
        env=_value(files.get(ENV), config_env.VOLUME),
        mounted=postgres[-1].mounts.get(DATA_DIR, "") if postgres else "",
        restored=str(last.get("new_volume", "")) if isinstance(last, dict) else "",
        copied=_value(copy.files.get(ENV), config_env.VOLUME) if copy else "",
        existing=tuple(volumes),
        unfinished=state if isinstance(state, dict) and not state.get("finished_at") else None,
        named=named,
    )


def _value(file: ConfigFile | None, name: str) -> str:
    return config_env.read_leniently(file.text)[0].get(name, "") if file else ""


def release_in_use(
    files: Mapping[str, ConfigFile], copy: Copy | None, containers: Sequence[ContainerState]
) -> str | None:
    """Return the tag of the images that run, else what the copy or the present `.env` names."""
    tags = Counter(
        state.image.rsplit(":", 1)[1]
        for state in containers
        if state.image.startswith("whats_agent/") and ":" in state.image
    )
    if tags:
        return tags.most_common(1)[0][0]
    copied = _value(copy.files.get(ENV), config_env.RELEASE) if copy else ""
    return copied or _value(files.get(ENV), config_env.RELEASE) or None


def differing(files: Mapping[str, ConfigFile], others: Mapping[str, ConfigFile]) -> list[str]:
    """Return the names that both hold with different content; DB_VOLUME, which is state, does not count."""
    return [
        name
        for name, other in others.items()
        if name in files
        and files[name].content != other.content
        and not (name == ENV and config_env.same_but_volume(files[name].text, other.text))
    ]


def resolve(rendered: Rendering, state_dir: Path, evidence: VolumeEvidence, release: str | None) -> Rendering:
    """Put what only the server knows into a rendering: the volume, the release in use, secrets of the server's own."""
    lacks = list(rendered.lacks)
    names = {m["name"] for f in rendered.files.values() for m in _PLACEHOLDER.finditer(f.text) if m["name"]}
    values = {f"secret:{name}": value for name, value in read_secrets(state_dir / "secrets", names).items()}
    values |= {key: value for key, value in (("volume", choose(evidence)), ("release", release)) if value}
    files = {}
    for name, file in rendered.files.items():
        unknown = sorted({m["what"] for m in _PLACEHOLDER.finditer(file.text)} - values.keys())
        lacks += [f"the server's own {what.replace('secret:', 'secret ')} is not known" for what in unknown]
        if not unknown:
            text = _PLACEHOLDER.sub(lambda match: values[match["what"]], file.text)
            files[name] = replace(file, content=text.encode("utf-8"))
    return Rendering(files, rendered.makes_certificate, tuple(dict.fromkeys(lacks)))


def _invalid(
    place: ConfigPlace,
    docker: DockerHost,
    files: Mapping[str, ConfigFile],
    suspicious: frozenset[str],
    release: str | None,
) -> Problems:
    """Check the files in place, those that are suspicious by the programs that read them."""
    services = {service_of(name) for name in suspicious} - {None}
    whole = {
        service for service in services if not [n for n in REQUIRED if service_of(n) == service and n not in files]
    }
    compose = COMPOSE in suspicious
    found = check(place, files, frozenset(str(s) for s in whole), release, compose=compose)
    env_release = _value(files.get(ENV), config_env.RELEASE)
    if ENV in suspicious and env_release and docker.image_id(f"whats_agent/app:{env_release}") is None:
        config_checks.merge(found, {ENV: [f"RELEASE names images that this server does not have: {env_release}"]})
    if "postgres" in services:
        config_checks.merge(found, _live_postgres(place))
    return found


def _live_postgres(place: ConfigPlace) -> Problems:
    """Ask a running PostgreSQL about the files that only it can judge. One that does not answer is not asked."""
    import psycopg

    found: Problems = {}
    try:
        with connect(place.database, "postgres", statement_timeout_s=5) as connection:
            for view, name in (("pg_hba_file_rules", "pg_hba.conf"), ("pg_ident_file_mappings", "pg_ident.conf")):
                query = f"select line_number, error from {view} where error is not null"  # noqa: S608 - of the two above
                rows = connection.execute(query).fetchall()
                if rows:
                    found[f"config/postgres/{name}"] = [f"line {number}: {error}" for number, error in rows[:3]]
    except psycopg.Error:
        return {}
    return found


def check(
    place: ConfigPlace,
    files: Mapping[str, ConfigFile],
    services: frozenset[str],
    release: str | None,
    *,
    compose: bool = True,
) -> Problems:
    """Check a set of files in scratch, each by the program that reads it; `services` are those whose images are asked."""
    found = config_checks.check_env(files)
    with scratch(place.state_dir, files) as tree:
        config_checks.merge(found, config_checks.check_pair(tree, files))
        if compose:
            config_checks.merge(found, config_checks.check_compose(tree, files))
        if services and release:
            checks = config_checks.ImageChecks(tree, release, place.repository)
            for name, problems in checks.all(services).items():
                if name not in found:  # already known for a better reason
                    found[name] = problems
    return found


@contextlib.contextmanager
def scratch(state_dir: Path, files: Mapping[str, ConfigFile]) -> Iterator[Path]:
    """Write files into a folder of the stack's shape, with the attributes they should have, and remove it afterwards."""
    parent = state_dir / "scratch"
    ensure_directory(parent)
    tree = parent / f"{_SCRATCH_PREFIX}{secrets.token_hex(6)}"
    try:
        for folder in ("", *config_files.FOLDERS):
            (tree / folder).mkdir(mode=0o700)
        for name, file in files.items():
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            mode, uid, gid = config_files.expected_attributes(name)
            write_atomic(tree / name, file.content, mode=mode, owner=(uid, gid), durable=False)
        for folder, (mode, uid, gid) in config_files.FOLDERS.items():
            os.chown(tree / folder, uid, gid)
            (tree / folder).chmod(mode)
        yield tree
    finally:
        shutil.rmtree(tree, ignore_errors=True)
        with contextlib.suppress(OSError):
            parent.rmdir()  # only when nobody else has something in it


def remove_stale_scratch(state_dir: Path) -> None:
    """Remove what a killed run left in scratch; it holds secrets."""
    for path in (state_dir / "scratch").glob(f"{_SCRATCH_PREFIX}*"):
        with contextlib.suppress(FileNotFoundError):
            if time.time() - path.stat().st_mtime > _STALE_SCRATCH_S:
                shutil.rmtree(path)


def drift_of(
    place: ConfigPlace, docker: DockerHost, containers: Sequence[ContainerState], files: Mapping[str, ConfigFile]
) -> list[Drift]:
    """Compare the containers with the files in place, which have to be sound."""
    wanted = config_drift.read_wanted(place.stack_dir, place.project)
    found = config_drift.of_containers(wanted, containers, files)
    found += config_drift.of_mounts(place.stack_dir, docker, containers)
    if any(state.service == "nginx" and state.running for state in containers):
        found += config_drift.of_nginx(wanted, files)
    return found
