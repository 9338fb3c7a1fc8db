"""Planning a real request on the embedded pair: the probe, deadlines, replay."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sphinx_nvs.errors import InputError
from sphinx_nvs.evaluation.datasets import Size, cases_named
from sphinx_nvs.plan import PAPER_PROFILE, ComputePlan
from sphinx_nvs.plan.cost_model import CostModel, Seconds
from sphinx_nvs.plan.profile_plan import ROUNDING
from sphinx_nvs.presets import load_preset
from sphinx_nvs.sampling_params import SamplingParams


class Machine(CostModel):
    """Seconds of a made-up machine: `pace` for every (cell, step), ten of them for whatever else there is."""

    def __init__(self, pace: float) -> None:
        object.__setattr__(self, "pace", pace)

    def plan_seconds(self, plan, *, num_context, opened=False, called=False):
        return self._seconds(plan.active_share * plan.num_steps)

    def probe_seconds(self, *, num_context, views, height, width, called=True):
        return self._seconds(1)

    def regression_seconds(self, *, num_context, views, height, width):
        return self._seconds(10)

    def _seconds(self, calls):
        return Seconds(median=self.pace * calls, p95=1.1 * self.pace * calls)


@pytest.fixture(scope="module")
def pipeline():
    return load_preset(num_steps=8)


@pytest.fixture(scope="module")
def request_of_two_views(pipeline):
    loaded = cases_named("procedural:test:1")[0].load(Size(short_side=64))
    return loaded.scene, loaded.targets[:2]


@pytest.fixture(scope="module")
def prepared(pipeline, request_of_two_views):
    return pipeline.prepare(*request_of_two_views)


def test_frames_are_the_same_with_and_without_the_probe(pipeline, prepared):
    planned = pipeline.plan_prepared(prepared, SamplingParams(quality=0.97))
    assert planned.prepared.probe is not None
    assert not planned.prepared.probe.called
    assert torch.equal(pipeline.run(planned).frames, pipeline.run_plan(prepared, planned.plan).frames)


def test_frames_are_the_same_with_and_without_a_first_call_that_was_made_before(pipeline, prepared):
    probed = pipeline.probed(prepared)
    plan = pipeline.plan_prepared(prepared, SamplingParams(method="diffusion")).plan
    assert probed.probe.called
    assert probed.probe.first is not None
    with_probe = pipeline.run_plan(probed, plan)
    assert probed.probe.first is None
    assert torch.equal(with_probe.frames, pipeline.run_plan(prepared, plan).frames)


def test_views_that_need_no_decoding_are_not_decoded(pipeline, prepared, monkeypatch):
    asked = []
    decode = pipeline.denoiser.decode_with_references
    monkeypatch.setattr(
        pipeline.denoiser, "decode_with_references", lambda *args: asked.append(args[2]) or decode(*args)
    )
    probed = pipeline.probed(prepared)
    first = probed.probe.first
    assert asked == [[0, 1]]
    sigmas = pipeline.denoiser.sigmas(8)[[0, -1]]
    start = torch.zeros(2, 8, 8, dtype=torch.long)
    start[0] = 1
    held = pipeline.run_plan(probed, ComputePlan(start_step=start, sigmas=sigmas, temperature=0.25))
    assert asked == [[0, 1]]
    assert torch.equal(held.frames[0], prepared.render.rgb[0])
    start = start.clone()
    start[1, :4] = 1
    probed.probe.first = first
    part = pipeline.run_plan(probed, ComputePlan(start_step=start, sigmas=sigmas, temperature=0.25))
    assert asked == [[0, 1], [1]]
    for result in (held, part):
        assert torch.equal(result.frames, pipeline.run_plan(prepared, result.plan).frames)


def test_photos_are_searched_once_for_a_first_call_with_and_without_a_probe(pipeline, prepared, monkeypatch):
    searches = []
    serving = pipeline.denoiser.serving_decoder
    find = serving.find

    def counted(guess, inputs, photos):
        # The survey's searches have a photo less to look into.
        if len(inputs.photos) == len(prepared.scene.images):
            searches.append(inputs)
        return find(guess, inputs, photos)

    monkeypatch.setattr(serving, "find", counted)
    probed = pipeline.probed(prepared)
    assert len(searches) == 2
    start = torch.zeros(2, 8, 8, dtype=torch.long)
    start[1, :4] = 2
    plan = ComputePlan(start_step=start, sigmas=pipeline.denoiser.sigmas(8)[[0, 4, 8]], temperature=0.25)
    probed_run = pipeline.run_plan(probed, plan)
    assert len(searches) == 2
    alone = pipeline.run_plan(prepared, plan)
    assert len(searches) == 4
    assert torch.equal(probed_run.frames, alone.frames)
    # Another seed's first call has another estimate, so the probe's search does not serve it.
    other = pipeline.run_plan(probed, plan, seed=1)
    assert len(searches) == 6
    assert torch.equal(other.frames, pipeline.run_plan(prepared, plan, seed=1).frames)


def test_a_probe_belongs_to_its_seed_and_to_plans_from_noise(pipeline, prepared):
    probe = pipeline.probed(prepared, seed=5).probe
    whole = pipeline.plan_prepared(prepared, SamplingParams(method="diffusion")).plan
    later = replace(whole, start_step=torch.full_like(whole.start_step, 3))
    assert probe.claim(whole, seed=4) is None
    assert probe.claim(later, seed=5) is None
    assert probe.claim(whole, seed=5) is not None
    assert probe.claim(whole, seed=5) is None


@settings(max_examples=4, deadline=None)
@given(quality=st.floats(0.5, 1.0), seed=st.integers(0, 2**31))
def test_a_plan_file_replays_bit_for_bit(quality, seed, pipeline, prepared, tmp_path_factory):
    path = tmp_path_factory.mktemp("plan") / "plan.safetensors"
    planned = pipeline.plan_prepared(prepared, SamplingParams(quality=quality, seed=seed))
    frames = pipeline.run(planned).frames
    planned.plan.save(path)
    assert torch.equal(pipeline.run_plan(prepared, ComputePlan.load(path), seed=seed).frames, frames)


def test_a_plan_states_the_requested_and_the_predicted_quality(pipeline, prepared):
    plans = [pipeline.plan_prepared(prepared, SamplingParams(quality=q)).plan for q in (0.5, 0.9, 0.98, 1.0)]
    computes = [plan.predicted.compute for plan in plans]
    assert computes == sorted(computes)
    assert computes[-1] == 1.0
    for plan, asked in zip(plans, (0.5, 0.9, 0.98, 1.0), strict=True):
        assert plan.quality == asked
        assert plan.predicted.quality >= asked - ROUNDING * (1 - asked)


@pytest.mark.parametrize("method", ["sphinx", "diffusion", "regression"])
def test_a_plan_warns_where_photos_agree_on_little(method, pipeline, prepared):
    warning = "; wide baselines: the photos agree on 10% of these views, expect soft frames"
    sure = torch.ones_like(prepared.render.confidence)
    renders = [replace(prepared.render, alpha=alpha * sure, confidence=sure) for alpha in (1.0, 0.1)]
    plain, warned = (
        pipeline.plan_prepared(replace(prepared, render=render), SamplingParams(method=method)) for render in renders
    )
    assert "expect soft frames" not in plain.plan.reason
    assert warned.plan.reason.endswith(warning)


def test_a_deadline_needs_a_clock(pipeline, request_of_two_views):
    with pytest.raises(
        InputError, match=r"^deadline_s: this machine's speed was never measured; give the pipeline a cost"
    ):
        pipeline.plan(*request_of_two_views, SamplingParams(deadline_s=3.0))


def test_later_deadlines_give_better_plans_up_to_full_diffusion(pipeline, request_of_two_views):
    timed = replace(pipeline, cost_model=Machine(pace=1.0))
    plans = [timed.plan(*request_of_two_views, SamplingParams(deadline_s=s)).plan for s in (0.5, 5.0, 1000.0)]
    assert plans[0].first_step == plans[0].num_steps
    assert plans[0].predicted is None or plans[0].predicted.compute < plans[1].predicted.compute
    assert 0 < plans[1].predicted.seconds_p95 <= 5.0
    assert plans[2].active_share == 1.0


def test_a_deadline_that_the_render_alone_misses(pipeline, request_of_two_views):
    timed = replace(pipeline, cost_model=Machine(pace=1.0))
    plan = timed.plan(*request_of_two_views, SamplingParams(deadline_s=0.01)).plan
    assert plan.first_step == plan.num_steps
    assert "the render stands" in plan.reason
    with pytest.raises(InputError, match=r"^deadline_s: it is 0\.01 s, the render alone takes 10\.00 s; allow"):
        timed.plan(*request_of_two_views, SamplingParams(deadline_s=0.01, strict=True))


def test_a_deadline_that_leaves_no_time_for_the_probe(pipeline, prepared):
    timed = replace(pipeline, cost_model=Machine(pace=1.0))
    planned = timed.plan_prepared(prepared, SamplingParams(deadline_s=0.5))
    assert planned.prepared.probe is None
    assert planned.plan.reason == "deadline: 0.50 s are left, the least refinement needs 1.10 s; the render stands"
    with pytest.raises(InputError, match=r"^deadline_s: 0\.50 s are left, the least refinement needs 1\.10 s; allow"):
        timed.plan_prepared(prepared, SamplingParams(deadline_s=0.5, strict=True))


def test_score_rules_know_deadlines_too(pipeline, prepared):
    by_rules = replace(pipeline, profile=PAPER_PROFILE, cost_model=Machine(pace=1.0))
    assert by_rules.options(prepared) is None
    rich, poor = (by_rules.plan_prepared(prepared, SamplingParams(deadline_s=s)).plan for s in (1000.0, 1e-9))
    assert rich.quality == 1.0
    assert rich.predicted.seconds_p95 <= 1000.0
    assert poor.first_step == poor.num_steps


def test_the_front_is_there_to_be_drawn(pipeline, prepared):
    front = pipeline.options(prepared).front
    assert not front[0].refines
    assert front[-1].quality == 1.0
    assert len(front) > 3
