# SPDX-License-Identifier: GPL-3.0-or-later
"""When alerts hold, and how they come and go."""

import ssl
import subprocess
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from whats_agent.alerts import backups, keeper
from whats_agent.alerts.backups import Backups
from whats_agent.alerts.certificate import not_after
from whats_agent.alerts.keeper import Keeper, next_round
from whats_agent.alerts.rules import Facts, Finding, Severity, findings

WELL = Facts(
    postgres_state="up",
    redis_state="up",
    worker_state="up",
    breaker_open=False,
    disk_free=0.5,
    requests=100,
    response_p95=0.05,
    request_error_rate=0.0,
    answers=50,
    answer_error_rate=0.01,
    queue_age=3.0,
    projection_lag_seconds=0.0,
    backups=Backups(proven_age=2.0, archive_age=5.0, told_age=0.1, lag=0.0),
    certificate_days=60.0,
    graph_version="v25.0",
    graph_version_days=400,
    unreadable_last_hour=0,
)
PLAYBOOKS = {
    "recover_system.yml",
    "recover_db.yml",
    "recover_webhook.yml",
    "recover_performance.yml",
    "recover_error_rate.yml",
    "respond_security.yml",
    "reclaim_disk.yml",
    "recover_redis.yml",
    "recover_dependencies.yml",
    "recover_app.yml",
    "backup.yml",
    "analyze_logs.yml",
}


@pytest.mark.parametrize(
    ("change", "name", "severity"),
    [
        ({"message_log_state": "down", "message_log_reason": "No space left on device"}, "message_log_down", "P0"),
        ({"postgres_state": "down"}, "postgres_down", "P0"),
        ({"worker_state": "stale"}, "worker_down", "P1"),
        ({"redis_state": "down"}, "redis_down", "P2"),
        ({"response_p95": 2.1}, "response_time", "P1"),
        ({"request_error_rate": 0.051}, "error_rate", "P1"),
        ({"answer_error_rate": 0.06}, "error_rate", "P1"),
        ({"queue_age": 301.0}, "queue_age", "P1"),
        ({"projection_lag_seconds": 61.0}, "projection_lag", "P1"),
        ({"refused": 30}, "refused_webhooks", "P1"),
        ({"sender_stopped": "190 token expired"}, "sender_stopped", "P1"),
        ({"breaker_open": True}, "openai_breaker_open", "P2"),
        ({"graph_version_days": 60}, "graph_version", "P2"),
        ({"graph_version_days": 0}, "graph_version", "P1"),
        ({"graph_version_served": "v27.0"}, "graph_version", "P1"),
        ({"account_warnings": ("phone_number_quality_update FLAGGED",)}, "account_warning", "P1"),
        ({"disk_free": 0.09}, "disk_low", "P1"),
        ({"disk_free": 0.02}, "disk_low", "P0"),
        ({"archive_failing": "000000010000000000000007"}, "archive_late", "P1"),
        ({"archive_age": 901.0}, "archive_late", "P1"),
        ({"backups": Backups(lag=901.0)}, "archive_late", "P1"),
        ({"backups": Backups(proven_age=27.0)}, "backup_late", "P1"),
        ({"backups": Backups(archive_age=27.0)}, "stack_archive_late", "P1"),
        ({"backups": Backups(told_age=2.5)}, "backup_status_late", "P2"),
        ({"backups": Backups(problems=("repository 2: it cannot be read",))}, "backup_repository", "P1"),
        ({"backups": Backups(failed=("incr: the disk is full",))}, "backup_failed", "P1"),
        ({"backups": Backups(held=("repository 1: 7 full backups instead of 4",))}, "backup_expiry", "P2"),
        ({"backups": Backups(jumps=("20261124F (full, repository 1): 31 to 90 MB",))}, "backup_size", "P2"),
        ({"certificate_days": 13.0}, "certificate", "P1"),
        ({"certificate_days": -1.0}, "certificate", "P0"),
        ({"unreadable_last_hour": 1}, "unreadable_items", "P2"),
    ],
)
def test_each_rule_speaks_alone_and_names_its_runbook(change: dict[str, Any], name: str, severity: str) -> None:
    found = findings(replace(WELL, **change))
    assert [(finding.name, finding.severity) for finding in found] == [(name, severity)]
    assert found[0].runbook in PLAYBOOKS
    assert found[0].summary
    assert found[0].resumo


@pytest.mark.parametrize(
    "facts",
    [
        pytest.param(WELL, id="all well"),
        pytest.param(Facts(), id="nothing known"),
        pytest.param(replace(WELL, requests=19, response_p95=9.0, request_error_rate=1.0), id="too few requests"),
        pytest.param(replace(WELL, answers=19, answer_error_rate=1.0), id="too few answers"),
        pytest.param(replace(WELL, graph_version_served="v25.0"), id="served as configured"),
    ],
)
def test_silence(facts: Facts) -> None:
    assert findings(facts) == []


FINDING = Finding("redis_down", Severity.P2, "recover_redis.yml", "x", "x", {"state": "down"})


def test_an_alert_is_raised_on_the_second_round_and_cleared_on_the_fourth_without() -> None:
    alerts, raised, cleared = next_round({}, [FINDING], "t1")
    assert (raised, cleared, alerts["redis_down"].active) == ([], [], False)
    alerts, raised, cleared = next_round(alerts, [FINDING], "t2")
    assert raised == ["redis_down"]
    alerts, raised, _ = next_round(alerts, [FINDING], "t3")
    assert raised == []
    assert (alerts["redis_down"].first_seen, alerts["redis_down"].last_seen) == ("t1", "t3")
    for number in range(4, 7):
        alerts, raised, cleared = next_round(alerts, [], f"t{number}")
        assert (raised, cleared, alerts["redis_down"].active) == ([], [], True)
    alerts, _, cleared = next_round(alerts, [], "t7")
    assert [alert.name for alert in cleared] == ["redis_down"]
    assert alerts == {}


def test_one_bad_look_raises_nothing_and_a_flicker_does_not_clear() -> None:
    alerts, _, _ = next_round({}, [FINDING], "t1")
    assert next_round(alerts, [], "t2")[0] == {}
    alerts, _, _ = next_round(alerts, [FINDING], "t2")
    for number in range(3, 20):
        alerts, raised, cleared = next_round(alerts, [FINDING] if number % 3 else [], f"t{number}")
        assert (raised, cleared) == ([], [])
    assert alerts["redis_down"].first_seen == "t1"


def test_history_and_file(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    facts = [replace(WELL, redis_state="down")] * 2 + [WELL] * 4
    watching = Keeper(tmp_path, lambda: facts.pop(0))
    with caplog.at_level("INFO"):
        for _ in range(2):
            watching.evaluate()
        at, alerts = keeper.read(tmp_path)
        assert at is not None
        assert [(alert.name, alert.active) for alert in alerts] == [("redis_down", True)]
        for _ in range(4):
            watching.evaluate()
    assert caplog.text.count("event=alert_raised") == caplog.text.count("event=alert_cleared") == 1
    assert "alert=redis_down severity=P2 runbook=recover_redis.yml" in caplog.text
    assert keeper.read(tmp_path)[1] == []


def test_a_damaged_file_is_no_alert(tmp_path: Path) -> None:
    (tmp_path / keeper.FILE_NAME).write_text('{"evaluated_at": 5, "alerts": [{"x": 1}]}', encoding="utf-8")
    assert keeper.read(tmp_path) == (None, [])


def test_only_one_process_evaluates(tmp_path: Path) -> None:
    first, second = Keeper(tmp_path, lambda: WELL), Keeper(tmp_path, lambda: WELL)
    assert first._holds_lock()
    assert first._holds_lock()
    assert not second._holds_lock()


@pytest.mark.parametrize("days", [30, 40_000])
def test_end_of_a_certificate(tmp_path: Path, days: int) -> None:
    """Both ways DER writes a time: two-digit years until 2049, four from 2050 on."""
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=x", "-days", str(days)]
    files = ["-keyout", str(tmp_path / "key.pem"), "-out", str(tmp_path / "cert.pem")]
    subprocess.run([*command, *files], check=True, capture_output=True)
    end = not_after(ssl.PEM_cert_to_DER_cert((tmp_path / "cert.pem").read_text(encoding="utf-8")))
    assert end is not None
    assert (end - datetime.now(UTC)).total_seconds() == pytest.approx(days * 86_400, abs=120)
    assert not_after(b"no certificate") is None


def test_a_full_disk_is_told_though_nothing_new_can_be_stored(tmp_path: Path) -> None:
    """The file is written in its place: no new file, no rename, no byte more than were allocated while all was well."""
    facts = [WELL] + [replace(WELL, message_log_state="down", message_log_reason="No space left on device")] * 2
    watching = Keeper(tmp_path, lambda: facts.pop(0))
    watching.evaluate()
    path = tmp_path / keeper.FILE_NAME
    before = path.stat()
    tmp_path.chmod(0o555)
    for _ in range(2):
        watching.evaluate()
    tmp_path.chmod(0o755)
    after = path.stat()
    assert (after.st_ino, after.st_size, after.st_blocks) == (before.st_ino, before.st_size, before.st_blocks)
    assert [alert.name for alert in keeper.read(tmp_path)[1] if alert.active] == ["message_log_down"]


def test_without_any_file_the_process_remembers_by_itself(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    gone = tmp_path / "gone"
    watching = Keeper(gone, lambda: replace(WELL, redis_state="down"))
    for _ in range(3):
        watching.evaluate()
    assert caplog.text.count("event=alert_raised alert=redis_down") == 1
    assert "event=alerts_not_stored" in caplog.text


def test_what_the_timers_tell_of_the_backups_is_read(tmp_path: Path) -> None:
    status = tmp_path / "backup.json"
    status.write_text(
        """{"at": "2026-11-24T17:00:00.123Z", "backup": "20261124-132821F", "last_proven_at": "2026-11-24T13:00:00.123Z",
        "last_backup_at": "2026-11-24T16:47:00Z", "last_archive_at": "2026-11-24T07:00:00.123Z", "archive_lag_s": 12.5,
        "repository_problems": {"2": "the repository cannot be read: timeout"}, "archive_problems": {"second": "no route"},
        "failed": {"incr": {"at": "2026-11-24T16:47:00Z", "reason": "the incr backup failed"}}, "size_jumps": [{"repo": 1,
        "backup": "20261124-132821F", "type": "full", "what": "database", "bytes": 94371840, "before": 31457280}],
        "proofs": {"1": {"proven": 0, "proof_due_since": "2026-11-23T18:00:00.123Z"},
        "2": {"proven": 3, "proof_due_since": "2026-11-24T13:00:00.123Z"}},
        "expiry_held": {"1": {"since": "2026-11-23T02:17:00Z", "fulls": 7, "keep": 4}}}"""
    )
    found = backups.read(status, datetime(2026, 11, 24, 18, 0, 0, 123000, UTC))
    assert found == Backups(
        proven_age=24.0,  # of repository 1, which no proof in the other one helps
        archive_age=11.0,
        told_age=1.0,
        lag=12.5,
        problems=("repository 2: the repository cannot be read: timeout", "second archive: no route"),
        failed=("incr: the incr backup failed",),
        jumps=("20261124-132821F (full, repository 1): 30 to 90 MB",),
        held=("repository 1: 7 full backups instead of 4, since 2026-11-23T02:17:00Z",),
    )


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "null",
        '{"at": 5, "failed": [], "size_jumps": [1], "archive_lag_s": "x"}',
        '{"proofs": {"1": 5}, "expiry_held": {"1": 5}}',
    ],
)
def test_a_status_that_nobody_can_read_tells_nothing(tmp_path: Path, text: str) -> None:
    status = tmp_path / "backup.json"
    status.write_text(text)
    assert backups.read(status, datetime.now(UTC)) == Backups()
    assert backups.read(tmp_path / "absent.json", datetime.now(UTC)) == Backups()
