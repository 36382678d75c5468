# SPDX-License-Identifier: GPL-3.0-or-later
"""`make audit` never calls "clean" what it could not ask about."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "lint" / "audit"


@pytest.mark.parametrize(
    ("answers", "code", "says"),
    [
        pytest.param("echo No known vulnerabilities found", 0, "No known vulnerabilities found", id="clean"),
        pytest.param("echo flask 3.1.0 PYSEC-2026-1; exit 1", 1, "explain in tests/lint/audit", id="found"),
        pytest.param("echo ERROR: flask could not be audited >&2; exit 1", 3, "not audited", id="not_known_there"),
        pytest.param("echo requests.exceptions.ConnectionError >&2; exit 1", 3, "not audited", id="not_reached"),
        pytest.param(
            'case "$*" in *agent/*) echo could not be audited; exit 1;; *) echo PYSEC-2026-1; exit 1;; esac',
            1,
            "not audited",
            id="found_in_one_and_the_other_not_reached",
        ),
    ],
)
def test_exit_codes(tmp_path: Path, answers: str, code: int, says: str) -> None:
    script = tmp_path / "tests" / "lint" / "audit"
    script.parent.mkdir(parents=True)
    shutil.copy(SCRIPT, script)
    stand_in = tmp_path / ".venv" / "bin" / "pip-audit"
    stand_in.parent.mkdir(parents=True)
    stand_in.write_text(f'#!/bin/sh\ncase "$*" in *--strict*) ;; *) exit 9;; esac\n{answers}\n', encoding="utf-8")
    stand_in.chmod(0o755)
    done = subprocess.run([str(script)], capture_output=True, text=True, check=False)
    assert done.returncode == code, done
    assert says in done.stdout + done.stderr
