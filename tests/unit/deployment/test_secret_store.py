# SPDX-License-Identifier: GPL-3.0-or-later
"""Secrets are made once, kept, and readable by their owner only."""

from __future__ import annotations

import re
from pathlib import Path

from tests.unit.conftest import RunModule


def test_made_once(tmp_path: Path, run_module: RunModule) -> None:
    folder = tmp_path / "secrets"
    request = {"folder": str(folder), "names": ["db_password", "redis_password"]}

    predicted = run_module("generated_secrets", request, check=True)
    assert predicted["created"] == ["db_password", "redis_password"]
    assert not folder.exists()

    first = run_module("generated_secrets", request)
    assert first["changed"]
    assert all(re.fullmatch(r"[A-Za-z0-9_-]{43}", value) for value in first["secrets"].values())
    assert len(set(first["secrets"].values())) == 2
    assert folder.stat().st_mode & 0o777 == 0o700
    assert all(path.stat().st_mode & 0o777 == 0o600 for path in folder.iterdir())

    again = run_module("generated_secrets", {**request, "names": [*request["names"], "third"]})
    assert again["created"] == ["third"]
    assert {name: again["secrets"][name] for name in first["secrets"]} == first["secrets"]


def test_an_emptied_secret_is_not_replaced(tmp_path: Path, run_module: RunModule) -> None:
    (tmp_path / "db_password").touch()
    result = run_module("generated_secrets", {"folder": str(tmp_path), "names": ["db_password"]}, fails=True)
    assert "is empty" in result["msg"]


def test_a_name_cannot_leave_the_folder(tmp_path: Path, run_module: RunModule) -> None:
    result = run_module("generated_secrets", {"folder": str(tmp_path), "names": ["../etc"]}, fails=True)
    assert "no name for a secret" in result["msg"]
