# SPDX-License-Identifier: GPL-3.0-or-later
"""Nothing is put in place before the whole is sound; what is replaced is kept aside for root only."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, ClassVar

import pytest
from ansible.module_utils.whats_agent import config_files, config_mend, config_observe
from ansible.module_utils.whats_agent.config_drift import Drift
from ansible.module_utils.whats_agent.config_files import COMPOSE, ENV, REQUIRED, ConfigFile
from ansible.module_utils.whats_agent.config_observe import ConfigPlace, Observed
from ansible.module_utils.whats_agent.errors import WhatsAgentError

from tests.unit.config.test_config_env import SOUND
from tests.unit.conftest import RunModule

NGINX = config_files.NGINX


class _Docker:
    """An engine that has every image but those of the release `gone`."""

    def image_id(self, reference: str) -> str | None:
        """Return an image's id."""
        return None if reference.endswith(":gone") else "sha256:1"


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ConfigPlace:
    """Return a stack whose files the test's own user may write, and no program is asked about."""
    mine = (0o600, os.getuid(), os.getgid())
    monkeypatch.setattr(config_files, "expected_attributes", lambda _name: mine)
    monkeypatch.setattr(config_files, "FOLDERS", dict.fromkeys(config_files.FOLDERS, (0o700, *mine[1:])))
    monkeypatch.setattr(config_observe, "check", lambda *_args, **_more: {})
    (tmp_path / "stack").mkdir()
    (tmp_path / "state").mkdir()
    return ConfigPlace(tmp_path / "stack", tmp_path / "state", tmp_path / "copies", tmp_path / "repository")


def _file(name: str, text: str, changed_ns: int | None = None) -> ConfigFile:
    return ConfigFile(name, text.encode(), (0o600, 0, 0), changed_ns)


FILES = {name: _file(name, SOUND if name == ENV else f"{name}\n") for name in REQUIRED}


def _put(place: ConfigPlace, new: dict[str, ConfigFile], *, write: bool = True) -> config_mend.Placed:
    docker: Any = _Docker()
    return config_mend.put_in_place(place, docker, Observed(files=FILES), new, run_id="run-1", write=write)


def test_the_new_is_there_and_the_old_is_kept_aside(place: ConfigPlace) -> None:
    (place.stack_dir / ENV).write_text("broken\n")
    (place.stack_dir / ENV).chmod(0o644)
    done = _put(place, {ENV: _file(ENV, SOUND, changed_ns=1_700_000_000_000_000_000), NGINX: _file(NGINX, "new\n")})
    assert (place.stack_dir / ENV).read_text(encoding="utf-8") == SOUND
    assert (place.stack_dir / ENV).stat().st_mode & 0o777 == 0o600
    assert (place.stack_dir / ENV).stat().st_mtime_ns == 1_700_000_000_000_000_000
    assert (place.stack_dir / NGINX).read_text() == "new\n"  # its folder was gone too
    kept = place.state_dir / "replaced_config" / "run-1" / ENV
    assert kept.read_text() == "broken\n"
    assert kept.stat().st_mode & 0o777 == 0o600
    assert done.aside == str(kept.parent)
    assert {"app", "worker", "postgres", "nginx"} <= done.touched


def test_a_mounted_file_concerns_its_service_only(place: ConfigPlace) -> None:
    assert _put(place, {NGINX: _file(NGINX, "new\n")}).touched == {"nginx"}


def test_what_is_no_file_is_moved_aside(place: ConfigPlace) -> None:
    (place.stack_dir / "elsewhere").write_text("kept\n")
    (place.stack_dir / COMPOSE).symlink_to(place.stack_dir / "elsewhere")
    _put(place, {COMPOSE: _file(COMPOSE, "new\n")})
    assert not (place.stack_dir / COMPOSE).is_symlink()
    assert (place.stack_dir / COMPOSE).read_text() == "new\n"
    assert (place.stack_dir / "elsewhere").read_text() == "kept\n"


def test_a_dry_run_writes_nothing(place: ConfigPlace) -> None:
    done = _put(place, {NGINX: _file(NGINX, "new\n")}, write=False)
    assert done.names == (NGINX,)
    assert list(place.stack_dir.iterdir()) == []
    assert list(place.state_dir.iterdir()) == []


def test_nothing_is_put_in_place_when_the_whole_is_not_sound(
    place: ConfigPlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = {ENV: _file(ENV, SOUND.replace("RELEASE=b46a0558259f", "RELEASE=gone"))}
    with pytest.raises(WhatsAgentError, match="RELEASE names images that this server does not have: gone"):
        _put(place, gone)
    monkeypatch.setattr(config_observe, "check", lambda *_args, **_more: {NGINX: ["unknown directive"]})
    with pytest.raises(WhatsAgentError, match=f"nothing was: {NGINX}: unknown directive"):
        _put(place, {NGINX: _file(NGINX, "new\n")})
    assert list(place.stack_dir.iterdir()) == []
    assert list(place.state_dir.iterdir()) == []


@pytest.mark.parametrize("key", ["config/pgbackrest/sftp/key", "config/pgbackrest/ca.crt"])
@pytest.mark.parametrize(
    ("backrest", "wanted"),
    [
        pytest.param(
            "repo2-sftp-private-key-file=/etc/pgbackrest/sftp/key\nrepo2-storage-ca-file=/etc/pgbackrest/ca.crt\n",
            True,
            id="still configured",
        ),
        pytest.param("repo1-path=/var/lib/pgbackrest\n", False, id="taken out of the inventory"),
        pytest.param(None, True, id="nobody knows"),
    ],
)
def test_what_a_second_repository_took_is_missed_only_while_there_is_one(
    backrest: str | None, wanted: bool, key: str
) -> None:
    backrest_conf = config_files.PGBACKREST
    there = {name: file for name, file in FILES.items() if name != backrest_conf}
    if backrest is not None:
        there[backrest_conf] = _file(backrest_conf, backrest)
    names = config_observe.expected(there, {**FILES, key: _file(key, "k"), "config/extra": _file("config/extra", "e")})
    assert (key in names) is wanted
    assert {*REQUIRED, "config/extra"} <= set(names)


@pytest.mark.parametrize(
    ("name", "services"),
    [
        (ENV, set()),
        (NGINX, {"nginx"}),
        ("config/nginx", {"nginx"}),
        ("certs", {"nginx"}),
        ("certs/privkey.pem", {"nginx"}),
        ("config/pgbackrest/conf.d", {"postgres"}),
        ("config", set()),
    ],
)
def test_who_reads_a_file_or_what_lies_in_a_folder(name: str, services: set[str]) -> None:
    assert config_mend.readers([name]) == services


class _Applier:
    """Takes down what it is to do."""

    asked: ClassVar[list[frozenset[str]]] = []

    def __init__(self, *_arguments: Any) -> None:
        """Forget what was asked before."""
        self.asked.clear()

    def apply(self, touched: frozenset[str], *, restoring: bool) -> list[str]:
        """Say that something was done."""
        assert not restoring
        self.asked.append(touched)
        return ["app replaced, 2 of 2 replicas, one at a time"]


@pytest.mark.parametrize("check", [False, True])
def test_mended_attributes_do_not_leave_the_services_for_another_run(
    run_module: RunModule, place: ConfigPlace, monkeypatch: pytest.MonkeyPatch, check: bool
) -> None:
    (place.stack_dir / ENV).write_text(SOUND)
    (place.stack_dir / ENV).chmod(0o644)
    mine = (0o600, os.getuid(), os.getgid())
    drift = (Drift("app", "recreate", "runs with other settings"),)
    seen = Observed(files=FILES, attributes={ENV: ((0o644, *mine[1:]), mine)}, drift=drift)
    monkeypatch.setattr(config_observe, "observe", lambda *_args, **_more: seen)
    monkeypatch.setattr("config_mend.Applier", _Applier)
    _Applier.asked.clear()
    result = run_module(
        "config_mend",
        {"remedy": "attributes", "stack_dir": str(place.stack_dir), "state_dir": str(place.state_dir)},
        check=check,
    )
    assert result["changed"]
    assert result["placed"] == [ENV]
    if check:
        assert result["services"] == ["app would be brought to the files"]
        assert _Applier.asked == []
    else:
        assert result["services"] == ["app replaced, 2 of 2 replicas, one at a time"]
        assert _Applier.asked == [frozenset()]
        assert (place.stack_dir / ENV).stat().st_mode & 0o777 == 0o600
