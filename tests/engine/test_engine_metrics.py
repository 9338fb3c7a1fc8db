"""Counts and histograms are those of what happened."""

from dataclasses import replace

import pytest

from sphinx_nvs.engine.metrics import Metrics
from sphinx_nvs.engine.types.jobs import JobRow, JobSpec, JobState, Quote

SPEC = JobSpec(scene="s", c2w=(), K=(), width=64, height=64, deadline_s=10.0)
QUOTE = Quote(latency_s=4.0, latency_p95_s=6.0, wait_s=0.0, quality=0.9, active_share=0.3, reason="")
DONE = JobRow(
    id="j",
    key_id="k",
    spec=SPEC,
    state=JobState.COMPLETED,
    level="final",
    created_s=100.0,
    finished_s=108.0,
    quality=0.9,
    quote=QUOTE,
)


def test_labels_keep_values_apart():
    metrics = Metrics()
    metrics.busy.labels(device="0").inc(2.0)
    metrics.busy.labels(device="1").inc(1.5)
    metrics.busy.labels(device="0").inc(1.0)
    assert (
        metrics.value("device_busy_seconds_total", device="0"),
        metrics.value("device_busy_seconds_total", device="1"),
    ) == (3.0, 1.5)
    assert metrics.value("device_busy_seconds_total", device="2") == 0.0


def test_a_completed_job_is_measured_against_deadline_and_quote():
    metrics = Metrics()
    metrics.job_ended(DONE)
    assert metrics.slo_attainment == 1.0
    assert (metrics.value("quote_ratio_sum"), metrics.value("quote_ratio_count")) == (2.0, 1)
    assert [metrics.value("completion_seconds_bucket", le=bound) for bound in ("5.0", "10.0")] == [0, 1]
    assert metrics.value("delivered_quality_sum") == pytest.approx(0.9)
    assert metrics.value("jobs_ended_total", state="completed", level="final") == 1


@pytest.mark.parametrize(
    "changes",
    [{"finished_s": 110.5}, {"level": "preview"}, {"state": JobState.FAILED, "level": "none"}],
)
def test_late_unrefined_and_failed_jobs_miss_their_deadline(changes):
    metrics = Metrics()
    metrics.job_ended(replace(DONE, **changes))
    assert (metrics.value("deadlines_total", met="yes"), metrics.value("deadlines_total", met="no")) == (0, 1)
    assert metrics.slo_attainment == 0.0


@pytest.mark.parametrize("changes", [{"state": JobState.CANCELLED}, {"spec": replace(SPEC, deadline_s=None)}])
def test_cancelled_jobs_and_those_without_a_deadline_count_for_no_attainment(changes):
    metrics = Metrics()
    metrics.job_ended(replace(DONE, **changes))
    assert metrics.registry.get_sample_value("sphinx_deadlines_total", {"met": "no"}) is None
    assert metrics.slo_attainment == 1.0


def test_attainment_is_exported_as_it_is_now():
    metrics = Metrics()
    assert metrics.registry.get_sample_value("sphinx_slo_attainment") == 1.0, "it is there before the first deadline"
    metrics.job_ended(DONE)
    metrics.job_ended(replace(DONE, finished_s=111.0))
    assert metrics.value("slo_attainment") == metrics.slo_attainment == 0.5
