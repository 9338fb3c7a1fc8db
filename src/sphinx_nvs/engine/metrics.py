"""Counters, gauges and histograms of one engine, in a registry of its own that a server exports.

Prometheus' conventions hold: exported counters end in `_total`, and names contain the unit.
"""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from sphinx_nvs.engine.types.jobs import JobRow, JobState

SECONDS = (0.1, 0.25, 0.5, 1.0, 2.0, 3.0, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0)
"""Upper bounds of latencies."""

SHARES = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 1.0)
"""Upper bounds for values in 0..1."""

RATIOS = (0.25, 0.5, 0.7, 0.8, 0.9, 1.0, 1.1, 1.25, 1.5, 2.0, 4.0)
"""Upper bounds of measured over predicted."""


class Metrics:
    """What an engine counts and measures; `registry` is what to export."""

    def __init__(self) -> None:
        # Not the global one: several engines may live in one process, as in tests.
        self.registry = CollectorRegistry()
        self.accepted = self._counter("jobs_accepted", "Jobs accepted.")
        self.rejected = self._counter("jobs_rejected", "Requests not accepted, by why.", "why")
        self.ended = self._counter(
            "jobs_ended", "Jobs that reached a final state, by state and level.", "state", "level"
        )
        self.degraded = self._counter("jobs_degraded", "Times that a job's quality was lowered under load.")
        self.deadlines = self._counter("deadlines", "Jobs that had a deadline, by whether it was met.", "met")
        self.attainment = self._gauge(
            "slo_attainment", "Share of jobs with a deadline that met it; 1 before there are any."
        )
        self.attainment.set(1.0)
        self.attempts = self._counter("unit_attempts", "Units started, by kind.", "kind")
        self.failures = self._counter("unit_failures", "Attempts that failed, by kind of unit.", "kind")
        self.poison = self._counter("units_poison", "Units given up after their last attempt, by kind.", "kind")
        self.crashes = self._counter("device_crashes", "Times that a device was lost, by device.", "device")
        self.busy = self._counter("device_busy_seconds", "Seconds that devices were at work, by device.", "device")
        self.steps = self._counter("steps", "Solver steps taken.")
        self.queued = self._gauge("jobs_queued", "Jobs that nothing was done for yet.")
        self.running = self._gauge("jobs_running", "Jobs that have started and not ended.")
        self.listeners = self._gauge("event_listeners", "Streams of events that are open.")
        self.live_sessions = self._gauge("live_sessions", "Live sessions that are open.")
        self.live_frames = self._counter("live_frames", "Frames of live sessions, by level.", "level")
        self.live_busy = self._counter("live_busy_seconds", "Seconds that devices drew frames of live sessions.")
        self.devices_ready = self._gauge("devices_ready", "Devices whose models are loaded.")
        self.preview_s = self._histogram("time_to_preview_seconds", "From acceptance to the preview.", SECONDS)
        self.completion_s = self._histogram("completion_seconds", "From acceptance to the last frame.", SECONDS)
        self.quality = self._histogram("delivered_quality", "Predicted quality of completed jobs.", SHARES)
        self.predictor = self._histogram("predictor_ratio", "Measured over predicted device seconds of a unit.", RATIOS)
        self.quote_ratio = self._histogram("quote_ratio", "Measured over quoted latency of completed jobs.", RATIOS)
        self.active_share = self._histogram(
            "active_token_share", "Share of full diffusion that a unit computes.", SHARES
        )

    def _counter(self, name: str, about: str, *labels: str) -> Counter:
        return Counter(f"sphinx_{name}", about, labels, registry=self.registry)

    def _gauge(self, name: str, about: str) -> Gauge:
        return Gauge(f"sphinx_{name}", about, registry=self.registry)

    def _histogram(self, name: str, about: str, bounds: tuple[float, ...]) -> Histogram:
        return Histogram(f"sphinx_{name}", about, buckets=bounds, registry=self.registry)

    def value(self, name: str, **labels: str) -> float:
        """A sample by its exported name without `sphinx_`; 0 before it has one."""
        return self.registry.get_sample_value(f"sphinx_{name}", labels) or 0.0

    @property
    def slo_attainment(self) -> float:
        """Share of the jobs with a deadline that met it; 1 if none had one."""
        met, missed = self.value("deadlines_total", met="yes"), self.value("deadlines_total", met="no")
        return met / (met + missed) if met + missed else 1.0

    def job_ended(self, job: JobRow) -> None:
        """Counts a job that has just reached a final state."""
        self.ended.labels(state=job.state.value, level=job.level).inc()
        assert job.finished_s is not None
        latency_s = job.finished_s - job.created_s
        if job.spec.deadline_s is not None and job.state in (JobState.COMPLETED, JobState.FAILED):
            met = job.level == "final" and latency_s <= job.spec.deadline_s
            self.deadlines.labels(met="yes" if met else "no").inc()
            self.attainment.set(self.slo_attainment)
        if job.state is not JobState.COMPLETED:
            return
        self.completion_s.observe(latency_s)
        if job.quality is not None:
            self.quality.observe(job.quality)
        if job.quote is not None and job.quote.latency_s > 0:
            self.quote_ratio.observe(latency_s / job.quote.latency_s)
