# SPDX-License-Identifier: GPL-3.0-or-later
"""file_set writes what differs, shows it, and never shows a secret."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.basic import AnsibleModule

from tests.unit.conftest import RunModule

SECRET = "p4ssw0rd-that-must-not-show"


def params(root: Path) -> dict[str, Any]:
    mine = {"owner": os.getuid(), "group": os.getgid()}
    return {
        "folders": [{"path": str(root / "config"), "mode": "0750", **mine}],
        "files": [{"path": str(root / "config/a.conf"), "content": "a = 1\n", "mode": "0644", **mine}],
        "secret_files": [{"path": str(root / ".env"), "content": f"KEY={SECRET}\n", "mode": "0600", **mine}],
    }


def test_the_system_journal_gets_no_secret(
    tmp_path: Path, run_module: RunModule, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr(AnsibleModule, "log", lambda _self, message, **_more: said.append(str(message)))
    wanted = params(tmp_path)
    wanted["secret_files"][0]["content"] = f"FIRST={SECRET}\nSECOND={SECRET}\n"
    done = run_module("file_set", wanted)
    assert (tmp_path / ".env").read_text() == f"FIRST={SECRET}\nSECOND={SECRET}\n"
    assert "Invoked with the options" in said[0]
    assert SECRET not in " ".join(said)
    assert SECRET not in str(done)


def test_check_run_check_run_again(tmp_path: Path, run_module: RunModule) -> None:
    predicted = run_module("file_set", params(tmp_path), check=True)
    assert predicted["changed"]
    assert list(tmp_path.iterdir()) == []

    done = run_module("file_set", params(tmp_path))
    assert done["changed_paths"] == predicted["changed_paths"]
    assert (tmp_path / ".env").read_text() == f"KEY={SECRET}\n"
    assert (tmp_path / ".env").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "config").stat().st_mode & 0o777 == 0o750

    for check in (True, False):
        assert run_module("file_set", params(tmp_path), check=check)["changed"] is False


def test_corrects_a_mode_alone(tmp_path: Path, run_module: RunModule) -> None:
    run_module("file_set", params(tmp_path))
    (tmp_path / ".env").chmod(0o644)
    assert run_module("file_set", params(tmp_path))["changed_paths"] == [str(tmp_path / ".env")]
    assert (tmp_path / ".env").stat().st_mode & 0o777 == 0o600


def test_secrets_do_not_show(tmp_path: Path, run_module: RunModule) -> None:
    run_module("file_set", params(tmp_path))
    (tmp_path / ".env").write_text("KEY=another-secret-of-before\n")
    (tmp_path / "config/a.conf").write_text("a = 2\n")
    shown = str(run_module("file_set", params(tmp_path))["diff"])
    assert "a = 2" in shown
    assert SECRET not in shown
    assert "another-secret-of-before" not in shown


def test_refuses_links(tmp_path: Path, run_module: RunModule) -> None:
    (tmp_path / ".env").symlink_to("/dev/null")
    assert "symbolic link" in run_module("file_set", params(tmp_path), fails=True)["msg"]


def test_removes_what_must_be_absent(tmp_path: Path, run_module: RunModule) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").touch()
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "link").symlink_to(outside)
    absent = {"absent": [str(folder), str(tmp_path / "never_was")]}
    assert run_module("file_set", absent, check=True)["changed_paths"] == [str(folder)]
    assert folder.exists()
    assert run_module("file_set", absent)["changed_paths"] == [str(folder)]
    assert not folder.exists()
    assert (outside / "kept").exists()
    assert run_module("file_set", absent)["changed"] is False


@pytest.mark.parametrize("mode", ["rw", "", "0999"])
def test_refuses_a_mode_that_is_none(tmp_path: Path, run_module: RunModule, mode: str) -> None:
    wrong = {"folders": [{"path": str(tmp_path / "x"), "mode": mode}]}
    assert "is not octal" in run_module("file_set", wrong, fails=True)["msg"]
