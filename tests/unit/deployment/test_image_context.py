# SPDX-License-Identifier: GPL-3.0-or-later
"""A release is named by what goes into its images, and by nothing else."""

from __future__ import annotations

import os
import tarfile
from pathlib import Path
from typing import Any

import pytest

from tests.unit.conftest import RunModule


@pytest.fixture
def project(tmp_path: Path) -> Path:
    app = tmp_path / "project/agent"
    (app / "package").mkdir(parents=True)
    (app / "Dockerfile").write_text("FROM base\n")
    (app / "package/a.py").write_text("A = 1\n")
    return tmp_path


def request(root: Path, **more: Any) -> dict[str, Any]:
    return {"contexts": {"app": [str(root / "project/agent")]}, "salt": ["debian:trixie-slim"], **more}


def name(run_module: RunModule, root: Path, **more: Any) -> str:
    return str(run_module("image_context", request(root, **more))["release"])


def test_the_name_follows_content_mode_path_and_salt(project: Path, run_module: RunModule) -> None:
    seen = {name(run_module, project)}
    source = project / "project/agent/package/a.py"
    source.write_text("A = 2\n")
    seen.add(name(run_module, project))
    source.chmod(0o755)
    seen.add(name(run_module, project))
    source.rename(source.with_name("b.py"))
    seen.add(name(run_module, project))
    seen.add(name(run_module, project, salt=["debian:trixie-slim", "2"]))
    seen.add(name(run_module, project, salt=["debian:trixie-slim2"]))
    assert len(seen) == 6
    assert all(len(release) == 12 for release in seen)


def test_the_name_ignores_what_tools_leave_and_times(project: Path, run_module: RunModule) -> None:
    before = name(run_module, project)
    cache = project / "project/agent/package/__pycache__"
    cache.mkdir()
    (cache / "a.pyc").write_bytes(b"x")
    (project / "project/agent/.mypy_cache").mkdir()
    os.utime(project / "project/agent/Dockerfile", (1, 1))
    assert name(run_module, project) == before


def test_the_archive_is_reproducible_and_holds_the_extra_files(project: Path, run_module: RunModule) -> None:
    wheels = project / "wheels"
    wheels.mkdir()
    (wheels / "x-1.whl").write_bytes(b"wheel")
    bare = name(run_module, project)
    contents = []
    for number in (1, 2):
        archive = project / f"{number}.tar"
        more = {"archive": str(archive), "extra": {"app": [str(wheels)]}}
        assert run_module("image_context", request(project, **more), check=True)["changed"]
        assert not archive.exists()
        assert name(run_module, project, **more) == bare
        contents.append(archive.read_bytes())
        os.utime(project / "project/agent/Dockerfile", (number, number))
    assert contents[0] == contents[1]
    with tarfile.open(project / "1.tar") as archive_file:
        assert archive_file.getnames() == ["app/Dockerfile", "app/package/a.py", "app/wheels/x-1.whl"]


@pytest.mark.parametrize("damage", ["missing", "link", "no_dockerfile"])
def test_refuses_a_context_that_cannot_be_built(project: Path, run_module: RunModule, damage: str) -> None:
    expected = {"missing": "does not exist", "link": "symbolic link", "no_dockerfile": "has no Dockerfile"}[damage]
    asked = request(project)
    if damage == "missing":
        asked["contexts"]["redis"] = [str(project / "nowhere")]
    elif damage == "link":
        (project / "project/agent/link").symlink_to("/etc/passwd")
    else:
        (project / "project/agent/Dockerfile").unlink()
    assert expected in run_module("image_context", asked, fails=True)["msg"]
