"""Counts and histograms are those of what happened."""

from dataclasses import replace

import pytest

from sphinx_nvs.engine.metrics import SECONDS, Histogram, Metrics
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


def test_a_histogram_counts_values_at_and_below_each_bound():
    histogram = Histogram(bounds=(1.0, 2.0))
    for value in (0.5, 1.0, 1.5, 7.0):
        histogram.observe(value)
    assert histogram.cumulative == ((1.0, 2), (2.0, 3), (float("inf"), 4))
    assert (histogram.count, histogram.total, histogram.mean) == (4, 10.0, 2.5)


def test_an_empty_histogram_has_the_mean_zero():
    assert Histogram(bounds=(1.0,)).mean == 0.0


def test_families_have_unique_names_and_counters_end_in_total():
    families = Metrics().families
    assert len({family.name for family in families}) == len(families) > 15
    assert all(family.name.endswith("_total") == (family.kind == "counter") for family in families)
    assert all(bool(family.bounds) == (family.kind == "histogram") for family in families)


def test_labels_keep_values_apart():
    metrics = Metrics()
    metrics.busy.add(2.0, device="0")
    metrics.busy.add(1.5, device="1")
    metrics.busy.add(1.0, device="0")
    assert (metrics.busy.get(device="0"), metrics.busy.get(device="1")) == (3.0, 1.5)
    assert metrics.busy.get(device="2") == 0.0


def test_a_completed_job_is_measured_against_deadline_and_quote():
    metrics = Metrics()
    metrics.job_ended(DONE)
    assert metrics.slo_attainment == 1.0
    assert metrics.quote_ratio.histogram().mean == 2.0
    assert metrics.completion_s.histogram().cumulative[SECONDS.index(10.0)] == (10.0, 1)
    assert metrics.quality.histogram().mean == pytest.approx(0.9)
    assert metrics.ended.get(state="completed", level="final") == 1


@pytest.mark.parametrize(
    "changes",
    [{"finished_s": 110.5}, {"level": "preview"}, {"state": JobState.FAILED, "level": "none"}],
)
def test_late_unrefined_and_failed_jobs_miss_their_deadline(changes):
    metrics = Metrics()
    metrics.job_ended(replace(DONE, **changes))
    assert (metrics.deadlines.get(met="yes"), metrics.deadlines.get(met="no")) == (0, 1)
    assert metrics.slo_attainment == 0.0


@pytest.mark.parametrize("changes", [{"state": JobState.CANCELLED}, {"spec": replace(SPEC, deadline_s=None)}])
def test_cancelled_jobs_and_those_without_a_deadline_count_for_no_attainment(changes):
    metrics = Metrics()
    metrics.job_ended(replace(DONE, **changes))
    assert metrics.deadlines.values == {}
    assert metrics.slo_attainment == 1.0


def test_attainment_is_exported_as_it_is_now():
    metrics = Metrics()
    (family,) = [family for family in metrics.families if family.name == "sphinx_slo_attainment"]
    assert (family.kind, family.get()) == ("gauge", 1.0)
    assert family.values, "it is there before the first deadline"
    metrics.job_ended(DONE)
    metrics.job_ended(replace(DONE, finished_s=111.0))
    assert family.get() == metrics.slo_attainment == 0.5
