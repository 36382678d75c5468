# SPDX-License-Identifier: GPL-3.0-or-later
"""restic's commands, and what is made of its captured output (0.14)."""

from __future__ import annotations

from pathlib import Path

import pytest
from ansible.module_utils.whats_agent import restic
from ansible.module_utils.whats_agent.errors import WhatsAgentError

STORE = restic.Store(
    "sftp:backup@host:/archive", Path("/secrets/password"), ("sftp.command=ssh host",), {"AWS_SECRET_ACCESS_KEY": "k"}
)
WHERE = ["--repo=sftp:backup@host:/archive", "--password-file=/secrets/password", "--no-cache"]
SNAPSHOTS = """[
 {"time":"2026-11-24T19:01:14.9+02:00","tree":"68","paths":["/x"],"hostname":"vm","tags":["state","release=b"],"id":"bb12"},
 {"time":"2026-11-24T17:01:14.779201878Z","tree":"68","paths":["/x"],"hostname":"vm","tags":["state","proven"],"id":"e8b1"}]"""
SUMMARY = (
    '{"message_type":"status","percent_done":0.5}\n'
    '{"message_type":"summary","files_new":5,"total_bytes_processed":753,"snapshot_id":"e8b12f11"}\n'
)
MISSING = (
    "Fatal: unable to open config file: stat /x/config: no such file or directory\n"
    "Is there a repository at the following location?\n/x\n"
)
REFUSED = (
    "subprocess ssh: ssh: connect to host 127.0.0.1 port 2: Connection refused\n"
    "Fatal: unable to open repository at sftp:nouser@127.0.0.1:/x: unable to start the sftp session, error: EOF\n"
)


def test_commands_name_the_password_by_its_file_and_no_key_at_all() -> None:
    argv = STORE.backup_here(["state", "release=a"])
    assert argv == [
        *("restic", "backup", *WHERE, "--option=sftp.command=ssh host"),
        *("--json", "--host=whats_agent", "--tag=state", "--tag=release=a", "."),
    ]
    other = restic.Store("/local", Path("/secrets/password"))
    copied = STORE.copy_from(other)
    assert "--from-repo=/local" in copied
    assert "--from-password-file=/secrets/password" in copied
    for command in (argv, copied, STORE.init(), STORE.forget("state"), STORE.check()):
        assert "k" not in command


def test_retention_counts_all_snapshots_of_a_kind_together_whatever_else_they_are_tagged() -> None:
    assert "--group-by=host" in STORE.forget("state")
    assert "--tag=state" in STORE.forget("state")


def test_snapshots_are_sorted_by_their_moment_not_by_their_text() -> None:
    found = restic.parse_snapshots(SNAPSHOTS)
    assert [(s.id, s.proven) for s in found] == [("e8b1", True), ("bb12", False)]
    assert restic.parse_snapshots("[]") == restic.parse_snapshots("null") == []


@pytest.mark.parametrize("text", ["", "{}x", '[{"id": 1}]'])
def test_a_list_of_another_shape_is_an_error(text: str) -> None:
    with pytest.raises(WhatsAgentError, match="another shape"):
        restic.parse_snapshots(text)


def test_the_snapshot_that_was_taken_is_read_from_the_summary() -> None:
    assert restic.parse_backup(SUMMARY) == "e8b12f11"
    with pytest.raises(WhatsAgentError, match="nothing of a snapshot"):
        restic.parse_backup('{"message_type":"status"}\nFatal\n')


@pytest.mark.parametrize(
    ("stderr", "why"),
    [
        pytest.param(MISSING, restic.MISSING, id="no repository"),
        pytest.param(
            "Fatal: wrong password or no key found\n", "the password does not open the archive", id="password"
        ),
        pytest.param(REFUSED, "ssh: connect to host 127.0.0.1 port 2: Connection refused", id="unreachable"),
        pytest.param("", "no message", id="silent"),
    ],
)
def test_why_restic_failed_is_said_in_a_line(stderr: str, why: str) -> None:
    assert restic.reason(stderr) == why
