# SPDX-License-Identifier: GPL-3.0-or-later
"""Copies are encrypted, open with the right passphrase only, and survive a damaged newest one."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from ansible.module_utils.whats_agent.config_copies import KEPT, Copy, CopyStore, next_stamp, seal, unseal
from ansible.module_utils.whats_agent.config_files import ConfigFile
from ansible.module_utils.whats_agent.errors import WhatsAgentError

from tests.unit.conftest import FakeClock

PASSPHRASE = "a-passphrase-of-the-backups"
FILES = {
    ".env": ConfigFile(".env", b"META_APP_SECRET=very-secret-value\n", (0o600, 0, 0), 17),
    "certs/privkey.pem": ConfigFile("certs/privkey.pem", b"\xff\x00", (0o400, 64013, 64000), None),
}


def test_a_copy_comes_back_byte_by_byte_and_shows_nothing() -> None:
    sealed = seal(Copy("20261124T164500Z", FILES), PASSPHRASE)
    assert b"very-secret-value" not in sealed
    assert b"META_APP_SECRET" not in sealed
    assert unseal(sealed, PASSPHRASE, "copy") == Copy("20261124T164500Z", FILES)


def test_another_passphrase_or_a_changed_byte_is_refused() -> None:
    sealed = seal(Copy("20261124T164500Z", FILES), PASSPHRASE)
    with pytest.raises(WhatsAgentError, match="copy does not open: it is damaged, or kept with another passphrase"):
        unseal(sealed, "another", "copy")
    moved = json.dumps({**json.loads(sealed), "at": "20301124T164500Z"}).encode()
    with pytest.raises(WhatsAgentError, match="does not open"):
        unseal(moved, PASSPHRASE, "copy")
    with pytest.raises(WhatsAgentError, match="copy is damaged"):
        unseal(sealed[: len(sealed) // 2], PASSPHRASE, "copy")
    with pytest.raises(WhatsAgentError, match="of version 2"):
        unseal(json.dumps({**json.loads(sealed), "version": 2}).encode(), PASSPHRASE, "copy")


def test_the_same_is_not_kept_twice_and_old_ones_go(tmp_path: Path, fake_clock: FakeClock) -> None:
    store = CopyStore(tmp_path / "copies", PASSPHRASE, fake_clock.clock)
    assert store.keep(FILES, write=False)
    assert not (tmp_path / "copies").exists()
    assert store.keep(FILES, write=True)
    assert not store.keep(FILES, write=True)
    for number in range(KEPT + 2):
        fake_clock.advance(1)
        assert store.keep({".env": ConfigFile(".env", b"%d" % number, (0o600, 0, 0))}, write=True)
    assert len(store.paths()) == KEPT
    assert {path.stat().st_mode & 0o777 for path in store.paths()} == {0o600}
    newest, problems = store.newest()
    assert newest is not None
    assert newest.files[".env"].content == b"%d" % (KEPT + 1)
    assert problems == []


def test_a_damaged_newest_copy_is_named_and_the_one_before_serves(tmp_path: Path, fake_clock: FakeClock) -> None:
    store = CopyStore(tmp_path, PASSPHRASE, fake_clock.clock)
    store.keep(FILES, write=True)
    (tmp_path / "29991231T000000Z.sealed").write_bytes(b"{}")
    newest, problems = store.newest()
    assert newest is not None
    assert newest.files == FILES
    assert problems == [f"{tmp_path}/29991231T000000Z.sealed is damaged: no copy of a configuration"]


def test_without_a_passphrase_copies_are_neither_read_nor_written(tmp_path: Path, fake_clock: FakeClock) -> None:
    CopyStore(tmp_path, PASSPHRASE, fake_clock.clock).keep(FILES, write=True)
    store = CopyStore(tmp_path, None)
    newest, problems = store.newest()
    assert newest is None
    assert "cannot be opened: the inventory has no backup_cipher_passphrase" in problems[0]
    with pytest.raises(WhatsAgentError, match="backup_cipher_passphrase"):
        store.keep(FILES, write=True)


def test_what_was_verified_last_is_the_newest_also_after_the_clock_was_set_back(
    tmp_path: Path, fake_clock: FakeClock
) -> None:
    CopyStore(tmp_path, PASSPHRASE, fake_clock.clock).keep(FILES, write=True)
    changed = {**FILES, ".env": ConfigFile(".env", b"LOG_LEVEL=INFO\n", (0o600, 0, 0), 18)}
    fake_clock.wall_seconds -= 86_400
    store = CopyStore(tmp_path, PASSPHRASE, fake_clock.clock)
    assert store.keep(changed, write=True)
    newest, _problems = store.newest()
    assert newest is not None
    assert newest.files == changed
    assert not store.keep(changed, write=True)


@pytest.mark.parametrize(
    ("taken", "stamp"),
    [
        ([], "20261124T164500Z"),
        (["20261123T000000Z"], "20261124T164500Z"),
        (["20261124T164500Z"], "20261124T164501Z"),
        (["20261123T000000Z", "20261231T235959Z"], "20270101T000000Z"),
        (["by hand"], "20261124T164500Z"),
    ],
)
def test_each_copy_comes_after_all_others(taken: list[str], stamp: str) -> None:
    assert next_stamp("20261124T164500Z", taken) == stamp


def test_a_server_without_cryptography_is_told_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cryptography.exceptions", None)
    with pytest.raises(WhatsAgentError, match="python3-cryptography is missing"):
        unseal(b"{}", PASSPHRASE, "copy")
