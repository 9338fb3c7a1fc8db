import math
from dataclasses import replace

import pytest
import torch

from sphinx_nvs.geometry.cameras import Cameras
from sphinx_nvs.models.base import consistent_frames
from sphinx_nvs.models.embedded.shipped import load_nano
from sphinx_nvs.models.embedded.temporal_consistency import (
    CALM,
    REACH,
    SAME_DEPTH,
    Agreement,
    Path,
    depth_of_path,
    neighbours_of,
    seen_beside,
)
from sphinx_nvs.presets import load_preset
from sphinx_nvs.procedural import procedural_views
from sphinx_nvs.sampling_params import SamplingParams
from sphinx_nvs.scene.scene import Scene


def path_of(views=4, side=64, seed=3, split="val"):
    """A path whose frames are the truth and whose depth is exact."""
    rgb, depth, cameras, _ = procedural_views(seed, views, side, side, split=split)
    return Path(
        frames=rgb,
        rendered=rgb,
        signals=torch.stack([torch.ones_like(depth), torch.ones_like(depth), torch.zeros_like(depth)], 1).float(),
        inverse_depth=(1 / depth).float(),
        neighbours=neighbours_of(cameras),
    )


def test_ends_of_a_path_have_one_neighbour():
    _, _, cameras, _ = procedural_views(3, 3, 32, 32, split="val")
    neighbours = neighbours_of(cameras)
    assert neighbours.index.tolist() == [[0, 1], [0, 2], [1, 2]]
    assert neighbours.exists.tolist() == [[False, True], [True, True], [True, False]]


@torch.inference_mode()
def test_neighbours_are_seen_through_the_true_depth_where_it_is_alike():
    path = path_of()
    for view in range(4):
        seen, alike = seen_beside(path, view)
        for side, exists in enumerate(path.neighbours.exists[view].tolist()):
            shared = alike[side, 0] > 0.5
            if not exists:
                assert not alike[side].any()
                continue
            error = (seen[side] - path.frames[view]).abs().mean(0)
            assert float(shared.float().mean()) > 0.5
            assert float(error[shared].median()) < 0.01
            assert float(error[shared].mean()) < 0.5 * float(error[~shared].mean())


@torch.inference_mode()
def test_who_sees_another_surface_is_not_asked():
    path = path_of()
    nearer = path.inverse_depth.clone()
    nearer[2] *= 2
    _, alike = seen_beside(replace(path, inverse_depth=nearer), 1)
    assert float(alike[0].mean()) > 0.5
    assert float((alike[1] > 0.1).float().mean()) < 0.1
    torch.manual_seed(0)
    network = Agreement().eval()
    blind = replace(path, inverse_depth=torch.stack([path.inverse_depth[0], *(9e3 * path.inverse_depth[1:])]))
    assert torch.isfinite(network(blind, 0)).all()


@torch.inference_mode()
@pytest.mark.parametrize(("height", "width"), [(32, 32), (64, 96), (160, 96)])
def test_any_size_that_the_denoiser_takes(height, width):
    rgb, depth, cameras, _ = procedural_views(5, 3, height, width, split="val", supersample=1)
    maps = torch.ones(3, 3, height, width)
    inverse = (1 / depth).float()
    path = Path(frames=rgb, rendered=rgb, signals=maps, inverse_depth=inverse, neighbours=neighbours_of(cameras))
    frame = Agreement().eval()(path, 1)
    assert frame.shape == rgb.shape[1:]
    assert torch.isfinite(frame).all()


def test_the_searchs_depth_is_taken_where_the_render_is_not_trusted():
    signals = torch.zeros(1, 3, 8, 8)
    signals[:, 0] = 1
    signals[:, 1, :, :4] = 0.9
    depth = depth_of_path(torch.full((1, 8, 8), 2.0), torch.full((1, 1, 4, 4), 3.0), signals)
    assert depth[0, :, :4].unique().tolist() == [2.0]
    assert depth[0, :, 4:].unique().tolist() == [3.0]


@torch.inference_mode()
def test_flicker_is_calmed_and_the_truth_is_left():
    network = load_nano().agreement
    for seed in (3, 4):
        path = path_of(5, 128, seed)
        generator = torch.Generator().manual_seed(seed)
        coarse = torch.randn(5, 3, 16, 16, generator=generator)
        noise = 0.08 * torch.nn.functional.interpolate(coarse, scale_factor=8.0, mode="bilinear")
        unsure = path.signals.clone()
        unsure[:, 1] = 0.3
        flickering = replace(path, frames=(path.frames + noise).clamp(0, 1), signals=unsure)

        def error(given, truth=path.frames):
            made = torch.stack([network(given, view) for view in range(5)])
            return float((made - truth).square().mean())

        before = float((flickering.frames - path.frames).square().mean())
        assert error(flickering) < 0.8 * before
        assert error(path) < 0.15 * before


@torch.inference_mode()
def test_held_views_are_looked_at_but_stay_and_one_view_alone_stays():
    pipeline = load_preset(num_steps=4)
    rgb, _, cameras, _ = procedural_views(7, 5, 64, 64, split="val", supersample=1)
    scene = Scene(name="held", images=rgb[[0, 4]], cameras=cameras[[0, 4]])
    prepared = pipeline.prepare(scene, cameras[1:4])
    plan = pipeline.plan_prepared(prepared, SamplingParams(method="diffusion")).plan
    start = plan.start_step.clone()
    start[1] = plan.num_steps
    frames = pipeline.run_plan(prepared, replace(plan, start_step=start)).frames
    assert torch.equal(frames[1], prepared.render.rgb[1])
    assert not torch.equal(frames[0], prepared.render.rgb[0])

    alone = pipeline.prepare(scene, cameras[1:2])
    running = pipeline.begin(alone, pipeline.plan_prepared(alone, SamplingParams(method="diffusion")).plan)
    while running.steps_left:
        running.step()
    finished = pipeline.finish(running).frames
    assert torch.equal(consistent_frames(pipeline.denoiser, finished, running.conditioning, [0]), finished)


@torch.inference_mode()
def test_cameras_far_apart_share_nothing():
    c2w = torch.eye(4, dtype=torch.float64).repeat(2, 1, 1)
    c2w[1, :3, :3] = torch.tensor([[-1.0, 0, 0], [0, 1, 0], [0, 0, -1]])
    K = torch.tensor([[32.0, 0, 16], [0, 32, 16], [0, 0, 1]], dtype=torch.float64).repeat(2, 1, 1)
    path = Path(
        frames=torch.rand(2, 3, 32, 32),
        rendered=torch.rand(2, 3, 32, 32),
        signals=torch.rand(2, 3, 32, 32),
        inverse_depth=torch.ones(2, 32, 32),
        neighbours=neighbours_of(Cameras(c2w, K, 32, 32)),
    )
    _, alike = seen_beside(path, 0)
    assert not alike.any()
    assert torch.isfinite(Agreement().eval()(path, 0)).all()


@torch.inference_mode()
@pytest.mark.parametrize("aside", [0.05, 0.2, 0.5])
def test_a_neighbour_is_believed_less_the_further_a_wrong_depth_would_move_its_places(aside):
    c2w = torch.eye(4, dtype=torch.float64).repeat(2, 1, 1)
    c2w[1, 0, 3] = aside
    K = torch.tensor([[128.0, 0, 64], [0, 128, 64], [0, 0, 1]], dtype=torch.float64).repeat(2, 1, 1)
    maps = torch.ones(2, 3, 128, 128)
    neighbours = neighbours_of(Cameras(c2w, K, 128, 128))
    path = Path(frames=maps, rendered=maps, signals=maps, inverse_depth=maps[:, 0], neighbours=neighbours)
    _, alike = seen_beside(path, 0)
    # The plane z = 1 lies 128 aside pixels further left there: a tenth of that for a tenth more of inverse depth.
    inside = int(128 * aside) + 1
    expected = math.exp(-((SAME_DEPTH * 128 * aside / REACH) ** 2))
    assert alike[1, 0, :, inside:].numpy() == pytest.approx(expected, rel=1e-3)


@torch.inference_mode()
def test_a_frame_without_neighbours_stays():
    path = path_of(3)
    alone = replace(path, neighbours=replace(path.neighbours, exists=torch.zeros(3, 2, dtype=torch.bool)))
    assert float((load_nano().agreement(alone, 1) - path.frames[1]).abs().max()) < 1e-5


@torch.inference_mode()
def test_a_neighbour_that_nearly_agrees_counts_more_than_one_that_does_not():
    """By an untrained network, at one place, so that shares are the constant's doing."""
    network = Agreement().eval()
    for layer in (network.own, network.each):
        torch.nn.init.zeros_(layer.weight)
        torch.nn.init.zeros_(layer.bias)
    K = torch.tensor([[32.0, 0, 16], [0, 32, 16], [0, 0, 1]], dtype=torch.float64).repeat(2, 1, 1)
    still = neighbours_of(Cameras(torch.eye(4, dtype=torch.float64).repeat(2, 1, 1), K, 32, 32))

    def share(difference):
        frames = torch.full((2, 3, 32, 32), 0.3)
        frames[1] += difference
        maps = torch.ones(2, 3, 32, 32)
        path = Path(frames=frames, rendered=frames, signals=maps, inverse_depth=maps[:, 0], neighbours=still)
        return float((network(path, 0) - frames[0]).mean()) / difference

    assert share(0.01) == pytest.approx(math.exp(CALM) / (1 + math.exp(CALM)), abs=0.01)
    assert share(0.4) == pytest.approx(0.5, abs=0.01)


@torch.inference_mode()
def test_neighbours_are_seen_as_exactly_in_training_as_in_use():
    path = path_of(3, 128)
    exact = seen_beside(path, 1)
    with torch.autocast("cpu", torch.bfloat16):
        trained = seen_beside(path, 1)
    assert all(torch.equal(a, b) for a, b in zip(exact, trained, strict=True))
