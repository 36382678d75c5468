# SPDX-License-Identifier: GPL-3.0-or-later
"""What the role makes of an inventory: what it refuses, what pgBackRest is told, and what the timers call."""

from __future__ import annotations

import configparser
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.whats_agent import backup_timer
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


S3: dict[str, Any] = {
    "backup_second_repository": {
        "repo2-type": "s3",
        "repo2-s3-endpoint": "s3.example",
        "repo2-s3-bucket": "kept",
        "repo2-s3-region": "sa-east-1",
        "repo2-path": "/whats_agent",
        "repo2-cipher-type": "aes-256-cbc",
        "repo2-bundle": True,
    },
    "backup_second_repository_secrets": {
        "repo2-cipher-pass": PASSPHRASE,
        "repo2-s3-key": "AKIAEXAMPLE",
        "repo2-s3-key-secret": "an-s3-secret",
    },
    "backup_second_repository_private_key": "",
    "backup_second_repository_known_hosts": "",
}


def test_by_s3_both_go_to_one_bucket_and_the_keys_are_in_no_option() -> None:
    assert refusals(**S3) == []
    (configuration,) = (f["content"] for f in made_of("__backup_files", **S3))
    assert "repo2-bundle=y\n" in configuration
    assert "an-s3-secret" not in configuration
    archive = made_of("__backup_second", **S3)
    assert archive["repository"] == "s3:https://s3.example:443/kept/whats_agent-archive"
    assert archive["environment"] == {
        "AWS_ACCESS_KEY_ID": "AKIAEXAMPLE",
        "AWS_SECRET_ACCESS_KEY": "an-s3-secret",
        "AWS_DEFAULT_REGION": "sa-east-1",
    }


def test_a_ca_of_ones_own_is_given_to_both() -> None:
    own = {**S3, "backup_second_repository_ca": "-----BEGIN CERTIFICATE-----\nMII\n-----END CERTIFICATE-----\n"}
    assert refusals(**own) == []
    files = {Path(f["path"]).name: f["content"] for f in made_of("__backup_files", **own)}
    assert files["ca.crt"] == own["backup_second_repository_ca"]
    assert "repo2-storage-ca-file=/etc/pgbackrest/ca.crt\n" in files["pgbackrest.conf"]
    archive = made_of("__backup_second", **own)
    assert archive["environment"]["SSL_CERT_FILE"] == "/opt/whats_agent/config/pgbackrest/ca.crt"
    assert not any(path.endswith("ca.crt") for path in made_of("__backup_absent", **own))
    assert any(path.endswith("ca.crt") for path in made_of("__backup_absent", **S3))


@pytest.mark.parametrize(
    ("left_out", "words"),
    [
        ("repo2-s3-region", "repo2-type=s3 needs repo2-s3-region$"),
        ("repo2-s3-key", "repo2-type=s3 needs repo2-s3-key$"),
    ],
)
def test_what_s3_needs_is_asked_for(left_out: str, words: str) -> None:
    given = {
        name: {k: v for k, v in value.items() if k != left_out} if isinstance(value, dict) else value
        for name, value in S3.items()
    }
    (refusal,) = refusals(**given)
    assert re.search(words, refusal)


def test_by_the_machine_s_own_role_no_keys_are_asked_for_and_none_are_given() -> None:
    options = {**S3["backup_second_repository"], "repo2-s3-key-type": "auto"}
    given = {
        **S3,
        "backup_second_repository": options,
        "backup_second_repository_secrets": {"repo2-cipher-pass": PASSPHRASE},
    }
    assert refusals(**given) == []
    assert list(made_of("__backup_second", **given)["environment"]) == ["AWS_DEFAULT_REGION"]


def test_a_host_whose_certificate_nobody_would_look_at_is_refused() -> None:
    for value in ("n", False):
        given = {
            **S3,
            "backup_second_repository": {**S3["backup_second_repository"], "repo2-storage-verify-tls": value},
        }
        (refusal,) = refusals(**given)
        assert "repo2-storage-verify-tls has to be y" in refusal
    (refusal,) = refusals(backup_second_repository_ca="a certificate")
    assert "over HTTPS, and this one is of type sftp" in refusal


def test_the_second_repository_keeps_as_many_backups_as_the_first() -> None:
    options = made_of("__backup_second_options", backup_keep_full=7)
    assert options["repo2-retention-full"] == 7
    assert made_of("__backup_second_options", backup_second_repository={}) == {}


# pgBackRest 2.55.1, asked for a repository whose host refuses connections: with io-timeout=10 it gave up after 10 s over SFTP and
# after 90.9 s over S3, with 2 after 18.9 s. archive-push asks twice, and is given a minute.
TRIES_OVER_HTTP = 9.5


@pytest.mark.parametrize("kind", ["s3", "sftp", "posix"])
def test_a_repository_that_is_away_is_given_up_in_time_for_the_other_one(kind: str) -> None:
    given = {**S3, "backup_second_repository": {**S3["backup_second_repository"], "repo2-type": kind}}
    (made,) = (f for f in made_of("__backup_files", **given) if f["path"].endswith("pgbackrest.conf"))
    configuration = configparser.ConfigParser(interpolation=None)
    configuration.read_string(made["content"])
    over_http = kind == "s3"
    seconds = int(configuration["global"]["io-timeout"])
    assert 2 * seconds * (TRIES_OVER_HTTP if over_http else 1) < 60
    # A backup and a restore ask no other repository than their own, and may have to wait for that one.
    own = {section: int(configuration[section]["io-timeout"]) for section in configuration.sections()[1:-1]}
    assert own == ({"global:backup": 10, "global:restore": 10} if over_http else {})
    assert configuration.sections()[-1] == "main"


def test_no_secret_is_in_the_file_that_all_may_read() -> None:
    (configuration,) = (f for f in made_of("__backup_files") if f["path"].endswith("pgbackrest.conf"))
    assert configuration["mode"] == "0444"
    assert "repo2-cipher-type=aes-256-cbc" in configuration["content"]
    assert PASSPHRASE not in configuration["content"]


SCHEDULE = made_of("backup_schedule")
KINDS = [entry["type"] for entry in SCHEDULE]


def parsed(argv: list[str]) -> Any:
    """Return what the timer's program makes of a command line; one that it does not take ends the test."""
    start = argv.index("whats_agent_ops.backup_timer") + 1
    return backup_timer.parse_arguments(argv[start:])


def holds(arguments: Any, kind: str) -> None:
    """See that each argument has arrived where it belongs."""
    assert arguments.kind == kind
    assert arguments.keep_full == 7
    assert str(arguments.stack_dir) == "/srv/stack"
    assert str(arguments.state_dir) == "/var/lib/whats_agent"
    assert arguments.archive == "/var/backups/whats_agent/restic"


def test_each_line_of_the_crontab_is_one_that_the_timer_takes() -> None:
    (written,) = made_of("__backup_cron_files", backup_keep_full=7, backup_stack_dir="/srv/stack")
    # cron reads no line without an end, and a name with a dot not at all.
    assert written["content"].endswith("\n")
    assert re.fullmatch(r"[A-Za-z0-9_-]+", Path(written["path"]).name)
    lines = [line for line in written["content"].splitlines() if line and not line.startswith("#")]
    settings = dict(line.split("=", 1) for line in lines if re.match(r"[A-Z]+=", line))
    assert settings["PYTHONPATH"] == "/usr/local/lib/whats_agent"
    entries = [line for line in lines if not re.match(r"[A-Z]+=", line)]
    assert len(entries) == len(KINDS)
    for line, entry in zip(entries, SCHEDULE, strict=True):
        *times, user, command = line.split(maxsplit=6)
        assert " ".join(times) == entry["cron"]
        assert user == "root"
        assert "%" not in command  # cron would take it for a line's end
        assert command.startswith("python3 -m whats_agent_ops.backup_timer ")
        holds(parsed(shlex.split(command)), entry["type"])


CRON_FIELDS = ((0, 59), (0, 23), (1, 31), (1, 12), (0, 7))


@pytest.mark.parametrize("entry", SCHEDULE, ids=KINDS)
def test_each_entry_of_the_schedule_is_a_time_that_cron_knows(entry: dict[str, str]) -> None:
    fields = entry["cron"].split()
    for field, (least, most) in zip(fields, CRON_FIELDS, strict=True):
        match = re.fullmatch(r"(?:\*|(\d+)(?:-(\d+))?)(?:/(\d+))?", field)
        assert match is not None, field
        assert all(least <= int(number) <= most for number in match.groups()[:2] if number is not None)
    minute = re.fullmatch(r"(?:.*:)?(?P<minute>\d\d)(?:/(?P<every>\d+))?:\d\d", entry["calendar"].split()[-1])
    assert minute is not None
    # Both servers, with systemd and without, are to do the work at the same minute.
    wanted = f"*/{int(minute['every'])}" if minute["every"] else str(int(minute["minute"]))
    assert fields[0] == wanted


def test_each_unit_calls_what_the_timer_takes() -> None:
    written = made_of("__backup_systemd_units", backup_keep_full=7, backup_stack_dir="/srv/stack")
    units = {Path(file["path"]).name: _unit(file["content"]) for file in written}
    assert len(units) == len(written) == 2 * len(KINDS)
    for entry in SCHEDULE:
        name = f"whats_agent_backup_{entry['type']}"
        service, timer = units[f"{name}.service"], units[f"{name}.timer"]
        assert timer["Timer"]["OnCalendar"] == entry["calendar"]
        assert timer["Timer"]["Persistent"] == "true"
        assert timer["Install"]["WantedBy"] == "timers.target"
        assert service["Service"]["Type"] == "oneshot"
        assert service["Service"]["Environment"] == "PYTHONPATH=/usr/local/lib/whats_agent"
        argv = shlex.split(service["Service"]["ExecStart"])
        assert argv[:2] == ["/usr/bin/python3", "-m"]
        holds(parsed(argv), entry["type"])


def _unit(content: str) -> dict[str, dict[str, str]]:
    """Read a unit's sections; systemd tells large letters from small ones, so configparser would be too kind."""
    sections: dict[str, dict[str, str]] = {}
    section: dict[str, str] = {}
    for line in content.splitlines():
        if line.startswith("["):
            section = sections.setdefault(line.strip("[]"), {})
        elif line and not line.startswith("#"):
            name, _, value = line.partition("=")
            section[name] = value
    return sections


def test_whatever_may_be_scheduled_the_timer_takes() -> None:
    loader = DataLoader()
    specs = loader.load_from_file(str(ROLE / "meta" / "argument_specs.yml"))["argument_specs"]["main"]["options"]
    choices = specs["backup_schedule"]["options"]["type"]["choices"]
    assert choices == KINDS
    for kind in choices:
        assert backup_timer.parse_arguments([kind]).kind == kind
    with pytest.raises(SystemExit):
        backup_timer.parse_arguments(["weekly"])
