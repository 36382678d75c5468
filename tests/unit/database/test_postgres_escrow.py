# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether escrowed secrets open every repository: asked with what reaching them takes, and told which one stays closed."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ansible.module_utils.whats_agent import postgres_escrow
from ansible.module_utils.whats_agent.docker_host import ExecResult
from ansible.module_utils.whats_agent.errors import WhatsAgentError

AWAY = json.loads((Path(__file__).parent / "data" / "info_second_away.json").read_text(encoding="utf-8"))
REFUSED = AWAY[0]["repo"][1]["status"]
GARBLED = {"code": 99, "message": "[FormatError] unable to load info file"}
OPEN = {"code": 0, "message": "ok"}


class Docker:
    """Answers as told, and keeps what was mounted."""

    def __init__(self, second: dict[str, Any]) -> None:
        AWAY[0]["repo"][1]["status"] = second
        self.answer = json.dumps(AWAY)
        self.mounts: dict[str, str] = {}

    def run_once(self, _image: str, _argv: list[str], *, volumes: dict[str, Any], **_more: Any) -> ExecResult:
        """Take the mounts' targets; each folder must be there."""
        self.mounts = {mount["bind"]: source for source, mount in volumes.items()}
        self.files = sorted(path.name for path in Path(self.mounts["/etc/pgbackrest"]).iterdir())
        return ExecResult(0, self.answer, "")


@pytest.fixture
def check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return what asks, given how the second repository answers; it returns what was mounted."""
    configuration = tmp_path / "config"
    (configuration / "sftp").mkdir(parents=True)
    (configuration / "ca.crt").write_text("a certificate")
    binds = {"/etc/pgbackrest": (str(configuration), True)}
    monkeypatch.setattr("os.chown", lambda *_: None)
    monkeypatch.setattr(postgres_escrow, "write_atomic", lambda path, text, **_: path.write_text(text))
    monkeypatch.setattr(postgres_escrow, "repository_mounts", lambda _service: {})

    def ask(second: dict[str, Any]) -> dict[str, str]:
        docker = Docker(second)
        backrest: Any = SimpleNamespace(
            place=SimpleNamespace(state_dir=tmp_path / "state"),
            docker=docker,
            service=SimpleNamespace(image="postgres", binds=binds),
            configuration=lambda: "[global]\n",
            off_host_needed=lambda: True,
        )
        postgres_escrow.check(backrest, "[global]\nrepo1-cipher-pass=one\nrepo2-cipher-pass=two\n")
        assert docker.files == ["ca.crt", "conf.d", "pgbackrest.conf", "sftp"]
        return docker.mounts

    return ask


def test_the_key_that_reaches_the_other_host_is_there_beside_the_escrowed_secrets(check: Any, tmp_path: Path) -> None:
    mounts = check(OPEN)
    assert mounts["/etc/pgbackrest/sftp"] == str(tmp_path / "config" / "sftp")
    assert mounts["/etc/pgbackrest"] != str(tmp_path / "config")
    assert not list((tmp_path / "state" / "scratch").iterdir())


@pytest.mark.parametrize(
    ("second", "words"),
    [
        pytest.param(GARBLED, "repository 2: the repository cannot be opened with this passphrase", id="wrong secrets"),
        pytest.param(REFUSED, "repository 2: .*Connection refused", id="not reached, which is no wrong passphrase"),
    ],
)
def test_the_repository_that_stays_closed_is_named_with_the_reason(
    check: Any, second: dict[str, Any], words: str
) -> None:
    with pytest.raises(WhatsAgentError, match=words):
        check(second)
