# SPDX-License-Identifier: GPL-3.0-or-later
"""The shared numbers in Prometheus' text format."""

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.exposition import generate_latest

from whats_agent.metrics.layout import BOUNDS, COUNTERS, FAMILIES, HELP, LABELS
from whats_agent.metrics.reading import Snapshot

PREFIX = "whats_agent_"


class _Collector:
    def __init__(self, snapshot: Snapshot, gauges: dict[str, tuple[str, float]]) -> None:
        self._snapshot = snapshot
        self._gauges = gauges

    def collect(self) -> Iterator[Metric]:
        families = {
            name: CounterMetricFamily(PREFIX + name.removesuffix("_total"), HELP[name], labels=LABELS[name])
            for name in LABELS
        }
        for counter in COUNTERS:
            name, *values = counter.split("|")
            families[name].add_metric(values, self._snapshot.counter(counter))
        yield from families.values()
        for family in FAMILIES:
            total = self._snapshot.total(family.name)
            histogram = HistogramMetricFamily(f"{PREFIX}{family.name}_seconds", family.help)
            seen = 0.0
            buckets: list[tuple[str, float]] = []
            for bound, amount in zip((*(f"{bound:g}" for bound in BOUNDS), "+Inf"), total.buckets, strict=True):
                seen += amount
                buckets.append((bound, seen))
            histogram.add_metric([], buckets, total.sum)
            yield histogram
        for name, (text, value) in self._gauges.items():
            yield GaugeMetricFamily(PREFIX + name, text, value=value)


def render(snapshot: Snapshot, gauges: dict[str, tuple[str, float]]) -> bytes:
    """The whole page. ``gauges``: name without prefix -> (help, value)."""
    registry = CollectorRegistry()
    registry.register(_Collector(snapshot, gauges))
    return generate_latest(registry)
