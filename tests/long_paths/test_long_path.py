"""Long paths with an untrained denoiser: the same frames in any order, resumed, and in one window."""

import itertools
from dataclasses import replace

import pytest
import torch

from sphinx_nvs.errors import InputError
from sphinx_nvs.geometry.paths import scene_path
from sphinx_nvs.long_paths.long_path import LongPath, plan_units, run_path, unit_seed
from sphinx_nvs.models.base import Denoiser
from sphinx_nvs.models.embedded.denoiser import Nano
from sphinx_nvs.models.planesweep import PlaneSweep
from sphinx_nvs.pipeline.pipeline import Pipeline
from sphinx_nvs.sampling_params import SamplingParams
from sphinx_nvs.scene import read_capture

WINDOW = 6
DIFFUSION, REGRESSION = SamplingParams(method="diffusion"), SamplingParams(method="regression")


class Watched:
    """A denoiser that notes how many known views and targets it is given."""

    def __init__(self, inner):
        self.inner, self.seen, self.renders = inner, [], []

    def __getattr__(self, name):
        return getattr(self.inner, name)

    def condition(self, scene, targets, render, z_render, *, reference=None):
        self.renders.append(render)
        self.seen.append((len(scene.images), len(targets), None if reference is None else len(reference)))
        return self.inner.condition(scene, targets, render, z_render, reference=reference)


@pytest.fixture(scope="module")
def denoiser():
    with torch.random.fork_rng():
        torch.manual_seed(5)
        nano = Nano().eval().requires_grad_(False)
        for parameter in nano.unet.parameters():
            torch.nn.init.normal_(parameter, std=0.03)
    return nano


@pytest.fixture(scope="module")
def pipeline(denoiser):
    return Pipeline(regressor=PlaneSweep(), denoiser=denoiser, num_steps=2)


@pytest.fixture(scope="module")
def scene():
    return read_capture("procedural:room:3").load([0, 4], 64, 64)


@pytest.fixture(scope="module")
def targets(scene):
    return scene_path("interpolate", scene.cameras, 11)


@pytest.fixture(scope="module")
def whole(pipeline, scene, targets):
    """Every unit's frames, in the order of the plan."""
    options = {"params": replace(DIFFUSION, seed=3), "window": WINDOW, "strategy": "interp"}
    return {made.unit.index: made.frames for made in run_path(pipeline, scene, targets, **options)}


def long_path(pipeline, scene, targets, strategy="interp"):
    return LongPath.of(pipeline, scene, targets, replace(DIFFUSION, seed=3), window=WINDOW, strategy=strategy)


def test_every_frame_is_made_once_and_none_is_another(whole, scene, targets):
    units = plan_units(scene.cameras, targets, window=WINDOW, strategy="interp")
    assert sorted(whole) == [unit.index for unit in units]
    frames = torch.cat(list(whole.values()))
    assert frames.shape == (11, 3, 64, 64)
    assert all(not torch.equal(a, b) for a, b in itertools.combinations(frames, 2))


def test_order_does_not_matter(pipeline, scene, targets, whole):
    path = long_path(pipeline, scene, targets)
    finished = {}
    anchors = [unit for unit in path.units if unit.kind == "anchors"]
    chunks = [unit for unit in path.units if unit.kind == "chunk"]
    assert len(chunks) >= 2
    for unit in [*anchors, *reversed(chunks)]:
        made = path.run(unit, finished)
        assert torch.equal(made.frames, whole[unit.index])
        finished |= dict(zip(unit.targets, made.frames, strict=True))


def test_going_on_half_way_gives_the_rest_bit_for_bit(pipeline, scene, targets, whole):
    options = {"params": replace(DIFFUSION, seed=3), "window": WINDOW, "strategy": "interp"}
    done = {index: frames for index, frames in whole.items() if index in (0, 2)}
    rest = {made.unit.index: made.frames for made in run_path(pipeline, scene, targets, done=done, **options)}
    assert sorted([*done, *rest]) == sorted(whole)
    assert all(torch.equal(frames, whole[index]) for index, frames in rest.items())
    assert list(run_path(pipeline, scene, targets, done=whole, **options)) == []


def test_a_path_of_one_window_is_the_pipelines(pipeline, scene, targets):
    (made,) = run_path(pipeline, scene, targets[:4], replace(DIFFUSION, seed=8), window=WINDOW)
    assert torch.equal(made.frames, pipeline(scene, targets[:4], method="diffusion", seed=8).frames)


def test_chunks_depend_on_the_anchors_frames(pipeline, scene, targets, whole):
    path = long_path(pipeline, scene, targets)
    unit = path.units[-1]
    black = {frame: torch.zeros(3, 64, 64) for frame in unit.frames}
    assert not torch.equal(path.run(unit, black).frames, whole[unit.index])


@pytest.fixture(scope="module")
def reconstruction(scene):
    return PlaneSweep().reconstruct(scene)


@pytest.mark.parametrize("strategy", ["interp", "interp-gt", "nearest-gt", "gt", "gt-ltr"])
def test_the_denoiser_never_sees_more_than_the_window(denoiser, scene, targets, reconstruction, strategy):
    watched = Watched(denoiser)
    assert isinstance(watched, Denoiser)
    pipeline = Pipeline(regressor=PlaneSweep(), denoiser=watched, num_steps=1)
    made = list(run_path(pipeline, scene, targets, DIFFUSION, window=WINDOW, strategy=strategy))
    assert len(watched.seen) == len(made) > 1
    for (num_known, num_targets, num_all), one in zip(watched.seen, made, strict=True):
        assert (num_known, num_targets) == (len(one.unit.photos) + len(one.unit.frames), len(one.unit.targets))
        assert num_known + num_targets <= WINDOW
        assert num_all == len(scene.cameras) + len(targets)
    for render, one in zip(watched.renders, made, strict=True):
        of_photos, of_frames = render.context_inverse_depth.split([len(one.unit.photos), len(one.unit.frames)])
        assert torch.equal(of_photos, reconstruction.inverse_depth[list(one.unit.photos)])
        assert not of_frames.any()
        assert not render.context_confidence[len(one.unit.photos) :].any()


def test_render_and_assessment_stay_with_the_photos(pipeline, scene, targets):
    made = list(run_path(pipeline, scene, targets, REGRESSION, window=WINDOW))
    alone = pipeline(scene, targets, method="regression").frames
    for one in made:
        assert torch.allclose(one.frames, alone[list(one.unit.targets)], atol=1e-6)


def test_progress_counts_units(pipeline, scene, targets):
    messages = []
    list(run_path(pipeline, scene, targets, REGRESSION, window=WINDOW, progress=lambda *a: messages.append(a)))
    units = [done for stage, done, _ in messages if stage == "unit"]
    assert units == list(range(len(units)))
    assert [total for stage, _, total in messages if stage == "unit"] == [units[-1]] * len(units)


def test_noise_of_units():
    seeds = [unit_seed(seed, index) for seed in (0, 1) for index in range(50)]
    assert len(set(seeds)) == 100
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert unit_seed(7, 0) == 7


def test_what_cannot_be_gone_on_from(pipeline, scene, targets):
    with pytest.raises(InputError) as caught:
        list(run_path(pipeline, scene, targets, window=WINDOW, done={99: torch.zeros(1, 3, 64, 64)}))
    assert "done: it has unit 99 of a path of" in str(caught.value)
    with pytest.raises(InputError) as caught:
        list(run_path(pipeline, scene, targets, window=WINDOW, done={0: torch.zeros(1, 3, 8, 8)}))
    assert str(caught.value).startswith("done: unit 0 has frames of shape (1, 3, 8, 8); give frames of shape (")
    path = long_path(pipeline, scene, targets)
    with pytest.raises(InputError) as caught:
        path.run(path.units[-1], {})
    frame = path.units[-1].frames[0]
    assert str(caught.value) == (
        f"unit {path.units[-1].index}: frame {frame} is not finished; run its `depends_on` first"
    )
