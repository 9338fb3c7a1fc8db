"""Metrics for Prometheus: the engine's, and HTTP requests.

Reference: Prometheus exposition formats, text 0.0.4 and OpenMetrics 1.0, whichever `Accept` asks for.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol, runtime_checkable

from prometheus_client import CollectorRegistry, Counter, Histogram, Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

BUCKETS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0)
"""Upper bounds of a request's duration, seconds."""

METHODS = ("GET", "POST", "DELETE", "HEAD", "OPTIONS")
"""Methods with labels of their own; all others share one."""


class HttpMetrics:
    """Counts answered requests."""

    def __init__(self, registry: CollectorRegistry) -> None:
        labels = ("method", "route", "status")
        self._requests = Counter("sphinx_http_requests", "Requests answered.", labels, registry=registry)
        self._seconds = Histogram(
            "sphinx_http_request_seconds",
            "Time from a request's first byte to its response's last.",
            ("method", "route"),
            registry=registry,
            buckets=BUCKETS,
        )

    def observe(self, method: str, route: str, status: int, seconds: float | int) -> None:
        """Counts a request; unknown addresses share one label, and so do unknown methods."""
        known = method if method in METHODS else "other"
        self._requests.labels(known, route or "none", str(status)).inc()
        self._seconds.labels(known, route or "none").observe(seconds)


@runtime_checkable
class CrowdedTable(Protocol):
    """What is counted of connections; see `connections.ConnectionTable`."""

    dropped: int
    refused: int

    def __len__(self) -> int: ...


class ConnectionMetrics(Collector):
    """Exports how crowded a server is, read at every scrape."""

    def __init__(self, table: CrowdedTable) -> None:
        self._table = table

    def collect(self) -> Iterator[Metric]:
        """Yields the metrics."""
        yield GaugeMetricFamily("sphinx_http_connections", "Connections that are open.", value=len(self._table))
        dropped = "Connections closed because they waited for their client, in favour of others or for too long."
        yield CounterMetricFamily("sphinx_http_connections_dropped", dropped, value=self._table.dropped)
        refused = "Connections refused because all others were at work."
        yield CounterMetricFamily("sphinx_http_connections_refused", refused, value=self._table.refused)


class EngineCollector(Collector):
    """An engine's metrics, read at every scrape, as part of another registry."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry

    def collect(self) -> Iterable[Metric]:
        """Yields one metric per family."""
        return self._registry.collect()


def expose(registry: CollectorRegistry, accept: str) -> tuple[bytes, str]:
    """Returns all metrics, and their media type."""
    encode, media_type = choose_encoder(accept)
    return encode(registry), media_type
