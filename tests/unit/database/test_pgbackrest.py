# SPDX-License-Identifier: GPL-3.0-or-later
"""What is read from pgBackRest, on its own captured output, and what is made of it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from ansible.module_utils.whats_agent import pgbackrest as pb
from ansible.module_utils.whats_agent.errors import WhatsAgentError

DATA = Path(__file__).parent / "data"


def repository(name: str) -> pb.Repository:
    """Read a captured `info --output=json` as the runner decodes it."""
    return pb.parse_info((DATA / f"info_{name}.json").read_bytes().decode("utf-8", "replace"))


def backup(label: str, stop: int, **changes: object) -> pb.Backup:
    """Make a backup that is like the captured ones."""
    base = repository("ok").backups[0]
    kind = "full" if label.endswith("F") else "incr"
    return replace(base, label=label, stop=stop, type=kind, annotations={}, **changes)  # type: ignore[arg-type]


def of(*backups: pb.Backup) -> pb.Repository:
    """Make a repository that holds these."""
    return replace(repository("ok"), backups=backups)


def test_info_is_read_with_proof_sizes_and_wal() -> None:
    found = repository("ok")
    assert found.problem is None
    full, incremental = found.backups
    assert (full.type, full.proven, full.error, full.size) == ("full", False, False, 31294926)
    assert (incremental.full, incremental.proven) == (full.label, True)
    assert incremental.wal_start == "000000010000000000000004"
    assert found.wal_max == "000000010000000000000005"
    assert not found.off_host


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("wrong_passphrase", "cannot be opened with this passphrase"),
        ("empty_repository", "is empty"),
        ("no_backup", "holds no backup"),
    ],
)
def test_info_exits_0_and_yet_nothing_can_be_restored(name: str, words: str) -> None:
    found = repository(name)
    assert words in (found.problem or "")
    assert found.problem is not None
    assert found.problem.isprintable()
    assert found.problem_pt not in (None, found.problem)
    with pytest.raises(WhatsAgentError, match=words):
        pb.choose_backup(found)


def test_info_of_another_shape_is_an_error() -> None:
    with pytest.raises(WhatsAgentError, match="not JSON"):
        pb.parse_info("ERROR: [055]")


def test_the_newest_proven_backup_goes_before_newer_unproven_ones() -> None:
    old, proven, new = backup("1F", 100), backup("2F", 200), backup("3F", 300)
    proven = replace(proven, annotations={"proven": "x"})
    assert [b.label for b in pb.candidates(of(old, proven, new))] == ["2F", "3F", "1F"]


def test_damaged_and_disproven_backups_are_never_chosen() -> None:
    bad = backup("1F", 100, error=True)
    failed = replace(backup("2F", 200), annotations={"proven": "x", "disproven": "y"})
    assert pb.candidates(of(bad, failed)) == []
    with pytest.raises(WhatsAgentError, match="1F, 2F hold damaged pages or failed their proof"):
        pb.choose_backup(of(bad, failed))


def test_a_point_in_time_needs_an_older_backup_and_names_the_earliest() -> None:
    found = of(backup("1F", 100), backup("2F", 200))
    assert pb.choose_backup(found, before=150).label == "1F"
    with pytest.raises(WhatsAgentError, match="earliest reachable is 1970-01-01T00:01:41Z"):
        pb.choose_backup(found, before=50)


def test_expiry_waits_for_a_proven_backup_among_those_that_stay() -> None:
    proven = replace(backup("1F", 100), annotations={"proven": "x"})
    newer = [backup("2F", 200), backup("3F", 300)]
    assert not pb.safe_to_expire(of(proven, *newer), 1, keep_full=2)
    incremental = replace(backup("3F_4I", 400), annotations={"proven": "x"})
    assert pb.safe_to_expire(of(proven, *newer, incremental), 1, keep_full=2)


def test_progress_is_read_from_detail_lines() -> None:
    line = "P01 DETAIL: restore file /var/lib/postgresql/data/base/1/2619 (bundle 1/40960, 160KB, 12.34%) checksum ab"
    assert pb.parse_progress(line) == ("160KB", 12.34)
    assert pb.parse_progress("P00   INFO: restore command begin") is None


def test_restore_is_always_of_a_named_backup_and_never_promotes_by_itself() -> None:
    argv = pb.restore_argv("20260101-000000F", 2, delta=True)
    assert argv == [
        "pgbackrest",
        "--stanza=main",
        "--repo=2",
        "--set=20260101-000000F",
        "--log-level-console=detail",
        "--type=standby",
        "--delta",
        "restore",
    ]
    timed = pb.restore_argv("20260101-000000F", 1, delta=False, target_time="2026-01-01 00:00:00+00:00")
    assert timed[5:] == [
        "--type=standby",
        "--recovery-option=recovery_target_time=2026-01-01 00:00:00+00:00",
        "--recovery-option=recovery_target_action=pause",
        "restore",
    ]


@pytest.mark.parametrize(
    ("lsn", "value"), [("0/0", 0), ("0/3000158", 0x3000158), ("1/0", 1 << 32), ("A/FF", (10 << 32) + 255)]
)
def test_lsns_go_both_ways(lsn: str, value: int) -> None:
    assert pb.lsn_value(lsn) == value
    assert pb.lsn_text(value) == lsn


def test_a_wrong_lsn_is_an_error() -> None:
    with pytest.raises(WhatsAgentError, match="is no LSN"):
        pb.lsn_value("nonsense")


def test_segments_know_where_they_begin() -> None:
    assert pb.segment_start("000000020000000100000003") == (1 << 32) + 3 * pb.WAL_SEGMENT_BYTES
    assert pb.segment_name(2, (1 << 32) + 3 * pb.WAL_SEGMENT_BYTES + 17) == "000000020000000100000003"


def test_the_archive_listing_yields_segments_and_nothing_else() -> None:
    listing = {
        ".": {"type": "path"},
        "17-1/0000000100000000/000000010000000000000001-6ebd4905cfa118a07222837c243a42746bc320ce.zst": {},
        "17-1/0000000100000000/000000010000000000000003.00000028.backup": {},
        "17-1/00000002.history": {},
        "17-1/0000000100000000/000000010000000000000004.partial-aa4905cfa118a07222837c243a42746bc320ce.zst": {},
    }
    assert pb.archived_segments(json.dumps(listing)) == ["000000010000000000000001"]


def test_holes_are_found_on_each_timeline() -> None:
    names = [f"00000001000000000000000{n}" for n in (1, 2, 4)] + [f"00000002000000000000000{n}" for n in (5, 7)]
    assert pb.missing_segments(names, "000000010000000000000001") == [
        "000000010000000000000003",
        "000000020000000000000006",
    ]
    assert pb.missing_segments(names, "000000010000000000000004", timelines=[1]) == []


def test_expiry_is_judged_in_each_repository_by_itself() -> None:
    first = [replace(backup(f"{n}F", n * 100), annotations={"proven": "x"}) for n in (1, 2, 3)]
    second = [replace(backup(f"{n}F", n * 100), repo=2) for n in (1, 2, 3)]
    both = of(*first, *second)
    assert pb.safe_to_expire(both, 1, keep_full=2)
    assert not pb.safe_to_expire(both, 2, keep_full=2)
    assert pb.expirable(both, 2, keep_full=2)
    assert not pb.expirable(both, 2, keep_full=3)


def test_expiry_keeps_as_many_as_it_was_judged_by_whatever_the_configuration_says() -> None:
    """Of F0 to F4 with F1 proven, keeping four leaves the proof; a configured `repo2-retention-full=2` would remove it."""
    fulls = [replace(backup(f"{n}F", n * 100), repo=2) for n in range(1, 6)]
    fulls[1] = replace(fulls[1], annotations={"proven": "x"})
    assert pb.safe_to_expire(of(*fulls), 2, keep_full=4)
    assert pb.expire_argv(2, 4) == [
        "pgbackrest",
        "--stanza=main",
        "--repo=2",
        "--repo2-retention-full=4",
        "--repo2-retention-full-type=count",
        "expire",
    ]


def test_the_configuration_tells_the_repositories() -> None:
    text = "[global]\nrepo1-path=/a\n# repo3-path=/c\nrepo2-path=/b\nrepo2-type=sftp\n"
    assert pb.repositories(text) == [1, 2]
    assert pb.repositories("[global]\n") == [1]
