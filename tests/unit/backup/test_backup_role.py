# SPDX-License-Identifier: GPL-3.0-or-later
"""What the role makes of an inventory: what it refuses, and what pgBackRest is told."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from ansible.parsing.dataloader import DataLoader
from ansible.plugins.loader import init_plugin_loader, lookup_loader
from ansible.template import Templar

ROLE = Path(__file__).parents[3] / "roles" / "backup"
PASSPHRASE = "a-passphrase-of-the-other-host"
SECOND = {
    "repo2-type": "sftp",
    "repo2-sftp-host": "backups.example",
    "repo2-sftp-host-user": "keeper",
    "repo2-path": "/srv/whats_agent",
    "repo2-cipher-type": "aes-256-cbc",
}
INVENTORY = {
    "backup_cipher_passphrase": "x" * 20,
    "backup_archive_password": "y" * 20,
    "backup_second_repository": SECOND,
    "backup_second_repository_secrets": {"repo2-cipher-pass": PASSPHRASE},
    "backup_second_repository_private_key": "a key",
    "backup_second_repository_known_hosts": "backups.example ssh-ed25519 AAAA",
    "ansible_managed": "managed",
}


def made_of(name: str, **inventory: Any) -> Any:
    """Return one of the role's variables as Ansible resolves it."""
    if lookup_loader.find_plugin("ansible.builtin.template") is None:
        init_plugin_loader([])
    loader = DataLoader()
    loader.set_basedir(str(ROLE))
    variables: dict[str, Any] = {}
    for folder in ("defaults", "vars"):
        variables |= loader.load_from_file(str(ROLE / folder / "main.yml"), trusted_as_template=True) or {}
    variables |= {**INVENTORY, "ansible_search_path": [str(ROLE)], **inventory}
    return Templar(loader, variables=variables).template(variables[name])


def refusals(**inventory: Any) -> list[str]:
    """Return what the role refuses of an inventory."""
    found = made_of("__backup_refusals", **inventory)
    assert isinstance(found, list)
    return [str(item) for item in found]


def second(**options: Any) -> dict[str, Any]:
    """Return the second repository's options, some of them changed; `_` stands for `-`."""
    changed = {f"repo2-{name.replace('_', '-')}": value for name, value in options.items()}
    return {"backup_second_repository": {**SECOND, **changed}}


def test_an_encrypted_second_repository_is_accepted() -> None:
    assert refusals() == []
    assert refusals(backup_second_repository={}, backup_second_repository_secrets={}) == []


@pytest.mark.parametrize(
    ("inventory", "words"),
    [
        pytest.param(second(cipher_type="none"), "repo2-cipher-type has to be aes-256-cbc", id="not encrypted"),
        pytest.param(
            {"backup_second_repository": {k: v for k, v in SECOND.items() if k != "repo2-cipher-type"}},
            "repo2-cipher-type has to be aes-256-cbc",
            id="no word of encryption",
        ),
        pytest.param(
            {"backup_second_repository_secrets": {}},
            "missing in backup_second_repository_secrets: repo2-cipher-pass",
            id="encrypted with nothing",
        ),
        pytest.param(second(cipher_pass=PASSPHRASE), "secret, .*: repo2-cipher-pass$", id="passphrase for all to read"),
        pytest.param(second(s3_key_secret="s"), "secret, .*: repo2-s3-key-secret$", id="S3's key for all to read"),
        pytest.param(second(s3_token="t"), "secret, .*: repo2-s3-token$", id="S3's token for all to read"),
        pytest.param(second(retention_full="2"), "take out repo2-retention-full$", id="another retention"),
        pytest.param(second(retention_full_type="time"), "take out repo2-retention-full-type$", id="retention by days"),
        pytest.param(
            second(retention_archive="1"), "take out repo2-retention-archive$", id="WAL that expires by itself"
        ),
    ],
)
def test_a_second_repository_that_would_tell_or_lose_something_is_refused(
    inventory: dict[str, Any], words: str
) -> None:
    (refusal,) = refusals(**inventory)
    assert re.search(words, refusal)
    assert PASSPHRASE not in refusal


def test_options_that_only_sound_secret_are_accepted() -> None:
    assert refusals(**second(sftp_private_key_file="/a", sftp_host_key_hash_type="sha256", s3_kms_key_id="k")) == []
    assert refusals(**second(retention_full="4", retention_history="30")) == []


def test_the_second_repository_keeps_as_many_backups_as_the_first() -> None:
    options = made_of("__backup_second_options", backup_keep_full=7)
    assert options["repo2-retention-full"] == 7
    assert made_of("__backup_second_options", backup_second_repository={}) == {}


def test_no_secret_is_in_the_file_that_all_may_read() -> None:
    (configuration,) = (f for f in made_of("__backup_files") if f["path"].endswith("pgbackrest.conf"))
    assert configuration["mode"] == "0444"
    assert "repo2-cipher-type=aes-256-cbc" in configuration["content"]
    assert PASSPHRASE not in configuration["content"]
