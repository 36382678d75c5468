# SPDX-License-Identifier: GPL-3.0-or-later
"""The database's volumes: which there are, which one is in use, and which may be removed."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import env_file
from .errors import WhatsAgentError
from .files import read_json
from .postgres_host import VOLUME_LABEL, VOLUME_ROLE
from .postgres_unsound import closed_unsound

if TYPE_CHECKING:
    from .pgbackrest import Repository
    from .postgres_backrest import Backrest


@dataclass(frozen=True)
class DataVolume:
    """A volume that holds, or held, the database. `size` in bytes; `kept_because` is None where it may be removed."""

    name: str
    created_at: str
    size: int
    kept_because: dict[str, str] | None

    def as_dict(self) -> dict[str, Any]:
        """Return JSON-able data."""
        return asdict(self)


def reason_to_keep(
    name: str,
    in_use: str,
    restore: dict[str, Any] | None,
    repository: Repository,
    unsound: dict[str, Any] | None = None,
) -> dict[str, str] | None:
    """Return why a volume must stay, in both languages, or None. Pure.

    `restore` is the state of an unfinished restore, `unsound` the record of one whose volume is in use and was found not sound.
    """
    if name == in_use:
        return {"en": f"{name} is the volume in use", "pt": f"{name} é o volume em uso"}
    if restore is not None and name in [restore.get(f"{which}_volume") for which in ("old", "new", "source")]:
        return {
            "en": f"an unfinished restore needs {name}: run playbooks/recover_db.yml",
            "pt": f"uma restauração não terminada precisa de {name}: execute playbooks/recover_db.yml",
        }
    if unsound is not None and name == unsound.get("old_volume"):
        return {
            "en": f"what was restored in place of {name} is not sound ({unsound['unsound']}), and {name} may be the only way back",
            "pt": f"o que foi restaurado no lugar de {name} não está íntegro ({unsound['unsound']}), e {name} pode ser o único "
            "caminho de volta",
        }
    if not any(backup.proven for backup in repository.backups):
        return {
            "en": f"no backup is proven, so {name} may be the only copy: run playbooks/backup.yml -e prove=true",
            "pt": f"nenhum backup foi comprovado, {name} pode ser a única cópia: execute playbooks/backup.yml -e prove=true",
        }
    return None


def data_volumes(backrest: Backrest) -> list[DataVolume]:
    """Return all volumes of the database, oldest first."""
    place = backrest.place
    in_use = env_file.read_env(place.env_path).get("DB_VOLUME", "")
    state = read_json(place.restore_path)
    unfinished = state if isinstance(state, dict) and not state.get("finished_at") else None
    unsound = closed_unsound(place, in_use)
    repository = backrest.info()
    return [
        DataVolume(
            name=volume.name,
            created_at=volume.created_at,
            size=_size(Path(volume.mountpoint)),
            kept_because=reason_to_keep(volume.name, in_use, unfinished, repository, unsound),
        )
        for volume in backrest.docker.volumes(f"{VOLUME_LABEL}={VOLUME_ROLE}")
        if volume.name.startswith(f"{place.project}_pgdata_")
    ]


def _size(root: Path) -> int:
    return sum(path.lstat().st_size for path in root.rglob("*") if path.is_file() and not path.is_symlink())


def find_removable(volumes: list[DataVolume], name: str) -> DataVolume:
    """Return the named volume if it may be removed, else fail with the reason, or with the names there are."""
    found = next((volume for volume in volumes if volume.name == name), None)
    if found is None:
        removable = ", ".join(volume.name for volume in volumes if volume.kept_because is None)
        raise WhatsAgentError(
            f"there is no old volume {name or '(name it: -e volume=NAME)'}; those that may go: {removable or 'none'}",
            pt=f"não há volume antigo {name or '(dê o nome: -e volume=NOME)'}; os que podem sair: {removable or 'nenhum'}",
        )
    if found.kept_because is not None:
        raise WhatsAgentError(found.kept_because["en"], pt=found.kept_because["pt"])
    return found


def remove(backrest: Backrest, name: str) -> DataVolume:
    """Remove an old volume, looking again whether it may go at the moment of acting."""
    volume = find_removable(data_volumes(backrest), name)
    container = backrest.docker.container(backrest.place.project, backrest.place.service)
    if container is not None and name in container.mounts.values():
        raise WhatsAgentError(f"the postgres container still uses {name}: run playbooks/recover_db.yml")
    backrest.docker.remove_volume(name)
    return volume
