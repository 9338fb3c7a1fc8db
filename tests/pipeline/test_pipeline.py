"""The specification of a request's eight stages, on the embedded pair and a small scene with held-out targets.

Each class is a stage of `pipeline.pipeline`, in order; the last one is the whole request.
"""

from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from sphinx_nvs.diffusion.solvers import Multistep, sample
from sphinx_nvs.errors import InputError
from sphinx_nvs.evaluation.datasets import Size, cases_named
from sphinx_nvs.pipeline.encoding import encoded
from sphinx_nvs.plan import ComputePlan
from sphinx_nvs.presets import load_preset
from sphinx_nvs.sampling_params import SamplingParams

STEPS, SIDE, FACTOR = 6, 64, 8
CELLS = SIDE // FACTOR


@pytest.fixture(scope="module")
def pipeline():
    return load_preset(num_steps=STEPS)


@pytest.fixture(scope="module")
def loaded():
    return cases_named("procedural:test:1")[0].load(Size(short_side=SIDE))


@pytest.fixture(scope="module")
def scene(loaded):
    return loaded.scene


@pytest.fixture(scope="module")
def targets(loaded):
    return loaded.targets[:2]


@pytest.fixture(scope="module")
def prepared(pipeline, scene, targets):
    """Stages 1 to 3."""
    return pipeline.prepare(scene, targets)


def plan_of(pipeline, start_step, dense_steps=tuple(range(STEPS))):
    """A plan on the denoiser's own grid, of one start step for all cells or one for each."""
    cells = torch.full((2, CELLS, CELLS), start_step) if isinstance(start_step, int) else start_step
    return ComputePlan(start_step=cells, sigmas=pipeline.denoiser.sigmas(STEPS), dense_steps=dense_steps)


class Test1Reconstruct:
    def test_a_reconstruction_serves_any_targets(self, pipeline, scene, targets, prepared):
        reconstruction = pipeline.regressor.reconstruct(scene)
        again = pipeline.prepare(scene, targets, reconstruction=reconstruction)
        assert torch.equal(again.render.rgb, prepared.render.rgb)
        assert "reconstruct" not in again.stages_s
        assert "reconstruct" in prepared.stages_s

    def test_too_few_context_views_are_an_error(self, pipeline, scene, targets):
        needs = pipeline.regressor.min_context_views
        one = replace(scene, images=scene.images[: needs - 1], cameras=scene.cameras[: needs - 1])
        with pytest.raises(InputError, match=f"1 context view where planesweep needs {needs}"):
            pipeline.prepare(one, targets)


class Test2Render:
    def test_every_target_has_colours_coverage_depth_and_confidence(self, prepared):
        render = prepared.render
        assert render.rgb.shape == (2, 3, SIDE, SIDE)
        for values in (render.rgb, render.alpha, render.confidence, render.disagreement):
            assert 0 <= float(values.amin()) <= float(values.amax()) <= 1
        assert float(render.depth.amin()) > 0

    def test_a_target_does_not_depend_on_the_others(self, pipeline, scene, targets, prepared):
        alone = pipeline.prepare(scene, targets[1:])
        assert torch.allclose(alone.render.rgb[0], prepared.render.rgb[1], atol=1e-5)

    def test_sizes_are_multiples_of_the_denoiser_s(self, pipeline, scene, targets):
        odd = replace(targets, height=SIDE + 1)
        with pytest.raises(InputError, match=f"size: 64x65 is no multiple of {pipeline.denoiser.size_multiple}"):
            pipeline.prepare(scene, odd)


class Test3Assess:
    def test_uncertainty_per_pixel_quality_per_view_descriptor_per_scene(self, prepared):
        assessment = prepared.assessment
        assert assessment.uncertainty.shape == (2, SIDE, SIDE)
        assert 0 <= float(assessment.uncertainty.amin()) < float(assessment.uncertainty.amax()) <= 1
        assert ((assessment.quality >= 0) & (assessment.quality <= 1)).all()
        assert float(assessment.descriptor.norm()) == pytest.approx(1.0)

    def test_holes_are_more_uncertain_than_surfaces(self, prepared):
        holes, uncertainty = prepared.render.alpha < 0.5, prepared.assessment.uncertainty
        assert holes.any()
        assert float(uncertainty[holes].mean()) > float(uncertainty[~holes].mean())


class Test4Plan:
    def test_full_diffusion_and_the_render_alone_are_plans_too(self, pipeline, prepared):
        full = pipeline.plan_prepared(prepared, SamplingParams(method="diffusion")).plan
        none = pipeline.plan_prepared(prepared, SamplingParams(method="regression")).plan
        assert (full.start_step == 0).all()
        assert (full.quality, full.dense_steps) == (1.0, tuple(range(STEPS)))
        assert (none.start_step == STEPS).all()
        assert (none.quality, none.first_step) == (0.0, STEPS)

    def test_planning_passes_the_probe_on_and_leaves_its_input_alone(self, pipeline, prepared):
        planned = pipeline.plan_prepared(prepared, SamplingParams(quality=0.97, seed=4))
        assert prepared.probe is None
        assert planned.prepared.probe.seed == planned.params.seed == 4
        assert planned.prepared.render is prepared.render

    def test_the_default_is_the_default_quality(self, pipeline, prepared):
        assert pipeline.plan_prepared(prepared).plan.quality == SamplingParams().quality

    def test_unknown_planners_are_refused_at_construction(self, pipeline):
        with pytest.raises(InputError, match="planner: 'theirs' is unknown; choose ours or research"):
            replace(pipeline, planner="theirs")

    def test_the_planner_is_built_once(self, pipeline, prepared, monkeypatch):
        def again(*args):
            raise AssertionError("built again")

        monkeypatch.setattr("sphinx_nvs.pipeline.pipeline.planners_for", again)
        pipeline.plan_prepared(prepared, SamplingParams(method="regression"))


class Test5Encode:
    def test_latents_are_a_cell_for_every_8x8_pixels(self, pipeline, prepared):
        z_render, _ = encoded(pipeline.denoiser, prepared)
        assert z_render.shape == (2, pipeline.denoiser.latent_channels, CELLS, CELLS)

    def test_the_probe_s_latents_and_conditioning_are_used_again(self, pipeline, prepared):
        probed = pipeline.probed(prepared)
        z_render, conditioning = encoded(pipeline.denoiser, probed)
        assert z_render is probed.probe.z_render
        assert conditioning is probed.probe.conditioning


class Test6Refine:
    def test_dense_steps_from_noise_are_plain_sampling(self, pipeline, prepared):
        denoiser, plan = pipeline.denoiser, plan_of(pipeline, 0)
        running = pipeline.begin(prepared, plan, seed=3)
        while running.steps_left:
            running.step()
        z_render, conditioning = encoded(denoiser, prepared)
        start = z_render + plan.sigmas[0] * running.refinement.eps
        plain = sample(lambda x, sigma: denoiser.denoise(x, sigma, conditioning), start, plan.sigmas, Multistep())
        assert torch.allclose(running.refinement.latents, plain, atol=1e-3)

    def test_sparse_steps_with_all_cells_active_are_dense_but_for_the_context_views_features(self, pipeline, prepared):
        dense = pipeline.run_plan(prepared, plan_of(pipeline, 0))
        sparse = pipeline.run_plan(prepared, plan_of(pipeline, 0, dense_steps=(0,)))
        assert [step.dense for step in sparse.steps] == [True] + [False] * (STEPS - 1)
        assert all(step.dense for step in dense.steps)
        # Context views are never active: their features stay those of the first, dense step.
        assert 0 < float((sparse.frames - dense.frames).abs().mean()) < 1e-3

    def test_steps_can_be_pulled_one_at_a_time_between_another_request_s(self, pipeline, prepared):
        plan = plan_of(pipeline, 2)
        whole = [pipeline.run_plan(prepared, plan, seed=seed).frames for seed in (1, 2)]
        running = [pipeline.begin(prepared, plan, seed=seed) for seed in (1, 2)]
        while running[0].steps_left:
            for each in running:
                each.step()
        for each, frames in zip(running, whole, strict=True):
            assert torch.equal(pipeline.finish(each).frames, frames)

    def test_the_seed_decides_the_frames(self, pipeline, prepared):
        plan = plan_of(pipeline, 1)
        one, same, other = (pipeline.run_plan(prepared, plan, seed=seed).frames for seed in (1, 1, 2))
        assert torch.equal(one, same)
        assert not torch.equal(one, other)

    def test_a_plan_for_other_sizes_is_an_error(self, pipeline, prepared):
        wrong = plan_of(pipeline, torch.zeros(3, CELLS, CELLS, dtype=torch.long))
        with pytest.raises(InputError, match="plan: it is for"):
            pipeline.run_plan(prepared, wrong)


class Test7Decode:
    def test_start_step_s_keeps_the_render_and_calls_no_network(self, pipeline, prepared):
        result = pipeline.run_plan(prepared, plan_of(pipeline, STEPS))
        assert torch.equal(result.frames, prepared.render.rgb)
        assert result.steps == []
        assert "decode" not in result.stages_s

    def test_a_view_without_refined_cells_keeps_the_render(self, pipeline, prepared):
        start = torch.full((2, CELLS, CELLS), STEPS)
        start[0] = 1
        frames = pipeline.run_plan(prepared, plan_of(pipeline, start)).frames
        assert torch.equal(frames[1], prepared.render.rgb[1])
        assert not torch.equal(frames[0], prepared.render.rgb[0])


class Test8Blend:
    def test_held_regions_keep_the_render_s_pixels(self, pipeline, prepared):
        start = torch.full((2, CELLS, CELLS), STEPS)
        start[:, :2, :2] = 1
        frames = pipeline.run_plan(prepared, plan_of(pipeline, start)).frames
        # Two cells beyond the refined ones, the ramp has ended.
        assert torch.equal(frames[..., 4 * FACTOR :], prepared.render.rgb[..., 4 * FACTOR :])
        assert torch.equal(frames[..., 4 * FACTOR :, :], prepared.render.rgb[..., 4 * FACTOR :, :])
        assert not torch.equal(frames[..., :FACTOR, :FACTOR], prepared.render.rgb[..., :FACTOR, :FACTOR])

    def test_neighbouring_frames_agree_last(self, pipeline, prepared, monkeypatch):
        plan, calls = plan_of(pipeline, 2), []
        make_consistent = pipeline.denoiser.make_consistent

        def watched(frames, conditioning, views):
            calls.append(list(views))
            return make_consistent(frames, conditioning, views)

        monkeypatch.setattr(pipeline.denoiser, "make_consistent", watched)
        frames = pipeline.run_plan(prepared, plan).frames
        assert calls == [[0, 1]]
        keep = lambda frames, conditioning, views: frames[list(views)]  # noqa: E731
        monkeypatch.setattr(pipeline.denoiser, "make_consistent", keep)
        assert not torch.equal(pipeline.run_plan(prepared, plan).frames, frames)


class TestTheWholeRequest:
    def test_a_call_is_plan_and_run(self, pipeline, scene, targets):
        params = SamplingParams(quality=0.97, seed=3)
        called = pipeline(scene, targets, quality=0.97, seed=3)
        planned = pipeline.run(pipeline.plan(scene, targets, params))
        assert torch.equal(called.frames, planned.frames)
        assert called.seed == planned.seed == 3

    def test_stages_are_reported_in_order_and_timed(self, pipeline, scene, targets):
        reports = []
        params = SamplingParams(method="diffusion")
        planned = pipeline.plan(scene, targets, params, progress=lambda *each: reports.append(each))
        result = pipeline.run(planned, progress=lambda *each: reports.append(each))
        order = ["reconstruct", "render", "assess", "encode", "refine", "decode"]
        assert list(dict.fromkeys(stage for stage, _, _ in reports)) == order
        assert list(result.stages_s) == [*order[:3], "plan", *order[3:]]
        assert [done for stage, done, _ in reports if stage == "refine"] == list(range(STEPS + 1))

    def test_probe_and_planning_have_their_own_seconds(self, pipeline, prepared):
        planned = pipeline.plan_prepared(prepared, SamplingParams(quality=0.95))
        assert list(planned.prepared.stages_s) == ["reconstruct", "render", "assess", "encode", "probe", "plan"]
        assert all(seconds > 0 for seconds in planned.prepared.stages_s.values())
        # What the probe encoded is not encoded again, and its seconds stay.
        result = pipeline.run(planned)
        assert result.stages_s["encode"] >= planned.prepared.stages_s["encode"]
        assert result.stages_s["probe"] == planned.prepared.stages_s["probe"]

    def test_a_result_says_what_was_computed(self, pipeline, scene, targets):
        full = pipeline(scene, targets, method="diffusion")
        assert (full.active_share, full.computed_share, full.full_steps) == (1.0, 1.0, STEPS)
        assert pipeline(scene, targets, method="regression").computed_share == 0.0

    def test_a_saved_plan_is_the_request_s_record(self, pipeline, prepared, tmp_path):
        planned = pipeline.plan_prepared(prepared, SamplingParams(quality=0.9))
        planned.plan.save(tmp_path / "plan.safetensors")
        assert torch.equal(load_file(tmp_path / "plan.safetensors")["start_step"].long(), planned.plan.start_step)
        assert ComputePlan.load(tmp_path / "plan.safetensors").reason == planned.plan.reason
