"""Plans without network calls, and the ways to decode, on the embedded pair."""

from dataclasses import replace

import pytest
import torch

from sphinx_nvs.assess.change import structural_change
from sphinx_nvs.errors import InputError
from sphinx_nvs.evaluation.datasets import Size, cases_named
from sphinx_nvs.plan import ComputePlan, Levers, economised
from sphinx_nvs.plan.profile import REDRAW
from sphinx_nvs.presets import load_preset
from sphinx_nvs.sampling_params import SamplingParams


@pytest.fixture(scope="module")
def pipeline():
    return load_preset(num_steps=8)


@pytest.fixture(scope="module")
def prepared(pipeline):
    loaded = cases_named("procedural:test:1")[0].load(Size(short_side=64))
    return pipeline.prepare(loaded.scene, loaded.targets[:3])


@pytest.fixture(scope="module")
def whole(pipeline, prepared):
    return pipeline.plan_prepared(prepared, SamplingParams(method="diffusion")).plan


@pytest.fixture(scope="module")
def frames(pipeline, prepared, whole):
    """Frames of every decoding without a call."""
    plans = {name: economised(whole, Levers(network=False, decoding=name)) for name in ("survey", "search")}
    return {name: pipeline.run_plan(prepared, plan).frames for name, plan in plans.items()}


def test_a_plan_without_network_calls_none(pipeline, prepared, whole, monkeypatch):
    def refuse(self, calls):
        raise AssertionError("the network was called")

    monkeypatch.setattr(type(pipeline.denoiser), "denoise_calls", refuse)
    plan = economised(whole, Levers(network=False, decoding="survey"))
    result = pipeline.run_plan(prepared, plan)
    assert result.steps == []
    assert not torch.equal(result.frames, prepared.render.rgb)
    with pytest.raises(AssertionError, match="the network was called"):
        pipeline.run_plan(prepared, whole)


def test_each_decoding_makes_frames_of_its_own(frames):
    assert not torch.equal(frames["survey"], frames["search"])


def test_without_calls_search_decodes_the_render_s_own_latents(pipeline, prepared, whole, frames):
    running = pipeline.begin(prepared, economised(whole, Levers(network=False)))
    made = pipeline.denoiser.decode_with_references(running.z_render, running.conditioning, [0, 1, 2])
    agreed = pipeline.denoiser.make_consistent(made, running.conditioning, [0, 1, 2])
    assert torch.equal(frames["search"], agreed)


@pytest.mark.parametrize("decoding", ["survey", "search"])
def test_held_views_and_cells_keep_the_render_bit_for_bit(pipeline, prepared, whole, decoding):
    start_step = torch.full_like(whole.start_step, whole.num_steps)
    start_step[1, 2:4, 2:4] = 0
    plan = economised(replace(whole, start_step=start_step), Levers(network=False, decoding=decoding))
    frames, render = pipeline.run_plan(prepared, plan).frames, prepared.render.rgb
    assert torch.equal(frames[0], render[0])
    assert torch.equal(frames[2], render[2])
    # The ramp around refined cells is a cell and a half wide.
    far = torch.ones(render.shape[-2:], dtype=torch.bool)
    far[: 6 * 8, : 6 * 8] = False
    assert torch.equal(frames[1][:, far], render[1][:, far])
    assert not torch.equal(frames[1], render[1])


def test_the_redraw_probe_is_reused_and_changes_nothing(pipeline, prepared, whole, frames):
    probed = pipeline.probed(prepared, signal=REDRAW)
    assert probed.probe.first is None
    assert not probed.probe.called
    assert torch.equal(probed.probe.change, structural_change(probed.probe.picture, prepared.render.rgb))
    for decoding, expected in frames.items():
        plan = economised(whole, Levers(network=False, decoding=decoding))
        assert torch.equal(pipeline.run_plan(probed, plan).frames, expected)


def test_a_profile_that_redraws_needs_a_denoiser_that_can(pipeline, prepared, monkeypatch):
    class LatentsAlone:
        """No denoiser is one that decodes beside the photos."""

    monkeypatch.setattr("sphinx_nvs.pipeline.encoding.ReferenceDecoding", LatentsAlone)
    with pytest.raises(InputError, match="its signal is redraw, and nano decodes latents alone"):
        pipeline.probed(prepared, signal=REDRAW)


def test_a_survey_does_not_spoil_a_later_search(pipeline, prepared, whole, frames):
    probed = pipeline.probed(prepared, signal=REDRAW)
    for decoding in ("survey", "search", "survey"):
        plan = economised(whole, Levers(network=False, decoding=decoding))
        assert torch.equal(pipeline.run_plan(probed, plan).frames, frames[decoding])


def test_a_plan_s_decoding_survives_its_file(whole, tmp_path):
    plan = economised(whole, Levers(network=False, decoding="survey"))
    plan.save(tmp_path / "plan.safetensors")
    loaded = ComputePlan.load(tmp_path / "plan.safetensors")
    assert (loaded.network, loaded.decoding) == (False, "survey")
    assert loaded.to_json()["decoding"] == "survey"


def test_an_unknown_decoding_is_one_sentence(whole):
    for make in (lambda: Levers(decoding="guess"), lambda: replace(whole, decoding="guess")):
        with pytest.raises(InputError, match="choose survey or search"):
            make()
