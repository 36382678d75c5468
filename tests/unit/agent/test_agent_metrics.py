# SPDX-License-Identifier: GPL-3.0-or-later
"""Numbers shared between processes: right sums, true percentiles, totals that never fall."""

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from whats_agent.metrics import Recorder, layout, recorder
from whats_agent.metrics.prometheus import render
from whats_agent.metrics.reading import Snapshot


class Clock:
    """Wall time that moves when told to."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("time.time", clock)
    return clock


def test_percentiles_are_near_the_true_ones(tmp_path: Path, clock: Clock) -> None:
    numbers = Recorder(tmp_path)
    generator = random.Random(7)
    values = sorted(generator.lognormvariate(-3, 1) for _ in range(20_000))
    for value in values:
        numbers.observe(layout.REQUEST, value)
    seen = Snapshot(tmp_path).recent(layout.REQUEST, 300)
    assert seen.count == len(values)
    assert seen.mean == pytest.approx(sum(values) / len(values))
    assert seen.greatest == values[-1]
    for share in (0.5, 0.95, 0.99):
        assert seen.percentile(share) == pytest.approx(values[int(share * len(values))], rel=0.15)
    assert seen.percentile(1.0) == values[-1]


def test_nothing_seen_is_not_zero(tmp_path: Path) -> None:
    Recorder(tmp_path)
    seen = Snapshot(tmp_path).recent(layout.REQUEST, 300)
    assert (seen.count, seen.mean, seen.percentile(0.95), seen.error_rate) == (0, None, None, None)
    assert Snapshot(tmp_path / "nowhere").total(layout.REQUEST).count == 0


def test_windows_pass_and_totals_stay(tmp_path: Path, clock: Clock) -> None:
    numbers = Recorder(tmp_path)
    numbers.observe(layout.REQUEST, 5.0, error=True)
    clock.now += 120
    numbers.observe(layout.REQUEST, 0.01)
    assert Snapshot(tmp_path).recent(layout.REQUEST, 300).error_rate == 0.5
    assert Snapshot(tmp_path).recent(layout.REQUEST, 60).count == 1
    clock.now += 320
    assert Snapshot(tmp_path).recent(layout.REQUEST, 300).count == 0
    clock.now += 5 * 3600
    numbers.observe(layout.REQUEST, 0.01)
    assert Snapshot(tmp_path).recent(layout.REQUEST, 900).count == 1, "an old round of the ring must not be counted"
    assert Snapshot(tmp_path).total(layout.REQUEST).count == 3


def test_processes_count_together_and_a_dead_ones_file_is_taken_over(tmp_path: Path) -> None:
    program = (
        "import pathlib, sys; from whats_agent.metrics import Recorder\n"
        "numbers = Recorder(pathlib.Path(sys.argv[1]))\n"
        "for _ in range(1000): numbers.request('webhook', 200, 0.01)\n"
        "import os, signal; os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3] / "agent")}
    for _ in range(2):
        together = [subprocess.Popen([sys.executable, "-c", program, str(tmp_path)], env=environment) for _ in range(3)]
        for process in together:
            process.wait(60)
    assert Snapshot(tmp_path).counter("http_requests_total|webhook|2xx") == 6000
    assert Snapshot(tmp_path).total(layout.REQUEST).count == 6000
    assert len(list((tmp_path / "metrics").iterdir())) <= 3


def test_without_a_disk_counting_goes_on_in_memory(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "metrics").write_text("in the way", encoding="utf-8")
    Recorder(tmp_path).request("webhook", 200, 0.1)
    assert "event=metrics_not_shared" in caplog.text


def test_a_file_of_another_layout_is_emptied_not_misread(tmp_path: Path) -> None:
    (tmp_path / "metrics").mkdir()
    (tmp_path / "metrics" / "000").write_bytes(b"\x7f" * recorder.SIZE)
    assert Snapshot(tmp_path).counter("log_records_total") == 0
    numbers = Recorder(tmp_path)
    numbers.committed(3)
    assert Snapshot(tmp_path).counter("log_records_total") == 3
    assert Snapshot(tmp_path).counter("log_syncs_total") == 1


def test_unknown_endpoints_make_no_new_label(tmp_path: Path) -> None:
    numbers = Recorder(tmp_path)
    for name in ("../etc/passwd", "", "wp-admin"):
        numbers.request(name, 404, 0.001)
    numbers.request("webhook", 103, 0.001)
    assert Snapshot(tmp_path).counter("http_requests_total|other|4xx") == 3


def test_prometheus_can_read_the_page(tmp_path: Path) -> None:
    numbers = Recorder(tmp_path)
    numbers.request("webhook", 200, 0.012)
    numbers.request("webhook", 503, 400.0)
    page = render(Snapshot(tmp_path), {"alerts_active": ("alerts active now", 2.0)}).decode()
    samples = {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
    }
    assert samples["whats_agent_http_requests_total", (("endpoint", "webhook"), ("status", "2xx"))] == 1
    assert samples["whats_agent_request_seconds_count", ()] == 2
    assert samples["whats_agent_request_seconds_bucket", (("le", "0.02"),)] == 1
    assert samples["whats_agent_request_seconds_bucket", (("le", "+Inf"),)] == 2
    assert samples["whats_agent_alerts_active", ()] == 2
