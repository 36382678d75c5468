# SPDX-License-Identifier: GPL-3.0-or-later
"""Files are whole or untouched, and the env file changes by one rename."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from ansible.module_utils.whats_agent.env_file import parse_env, read_env, replace_values, require, set_env
from ansible.module_utils.whats_agent.errors import WhatsAgentError
from ansible.module_utils.whats_agent.files import append_line, ensure_directory, read_json, write_atomic, write_json


def test_a_write_that_fails_leaves_the_old_content_and_no_rest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a"
    write_atomic(path, "old")

    def broken(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", broken)
    with pytest.raises(WhatsAgentError, match="No space left"):
        write_atomic(path, "new")
    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["a"]


def test_mode_is_set_before_the_content_is_visible(tmp_path: Path) -> None:
    path = tmp_path / "a"
    write_atomic(path, "x", mode=0o640)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_json_round_trip_and_its_errors(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    assert read_json(path) is None
    write_json(path, {"é": [1]})
    assert read_json(path) == {"é": [1]}
    path.write_text("{")
    with pytest.raises(WhatsAgentError, match=r"a\.json is not valid JSON"):
        read_json(path)


def test_a_line_cut_short_spoils_itself_and_not_its_successor(tmp_path: Path) -> None:
    path = tmp_path / "log"
    append_line(path, "one")
    with path.open("a") as stream:
        stream.write("tw")
    append_line(path, "three")
    assert path.read_text().splitlines() == ["one", "tw", "three"]
    with pytest.raises(WhatsAgentError, match="line break"):
        append_line(path, "a\nb")


def test_directories_are_made_private(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b"
    assert ensure_directory(path)
    assert not ensure_directory(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o700


ENV = "# stack\nRELEASE=abc\n\nDB_VOLUME=v1\nREDIS_URL=redis://x=y\n"


def test_an_env_file_is_read_in_order_with_values_as_they_stand() -> None:
    assert parse_env(ENV) == {"RELEASE": "abc", "DB_VOLUME": "v1", "REDIS_URL": "redis://x=y"}


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("A=1\nnonsense\n", "line 2 is not NAME=value"),
        ("A=1\nA=2\n", "sets A a second time"),
        ("1A=2\n", "line 1 is not"),
    ],
)
def test_a_broken_env_file_is_named_by_line_without_its_value(text: str, problem: str) -> None:
    with pytest.raises(WhatsAgentError, match=problem) as error:
        parse_env(text)
    assert "nonsense" not in str(error.value)


def test_what_is_missing_is_named_at_once(tmp_path: Path) -> None:
    with pytest.raises(WhatsAgentError, match="lacks B, C"):
        require({"A": "1", "B": ""}, ["A", "B", "C"])
    with pytest.raises(WhatsAgentError, match="deploy first"):
        read_env(tmp_path / ".env")


def test_values_change_in_place_and_everything_else_stays() -> None:
    assert replace_values(ENV, {"DB_VOLUME": "v2", "NEW": "n"}) == ENV.replace("v1", "v2") + "NEW=n\n"


@pytest.mark.parametrize("value", ["a\nEVIL=1", " a", "a "])
def test_values_that_would_break_the_file_are_refused(value: str) -> None:
    with pytest.raises(WhatsAgentError):
        replace_values(ENV, {"DB_VOLUME": value})


def test_setting_keeps_the_mode_and_does_nothing_when_nothing_changes(tmp_path: Path) -> None:
    path = tmp_path / ".env"
    path.write_text(ENV)
    path.chmod(0o600)
    before = path.stat().st_ino
    assert not set_env(path, {"DB_VOLUME": "v1"})
    assert path.stat().st_ino == before
    assert set_env(path, {"DB_VOLUME": "v2"})
    assert read_env(path)["DB_VOLUME"] == "v2"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
