"""Counters, gauges and histograms of the engine, as plain values that a server can export.

A family is a name, its unit and what it means, with one value per set of labels:

    counter     only grows          gauge     as it is now          histogram     n_b = |{x : x <= bound_b}|

Prometheus' conventions hold: counters end in `_total`, names contain the unit, a histogram's counts are cumulative.
"""

from __future__ import annotations

import bisect
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from sphinx_nvs.engine.types.jobs import JobRow, JobState

Kind = Literal["counter", "gauge", "histogram"]
Labels = tuple[tuple[str, str], ...]
"""Names and values, in the order in which they are given."""

SECONDS = (0.1, 0.25, 0.5, 1.0, 2.0, 3.0, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0)
"""Upper bounds of latencies."""

SHARES = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 1.0)
"""Upper bounds for values in 0..1."""

RATIOS = (0.25, 0.5, 0.7, 0.8, 0.9, 1.0, 1.1, 1.25, 1.5, 2.0, 4.0)
"""Upper bounds of measured over predicted."""


@dataclass(kw_only=True)
class Histogram:
    """Counts of the values below each bound.

    Args:
        bounds: ascending; values above the last one are counted, too.
        counts: values in each interval, one more than bounds; not cumulative.
        total: sum of the values.
    """

    bounds: tuple[float, ...]
    counts: list[int] = field(default_factory=list)
    total: float = 0.0

    def __post_init__(self) -> None:
        self.counts = self.counts or [0] * (len(self.bounds) + 1)

    def observe(self, value: float | int) -> None:
        """Counts a value."""
        self.counts[bisect.bisect_left(self.bounds, value)] += 1
        self.total += value

    @property
    def count(self) -> int:
        """Number of values."""
        return sum(self.counts)

    @property
    def mean(self) -> float:
        """Mean of the values; 0 if there are none."""
        return self.total / self.count if self.count else 0.0

    @property
    def cumulative(self) -> tuple[tuple[float, int], ...]:
        """Each bound with how many values are not above it; the last bound is infinity."""
        sums, running = [], 0
        for bound, count in zip((*self.bounds, float("inf")), self.counts, strict=True):
            running += count
            sums.append((bound, running))
        return tuple(sums)


@dataclass(kw_only=True)
class Family:
    """One thing that is counted or measured.

    Args:
        name: exported name.
        kind: `counter`, `gauge` or `histogram`.
        about: one sentence.
        bounds: bucket bounds of histograms.
        values: by labels.
    """

    name: str
    kind: Kind
    about: str
    bounds: tuple[float, ...] = ()
    values: dict[Labels, float | Histogram] = field(default_factory=dict)

    def add(self, amount: float | int = 1, /, **labels: str) -> None:
        """Adds to a counter."""
        key = tuple(labels.items())
        before = self.values.get(key, 0.0)
        assert not isinstance(before, Histogram)
        self.values[key] = before + amount

    def set(self, value: float | int, /, **labels: str) -> None:
        """Sets a gauge."""
        self.values[tuple(labels.items())] = float(value)

    def observe(self, value: float | int, /, **labels: str) -> None:
        """Counts a value in a histogram."""
        histogram = self.values.setdefault(tuple(labels.items()), Histogram(bounds=self.bounds))
        assert isinstance(histogram, Histogram)
        histogram.observe(value)

    def get(self, **labels: str) -> float:
        """A counter's or gauge's value, 0 before it has one."""
        value = self.values.get(tuple(labels.items()), 0.0)
        assert not isinstance(value, Histogram)
        return value

    def histogram(self, **labels: str) -> Histogram:
        """A histogram, empty before it has values."""
        value = self.values.get(tuple(labels.items()), Histogram(bounds=self.bounds))
        assert isinstance(value, Histogram)
        return value


def _counter(name: str, about: str) -> Family:
    return Family(name=f"sphinx_{name}_total", kind="counter", about=about)


def _gauge(name: str, about: str) -> Family:
    return Family(name=f"sphinx_{name}", kind="gauge", about=about)


def _histogram(name: str, about: str, bounds: tuple[float, ...]) -> Family:
    return Family(name=f"sphinx_{name}", kind="histogram", about=about, bounds=bounds)


class Metrics:
    """All families of an engine; `families` is what to export."""

    def __init__(self) -> None:
        self.accepted = _counter("jobs_accepted", "Jobs accepted.")
        self.rejected = _counter("jobs_rejected", "Requests not accepted, by why.")
        self.ended = _counter("jobs_ended", "Jobs that reached a final state, by state and level.")
        self.degraded = _counter("jobs_degraded", "Times that a job's quality was lowered under load.")
        self.deadlines = _counter("deadlines", "Jobs that had a deadline, by whether it was met.")
        self.attainment = _gauge("slo_attainment", "Share of jobs with a deadline that met it; 1 before there are any.")
        self.attainment.set(1.0)
        self.attempts = _counter("unit_attempts", "Units started, by kind.")
        self.failures = _counter("unit_failures", "Attempts that failed, by kind of unit.")
        self.poison = _counter("units_poison", "Units given up after their last attempt, by kind.")
        self.crashes = _counter("device_crashes", "Times that a device was lost, by device.")
        self.busy = _counter("device_busy_seconds", "Seconds that devices were at work, by device.")
        self.steps = _counter("steps", "Solver steps taken.")
        self.queued = _gauge("jobs_queued", "Jobs that nothing was done for yet.")
        self.running = _gauge("jobs_running", "Jobs that have started and not ended.")
        self.listeners = _gauge("event_listeners", "Streams of events that are open.")
        self.devices_ready = _gauge("devices_ready", "Devices whose models are loaded.")
        self.preview_s = _histogram("time_to_preview_seconds", "From acceptance to the preview.", SECONDS)
        self.completion_s = _histogram("completion_seconds", "From acceptance to the last frame.", SECONDS)
        self.quality = _histogram("delivered_quality", "Predicted quality of completed jobs.", SHARES)
        self.predictor = _histogram("predictor_ratio", "Measured over predicted device seconds of a unit.", RATIOS)
        self.quote_ratio = _histogram("quote_ratio", "Measured over quoted latency of completed jobs.", RATIOS)
        self.active_share = _histogram("active_token_share", "Share of full diffusion that a unit computes.", SHARES)

    @property
    def families(self) -> Sequence[Family]:
        """Every family, by name."""
        return sorted((f for f in vars(self).values() if isinstance(f, Family)), key=lambda family: family.name)

    @property
    def slo_attainment(self) -> float:
        """Share of the jobs with a deadline that met it; 1 if none had one."""
        met, missed = self.deadlines.get(met="yes"), self.deadlines.get(met="no")
        return met / (met + missed) if met + missed else 1.0

    def job_ended(self, job: JobRow) -> None:
        """Counts a job that has just reached a final state."""
        self.ended.add(state=job.state.value, level=job.level)
        assert job.finished_s is not None
        latency_s = job.finished_s - job.created_s
        if job.spec.deadline_s is not None and job.state in (JobState.COMPLETED, JobState.FAILED):
            met = job.level == "final" and latency_s <= job.spec.deadline_s
            self.deadlines.add(met="yes" if met else "no")
            self.attainment.set(self.slo_attainment)
        if job.state is not JobState.COMPLETED:
            return
        self.completion_s.observe(latency_s)
        if job.quality is not None:
            self.quality.observe(job.quality)
        if job.quote is not None and job.quote.latency_s > 0:
            self.quote_ratio.observe(latency_s / job.quote.latency_s)
