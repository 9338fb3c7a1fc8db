"""What is measured, as Prometheus reads it: the engine's families, and the requests.

Reference: Prometheus exposition formats, text 0.0.4 and OpenMetrics 1.0, whichever the reader asks for.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from prometheus_client import CollectorRegistry, Counter
from prometheus_client import Histogram as PrometheusHistogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from sphinx_nvs.engine.metrics import Family, Histogram

BUCKETS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0)
"""Upper bounds of a request's seconds."""


class HttpMetrics:
    """Requests that were answered."""

    def __init__(self, registry: CollectorRegistry) -> None:
        labels = ("method", "route", "status")
        self._requests = Counter("sphinx_http_requests", "Requests answered.", labels, registry=registry)
        self._seconds = PrometheusHistogram(
            "sphinx_http_request_seconds",
            "From a request's first byte to its answer's last.",
            ("method", "route"),
            registry=registry,
            buckets=BUCKETS,
        )

    def observe(self, method: str, route: str, status: int, seconds: float | int) -> None:
        """Counts a request; addresses that are none count as one route, methods that nobody knows as one method."""
        known = method if method in ("GET", "POST", "DELETE", "HEAD", "OPTIONS") else "other"
        self._requests.labels(known, route or "none", str(status)).inc()
        self._seconds.labels(known, route or "none").observe(seconds)


class EngineCollector(Collector):
    """An engine's families, read when somebody looks."""

    def __init__(self, families: Sequence[Family]) -> None:
        self._families = families

    def collect(self) -> Iterator[Metric]:
        """One metric per family."""
        return map(_metric, self._families)


def expose(registry: CollectorRegistry, accept: str) -> tuple[bytes, str]:
    """All metrics, and their media type."""
    encode, media_type = choose_encoder(accept)
    return encode(registry), media_type


def _metric(family: Family) -> Metric:
    """A family with all its values."""
    names = next(([name for name, _ in labels] for labels in family.values), [])
    if family.kind == "histogram":
        histogram = HistogramMetricFamily(family.name, family.about, labels=names)
        for labels, value in family.values.items():
            if isinstance(value, Histogram):
                histogram.add_metric([v for _, v in labels], _buckets(value), value.total)
        return histogram
    kind = CounterMetricFamily if family.kind == "counter" else GaugeMetricFamily
    metric = kind(family.name.removesuffix("_total"), family.about, labels=names)
    for labels, value in family.values.items():
        if not isinstance(value, Histogram):
            metric.add_metric([v for _, v in labels], value)
    return metric


def _buckets(histogram: Histogram) -> list[tuple[str, float]]:
    """Cumulative counts by upper bound, as text."""
    return [("+Inf" if math.isinf(bound) else str(bound), float(count)) for bound, count in histogram.cumulative]
