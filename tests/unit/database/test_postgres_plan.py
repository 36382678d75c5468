# SPDX-License-Identifier: GPL-3.0-or-later
"""How a restore is chosen, sized, and described before anything is stopped."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ansible.module_utils.whats_agent import pgbackrest
from ansible.module_utils.whats_agent import postgres_plan as plan
from ansible.module_utils.whats_agent.docker_host import parse_writers
from ansible.module_utils.whats_agent.errors import WhatsAgentError
from ansible.module_utils.whats_agent.postgres_wal import Tail

INFO = (Path(__file__).parent / "data" / "info_ok.json").read_text(encoding="utf-8")
OK = pgbackrest.parse_info(INFO)
FULL, INCREMENTAL = OK.backups  # WAL 3 and 4..5; only the incremental one is proven
WAL = [f"00000001000000000000000{n}" for n in range(1, 8)]


def test_the_space_needed_is_data_tail_and_reserve() -> None:
    backup = replace(FULL, size=1_000_000)
    assert plan.needed_bytes(backup, Tail(("a", "b"), ()), reserve=7) == 1_050_000 + 2 * 16 * 1024 * 1024 + 7


def described(**changes: object) -> dict[str, str]:
    """Return what a plan says it costs."""
    base = plan.RestorePlan(
        backup="20261124-132821F",
        repo=1,
        proven=True,
        backup_age=840,
        size=1,
        needed=1,
        free=2,
        disk="/var/lib/docker",
        newest_wal=WAL[-1],
        wal_start=WAL[0],
        holes=(),
        old_volume="old",
        old_readable=True,
        tail_segments=2,
        off_host=False,
        message_log=True,
    )
    return replace(base, **changes).loses  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "english", "portuguese"),
    [
        ({}, "(proven), 14 min old; every commit comes back", "(comprovado), de 14 min atrás; todos os commits voltam"),
        ({"proven": False}, "(not yet proven)", "(ainda não comprovado)"),
        ({"old_readable": False}, f"archived up to {WAL[-1]}", f"arquivado até {WAL[-1]}"),
        ({"holes": (WAL[5],)}, f"{WAL[5]} is missing", f"falta o segmento de WAL {WAL[5]}"),
        ({"target_time": "T"}, "changes after T are undone", "mudanças após T são desfeitas"),
        ({"message_log": False}, "messages after that are lost", "mensagens depois disso se perdem"),
        ({}, "0 acknowledged messages lost", "0 mensagens confirmadas perdidas"),
        (
            {"log_gap": 7},
            "as far as the message log reaches: up to 7 entries",
            "log de mensagens alcança: até 7 registros",
        ),
        ({"log_gap": None}, "an unknown number of entries", "um número desconhecido de registros"),
    ],
)
def test_the_plan_says_what_would_be_lost(changes: dict[str, object], english: str, portuguese: str) -> None:
    said = described(**changes)
    assert english in said["en"]
    assert portuguese in said["pt"]


class Containers:
    """Docker, as far as it is asked who uses a volume."""

    def __init__(self, entries: list[dict[str, Any]]) -> None:
        self.entries = entries

    def writers(self, volume: str) -> dict[str, str]:
        """Return who may write to it."""
        return parse_writers(self.entries, volume)

    def container(self, _project: str, _service: str) -> Any:
        """Return the stack's own."""
        return SimpleNamespace(id="own")


def user(identity: str, *, writable: bool, volume: str = "old") -> dict[str, Any]:
    """Return a running container as the engine lists it."""
    mount = {"Type": "volume", "Name": volume, "RW": writable}
    return {"Id": identity, "Names": [f"/{identity}-name"], "Mounts": [mount]}


@pytest.mark.parametrize(
    ("entries", "refused"),
    [
        ([], False),
        ([user("own", writable=True)], False),
        ([user("reader", writable=False)], False),
        ([user("own", writable=True), user("stranger", writable=True)], True),
    ],
)
def test_a_volume_that_somebody_else_may_write_to_is_refused(entries: list[dict[str, Any]], refused: bool) -> None:
    place = SimpleNamespace(project="whats_agent", service="postgres")
    backrest: Any = SimpleNamespace(docker=Containers(entries), place=place)
    with pytest.raises(WhatsAgentError, match="stranger-name") if refused else contextlib.nullcontext():
        plan.refuse_other_users(backrest, "old")


@pytest.mark.parametrize("full", [True, False])
def test_what_cannot_be_looked_at_is_the_full_disks_fault_only_when_it_is_full(
    monkeypatch: pytest.MonkeyPatch, full: bool
) -> None:
    def contents() -> None:
        raise WhatsAgentError("cannot start pgbackrest in a container: no space left on device")

    docker = SimpleNamespace(root=lambda: "/var/lib/docker")
    backrest: Any = SimpleNamespace(contents=contents, docker=docker, service=SimpleNamespace(binds={}))
    monkeypatch.setattr(plan, "free_bytes", lambda _path: plan.FULL_BYTES - (1 if full else 0))
    with pytest.raises(WhatsAgentError, match=r"31 MB are free.*reclaim_disk" if full else "cannot start") as refused:
        plan.plan_restore(backrest, "old")
    assert full == ("libere" in refused.value.details.get("pt", ""))


def test_a_full_disk_is_told_from_other_failures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert plan.disk_is_full(tmp_path) is None
    monkeypatch.setattr(plan, "free_bytes", lambda _path: plan.FULL_BYTES - 1)
    told = plan.disk_is_full(tmp_path)
    assert told is not None
    assert "ran full" in told.message
    assert "remove_volume" not in told.message  # which refuses beside an unfinished restore
    assert "encheu" in told.details["pt"]
