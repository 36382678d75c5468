# SPDX-License-Identifier: GPL-3.0-or-later
"""The helper that proves "nothing changed" must notice every kind of change, or it proves nothing."""

from __future__ import annotations

import copy
import importlib.util
import json
import os
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

SOURCE = Path(__file__).resolve().parents[3] / "tests" / "molecule" / "library" / "state_fingerprint.py"


def load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("state_fingerprint", SOURCE)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules["state_fingerprint"] = module
    spec.loader.exec_module(module)
    return module


fingerprint = load()

CONTAINER = {"id": "c1", "image": "i1", "status": "running", "exit_code": 0, "started": "10:00", "restarts": 0}
STATE: dict[str, dict[str, Any]] = {
    "containers": {"postgres": CONTAINER},
    "files": {"/opt/whats_agent/.env": {"mode": "-rw-------", "owner": "0:0", "size": 3, "mtime": 1, "sha256": "a"}},
    "images": {"i1": {"tags": ["whats_agent/postgres:1"]}},
    "networks": {"whats_agent_backend": {"id": "n1"}},
    "redis": {"maxmemory": {"said": "d1", "exit": 0}, "key abc": {"expires": -1}},
    "rows": {"public.messages": {"rows": "3 rows abc"}},
    "units": {"docker.service": {"enabled": "enabled"}},
    "volume_files": {
        "/v/_data/PG_VERSION": {"mode": "-rw-------", "owner": "1:1", "size": 3, "mtime": 1, "sha256": "b"}
    },
    "volumes": {"whats_agent_pgdata_1": {"created": "x", "labels": {}, "busy": False}},
}


def differences(before: dict[str, Any], after: dict[str, Any], *, may_grow: tuple[str, ...] = ()) -> list[str]:
    found: list[str] = fingerprint.compare(before, after, list(may_grow), "/var/lib/whats_agent/runs")
    return found


def test_the_same_state_has_no_differences() -> None:
    assert differences(STATE, copy.deepcopy(STATE)) == []


@pytest.mark.parametrize("kind", sorted(STATE))
def test_a_thing_gone_is_noticed(kind: str) -> None:
    after = copy.deepcopy(STATE)
    after[kind].clear()
    assert len(differences(STATE, after)) == len(STATE[kind])


@pytest.mark.parametrize("kind", sorted(STATE))
def test_a_new_thing_is_noticed(kind: str) -> None:
    before = copy.deepcopy(STATE)
    before[kind].clear()
    assert len(differences(before, STATE)) == len(STATE[kind])


@pytest.mark.parametrize(
    ("kind", "key"),
    [(kind, key) for kind, entries in sorted(STATE.items()) for entry in entries.values() for key in sorted(entry)],
)
def test_each_changed_property_is_noticed(kind: str, key: str) -> None:
    after = copy.deepcopy(STATE)
    next(entry for entry in after[kind].values() if key in entry)[key] = "something else"
    assert len(differences(STATE, after)) == 1


def test_a_restart_by_docker_itself_is_forgiven_in_a_crash_loop() -> None:
    before, after = copy.deepcopy(STATE), copy.deepcopy(STATE)
    before["containers"]["postgres"].update(status="restarting", restarts=4, exit_code=1)
    after["containers"]["postgres"].update(status="running", restarts=6, exit_code=1, started="10:01")
    assert differences(before, after) == []


@pytest.mark.parametrize("restarts", [(0, 1), (4, 0)])
def test_a_restart_by_hand_is_noticed(restarts: tuple[int, int]) -> None:
    before, after = copy.deepcopy(STATE), copy.deepcopy(STATE)
    before["containers"]["postgres"].update(restarts=restarts[0])
    after["containers"]["postgres"].update(restarts=restarts[1], started="10:01")
    assert len(differences(before, after)) == 1


def files_below(folder: Path) -> dict[str, Any]:
    return {**{kind: {} for kind in STATE}, "files": fingerprint.walk(folder, [])}


@pytest.mark.parametrize(
    ("change", "noticed"),
    [
        ("first line\nsecond line\n", False),
        ("first line\n", False),
        ("first lime\nsecond line\n", True),
        ("first", True),
        (None, True),
    ],
    ids=["appended", "same content again", "history rewritten", "cut", "removed"],
)
def test_a_log_may_only_grow(tmp_path: Path, change: str | None, noticed: bool) -> None:
    log = tmp_path / "app.log"
    log.write_text("first line\n", encoding="utf-8")
    before = files_below(tmp_path)
    if change is None:
        log.unlink()
    else:
        log.write_text(change, encoding="utf-8")
    assert bool(differences(before, files_below(tmp_path), may_grow=(f"{tmp_path}/*",))) is noticed


def test_a_file_written_anew_with_the_same_content_is_noticed(tmp_path: Path) -> None:
    file = tmp_path / ".env"
    file.write_text("A=1\n", encoding="utf-8")
    os.utime(file, (1, 1))
    before = files_below(tmp_path)
    file.write_text("A=1\n", encoding="utf-8")
    assert len(differences(before, files_below(tmp_path))) == 1


@pytest.mark.parametrize(
    ("events", "allowed"),
    [
        ([{"event": "open", "dry_run": True}, {"event": "close", "dry_run": True}], True),
        ([{"event": "open", "dry_run": True}, {"event": "step"}], False),
        ([{"event": "open", "dry_run": False}], False),
        ([], False),
    ],
)
def test_only_a_dry_runs_record_may_appear(tmp_path: Path, events: list[dict[str, Any]], allowed: bool) -> None:
    before = files_below(tmp_path)
    (tmp_path / "run.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events), encoding="utf-8")
    found = fingerprint.compare(before, files_below(tmp_path), [], str(tmp_path))
    assert (found == []) is allowed


def test_volumes_that_running_containers_write_are_told_from_those_at_rest() -> None:
    def container(name: str, *, running: bool = True, paused: bool = False, restarts: int = 0) -> dict[str, Any]:
        mount = {"Type": "volume", "Name": name, "RW": True}
        state = {"Running": running, "Paused": paused}
        return {"State": state, "RestartCount": restarts, "Mounts": [mount]}

    containers = [
        container("busy"),
        container("stopped", running=False),
        container("paused", paused=True),
        container("crash looping", restarts=2),
    ]
    assert fingerprint.written_volumes(containers) == {"busy"}


@pytest.mark.parametrize(("name", "changes"), [("key abc", {"expires": 5}), ("maxmemory", {"said": "d2"})])
def test_another_time_to_live_or_setting_in_redis_is_noticed(name: str, changes: dict[str, Any]) -> None:
    after = copy.deepcopy(STATE)
    after["redis"][name].update(changes)
    assert len(differences(STATE, after)) == 1


@pytest.mark.parametrize(("expires", "noticed"), [(-1, 1), (1_000, 0), (9_999_999_999_999, 1)])
def test_a_key_may_go_only_when_its_time_has_come(expires: int, noticed: int) -> None:
    before, after = copy.deepcopy(STATE), copy.deepcopy(STATE)
    before["redis"]["key def"] = {"expires": expires}
    assert len(differences(before, after)) == noticed


def test_redis_is_asked_only_while_it_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_arguments: Any, **_named: Any) -> None:
        raise AssertionError("asked")

    monkeypatch.setattr(fingerprint.subprocess, "run", never)
    labels = {"Labels": {"com.docker.compose.service": "redis"}}
    state = {"Running": True, "Paused": True}
    assert fingerprint.redis_keys([{"Id": "r", "State": state, "RestartCount": 0, "Config": labels}]) == {}
    stopped = {"Running": False, "Paused": False}
    assert fingerprint.redis_keys([{"Id": "r", "State": stopped, "RestartCount": 0, "Config": labels}]) == {}


def test_the_password_is_kept_as_a_digest_only(monkeypatch: pytest.MonkeyPatch) -> None:
    class Done:
        stdout = "requirepass\ns3cret-word\n"
        returncode = 0

    monkeypatch.setattr(fingerprint.subprocess, "run", lambda *_a, **_n: Done())
    labels = {"Labels": {"com.docker.compose.service": "redis"}}
    state = {"Running": True, "Paused": False}
    found = fingerprint.redis_keys([{"Id": "r", "State": state, "RestartCount": 0, "Config": labels}])
    assert "s3cret-word" not in json.dumps(found["requirepass"])
