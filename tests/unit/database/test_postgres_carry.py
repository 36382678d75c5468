# SPDX-License-Identifier: GPL-3.0-or-later
"""What a restore carries over of the old volume's WAL and of the WAL receiver's, and what end it then demands."""

from __future__ import annotations

import struct
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ansible.module_utils.whats_agent import pgbackrest, postgres_restore_steps
from ansible.module_utils.whats_agent.lock import Idle
from ansible.module_utils.whats_agent.pgbackrest import segment_start
from ansible.module_utils.whats_agent.postgres_host import DatabasePlace
from ansible.module_utils.whats_agent.postgres_plan import plan_restore
from ansible.module_utils.whats_agent.postgres_restore_steps import RestoreSteps

ONE, TWO, THREE, FOUR = (f"00000001000000000000000{n}" for n in (1, 2, 3, 4))
INFO = (Path(__file__).parent / "data" / "info_ok.json").read_text(encoding="utf-8")
ENDS_IN = "pg_waldump: error: error in WAL record at {}: invalid record length"


def segment(folder: Path, name: str, pages: int = 1) -> None:
    """Write a segment's first pages."""
    start = segment_start(name.removesuffix(".partial"))
    headers = [struct.pack("<HHIQ", 0xD116, 2, 1, start + 8192 * n) for n in range(pages)]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(b"".join(header + bytes(8176) for header in headers))


class Carrying(RestoreSteps):
    """The step `carried` over volumes that are directories. `walks` maps a volume to what a walk through its WAL says."""

    def __init__(self, root: Path, walks: dict[str, str], archived: list[str]) -> None:
        self.root = root
        self.walked: list[str] = []

        def volume(name: str) -> Any:
            return SimpleNamespace(name=name, mountpoint=str(root / name)) if (root / name).is_dir() else None

        def look_into(name: str, _argv: object, **_: object) -> Any:
            self.walked.append(name)
            return SimpleNamespace(exit_code=1, stdout="", stderr=walks[name])

        docker = SimpleNamespace(volume=volume)
        backrest: Any = SimpleNamespace(docker=docker, compose=None, archived=lambda: archived, look_into=look_into)
        place = DatabasePlace(root, root / "state", "whats_agent")
        super().__init__(place, backrest, heart=Idle(), progress=lambda _step: pytest.fail("no report"))
        self.state = {"id": "r1", "old_volume": "old", "new_volume": "new", "target_time": None, "wal_start": ONE}
        (root / "new" / "pg_wal").mkdir(parents=True)

    def _save(self, **changes: Any) -> None:
        self.state.update(changes)

    @property
    def carried(self) -> list[str]:
        """Return what lies in the new volume."""
        return sorted(entry.name for entry in (self.root / "new" / "pg_wal").iterdir())


@pytest.fixture(autouse=True)
def own_files(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Let what is copied belong to whoever runs the tests."""
    monkeypatch.setattr(postgres_restore_steps, "UID", tmp_path.stat().st_uid)
    monkeypatch.setattr(postgres_restore_steps, "GID", tmp_path.stat().st_gid)


def test_a_volume_without_its_newest_segments_is_completed_by_the_receiver(tmp_path: Path) -> None:
    segment(tmp_path / "old" / "pg_wal", TWO)
    for name in (TWO, THREE, f"{FOUR}.partial"):
        segment(tmp_path / "whats_agent_wal_receiver" / "current", name)
    gone = f'pg_waldump: error: could not find file "{THREE}": No such file'
    step = Carrying(tmp_path, {"old": gone, "new": ENDS_IN.format("0/4000100")}, [ONE])
    details = step._step_carried()
    assert step.carried == [TWO, THREE, FOUR]
    assert step.state["expected_end"] == details["expected_end"] == "0/4000101"


def test_a_receiver_that_is_behind_lowers_no_end(tmp_path: Path) -> None:
    segment(tmp_path / "old" / "pg_wal", TWO)
    segment(tmp_path / "old" / "pg_wal", THREE)
    segment(tmp_path / "whats_agent_wal_receiver" / "current", f"{TWO}.partial")
    step = Carrying(tmp_path, {"old": ENDS_IN.format("0/3000200"), "new": ENDS_IN.format("0/2000100")}, [ONE])
    step._step_carried()
    assert step.state["expected_end"] == "0/3000201"


def test_of_a_lost_volume_the_receiver_has_all(tmp_path: Path) -> None:
    segment(tmp_path / "whats_agent_wal_receiver" / "current", f"{TWO}.partial")
    step = Carrying(tmp_path, {"new": ENDS_IN.format("0/2000100")}, [ONE])
    step._step_carried()
    assert (step.carried, step.state["expected_end"]) == ([TWO], "0/2000101")


@pytest.mark.parametrize("wish", [{"target_time": "2026-01-31 12:00:00+00"}, {"source_volume": "old"}])
def test_who_goes_back_gets_nothing_from_the_receiver(tmp_path: Path, wish: dict[str, str]) -> None:
    segment(tmp_path / "old" / "pg_wal", TWO)
    segment(tmp_path / "whats_agent_wal_receiver" / "current", THREE)
    step = Carrying(tmp_path, {"old": ENDS_IN.format("0/2000100")}, [ONE])
    step.state.update(wish)
    step._step_carried()
    assert THREE not in step.carried
    assert "new" not in step.walked


@pytest.mark.parametrize(("received", "holes"), [([], (FOUR,)), ([FOUR], ())])
def test_what_the_receiver_holds_is_no_hole(tmp_path: Path, received: list[str], holes: tuple[str, ...]) -> None:
    repository = pgbackrest.parse_info(INFO)
    wal = [f"00000001000000000000000{n}" for n in (*range(3), 3, *range(5, 8))]
    for name in received:
        segment(tmp_path / "whats_agent_wal_receiver" / "current", name)
    docker = SimpleNamespace(
        volume=lambda name: SimpleNamespace(name=name, mountpoint=str(tmp_path / name)) if "wal_rec" in name else None,
        root=lambda: str(tmp_path),
    )
    place = DatabasePlace(tmp_path, tmp_path / "state", "whats_agent")
    backrest: Any = SimpleNamespace(docker=docker, place=place, contents=lambda: (repository, wal))
    plan = plan_restore(backrest, "old", reserve=0)
    assert plan.holes == holes
    assert plan.received_segments == len(received)
    assert ("the WAL receiver has 1 segments that it lacks" in plan.loses["en"]) is bool(received)
