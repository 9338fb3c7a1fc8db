from dataclasses import replace
from itertools import product

import pytest
import torch

from sphinx_nvs.geometry.cameras import Cameras
from sphinx_nvs.models.base import Render
from sphinx_nvs.models.embedded.decoder_inputs import (
    NUM_PLANES,
    Found,
    Redrawn,
    decoder_inputs,
    places,
    planes_for,
    redraw,
)
from sphinx_nvs.models.embedded.reference_decoder import (
    BLOCK,
    SEARCH_SIDE,
    ReferenceDecoder,
    block_movement,
    decided,
    search_stride,
)
from sphinx_nvs.procedural import procedural_views


def rendered(height=64, width=64, contexts=2, views=2, seed=3):
    """Photos, truth, true depth, and a inputs whose render is a grey card at the true depth."""
    rgb, depth, cameras, _ = procedural_views(seed, contexts + views, height, width, split="val", supersample=1)
    maps = torch.ones(views, height, width)
    render = Render(
        rgb=torch.full((views, 3, height, width), 0.5),
        alpha=maps,
        confidence=0.5 * maps,
        disagreement=0 * maps,
        depth=depth[contexts:],
    )
    inputs = decoder_inputs(rgb[:contexts], cameras[:contexts], cameras[contexts:], render)
    return rgb[contexts:], depth, inputs


@torch.inference_mode()
def test_photos_seen_through_the_true_depth_are_the_truth():
    truth, depth, inputs = rendered(seed=4)
    inverse = (1 / depth[2:]).view(1, 2, 1, -1)
    grid, inside = places(inputs, inverse.float(), 64, 64, 1)
    for photo, view in product(range(2), range(2)):
        seen = torch.nn.functional.grid_sample(
            inputs.photos[photo : photo + 1], grid[photo, view].view(1, 64, 64, 2), align_corners=False
        )[0]
        error = (seen - truth[view]).abs().mean(0).flatten()[inside[photo, view, 0] > 0]
        assert float(error.median()) < 0.01


@torch.inference_mode()
def test_a_coarse_grids_places_are_those_of_the_pixels_beneath():
    _, _, inputs = rendered()
    fine, _ = places(inputs, inputs.planes.view(1, 1, -1, 1), 64, 64, 1)
    coarse, _ = places(inputs, inputs.planes.view(1, 1, -1, 1), 32, 32, 2)
    fine = fine.view(2, 2, NUM_PLANES, 64, 64, 2)
    between = (fine[:, :, :, ::2, ::2] + fine[:, :, :, 1::2, 1::2]) / 2
    # Perspective bends the way between two pixels by less than a thousandth of the picture.
    torch.testing.assert_close(coarse.view(2, 2, NUM_PLANES, 32, 32, 2), between, atol=2e-3, rtol=0)


@torch.inference_mode()
@pytest.mark.parametrize(("height", "width"), [(32, 32), (64, 96), (160, 96), (96, 544)])
def test_any_size_that_the_denoiser_takes(height, width):
    truth, _, inputs = rendered(height, width, contexts=3)
    decoded = ReferenceDecoder().eval()(truth, inputs)
    stride = search_stride(height, width)
    assert decoded.frames.shape == truth.shape
    assert decoded.plane_logits.shape == (2, NUM_PLANES, height // stride, width // stride)
    assert torch.isfinite(decoded.frames).all()


def test_the_search_is_about_as_fine_whatever_the_size():
    for side in range(32, 2049, 32):
        stride = search_stride(side, 2 * side)
        assert side % stride == 0
        assert side // stride < 2 * SEARCH_SIDE or stride == 8
        assert side // stride >= min(side, SEARCH_SIDE)


@torch.inference_mode()
def test_views_are_decoded_alike_together_and_alone():
    truth, _, inputs = rendered()
    decoder = ReferenceDecoder().eval()
    together = decoder(truth, inputs).frames
    for view in range(2):
        alone = decoder(truth[view : view + 1], inputs.of(view)).frames
        torch.testing.assert_close(alone, together[view : view + 1], atol=1e-4, rtol=0)


@torch.inference_mode()
def test_photos_have_no_order():
    truth, _, inputs = rendered(contexts=3)
    decoder, order = ReferenceDecoder().eval(), torch.tensor([2, 0, 1])
    turned = replace(
        inputs,
        photos=inputs.photos[order],
        A=inputs.A[:, order],
        b=inputs.b[:, order],
        A_between=inputs.A_between[order][:, order],
        b_between=inputs.b_between[order][:, order],
    )
    torch.testing.assert_close(decoder.survey(turned).sureness, decoder.survey(inputs).sureness[order])
    a, b = decoder(truth, inputs), decoder(truth, turned)
    torch.testing.assert_close(a.frames, b.frames, atol=1e-4, rtol=0)
    torch.testing.assert_close(a.plane_logits, b.plane_logits, atol=1e-4, rtol=1e-4)


@torch.inference_mode()
def test_where_no_photo_shows_the_place_the_render_stands_in():
    truth, _, inputs = rendered()
    # Every photo looks the other way.
    behind = replace(inputs, A=inputs.A * torch.tensor([1.0, 1, -1]).view(3, 1), b=0 * inputs.b)
    decoded = ReferenceDecoder().eval()(truth, behind)
    assert not decoded.in_view.any()
    assert torch.equal(decoded.warped, behind.rendered)
    assert torch.isfinite(decoded.frames).all()


@torch.inference_mode()
def test_how_far_a_plane_moves_a_place_in_each_photo():
    _, depth, inputs = rendered(128, 128)
    centres = torch.nn.functional.avg_pool2d(1 / depth[2:, None].float(), BLOCK)
    h, w = centres.shape[-2:]
    moved = block_movement(inputs, centres).view(2, 2, h, w)
    step = inputs.planes[1] - inputs.planes[0]
    at, inside = places(inputs, centres.view(1, 2, 1, -1), h, w, BLOCK)
    further, _ = places(inputs, centres.view(1, 2, 1, -1) + 0.01 * step, h, w, BLOCK)
    pixels = 100 * ((further - at) * 128 / 2).norm(dim=-1)[:, :, 0].transpose(0, 1)
    shown = inside[:, :, 0].transpose(0, 1) > 0
    torch.testing.assert_close(moved.flatten(2)[shown], pixels[shown].log1p(), atol=0.02, rtol=0.02)
    assert torch.isfinite(moved).all()


@torch.inference_mode()
def test_places_are_as_exact_in_training_as_in_use():
    _, depth, inputs = rendered(128, 128)
    inverse = (1 / depth[2:]).view(1, 2, 1, -1).float()
    surfaces = Found(inverse_depth=1 / depth[:2, None].float(), sureness=torch.ones(2, 1, 128, 128))
    _, _, cameras, _ = procedural_views(3, 4, 128, 128, split="val", supersample=1)

    def made():
        moved = block_movement(inputs, torch.nn.functional.avg_pool2d(1 / depth[2:, None].float(), BLOCK))
        redrawn = redraw(inputs, cameras[:2], cameras[2:], surfaces)
        return [*places(inputs, inverse, 128, 128, 1), moved, redrawn.rgb, redrawn.inverse_depth]

    exact = made()
    with torch.autocast("cpu", torch.bfloat16):
        trained = made()
    assert all(torch.equal(a, b) for a, b in zip(exact, trained, strict=True))


@torch.inference_mode()
def test_a_survey_sees_each_photo_beside_the_others_and_a_single_one_nowhere():
    _, _, inputs = rendered(64, 96, contexts=3)
    decoder = ReferenceDecoder().eval()
    surfaces = decoder.survey(inputs)
    assert surfaces.inverse_depth.shape == surfaces.sureness.shape == (3, 1, 64, 96)
    other = decoder.survey(replace(inputs, photos=inputs.photos.clone().index_fill_(0, torch.tensor(0), 0.5)))
    assert not torch.equal(surfaces.sureness[1], other.sureness[1])
    assert surfaces.inverse_depth.min() >= inputs.planes[0]
    assert surfaces.inverse_depth.max() <= inputs.planes[-1]
    _, _, inputs = rendered(64, 96, contexts=1)
    assert not decoder.survey(inputs).sureness.any()


def exact_surfaces(seed=4):
    """A inputs, its cameras, and the photos' true surfaces at half the size; the true targets and their depth."""
    rgb, depth, cameras, _ = procedural_views(seed, 4, 64, 64, split="val", supersample=1)
    maps = torch.ones(2, 64, 64)
    render = Render(rgb=0 * rgb[2:], alpha=maps, confidence=maps, disagreement=maps, depth=depth[2:])
    inputs = decoder_inputs(rgb[:2], cameras[:2], cameras[2:], render)
    inverse_depth = torch.nn.functional.avg_pool2d(1 / depth[:2, None].float(), 2)
    return inputs, cameras, Found(inverse_depth=inverse_depth, sureness=torch.ones_like(inverse_depth)), rgb, depth


@torch.inference_mode()
def test_targets_are_redrawn_by_the_surfaces_that_are_given():
    inputs, cameras, surfaces, rgb, depth = exact_surfaces()

    def drawn(inputs, survey):
        return redraw(inputs, cameras[:2], cameras[2:], survey)

    redrawn = drawn(inputs, surfaces)
    covered = redrawn.signals[:, 0] * redrawn.signals[:, 1] > 0.5
    assert covered.float().mean() > 0.5
    assert ((redrawn.inverse_depth * depth[2:] - 1).abs()[covered]).median() < 0.02
    assert (redrawn.rgb - rgb[2:]).abs().mean(1)[covered].median() < 0.05
    wrong = Found(inverse_depth=0 * surfaces.inverse_depth + 0.2, sureness=surfaces.sureness)
    assert (drawn(inputs, wrong).rgb - rgb[2:]).abs().mean() > 1.5 * (redrawn.rgb - rgb[2:]).abs().mean()
    unsure = replace(surfaces, sureness=0 * surfaces.sureness)
    assert not drawn(inputs, unsure).signals[:, 1].any()
    # What the regressor is sure of is not surveyed.
    sure = replace(inputs, photo_inverse_depth=1 / depth[:2], photo_confidence=torch.full_like(depth[:2], 0.9))
    assert torch.equal(drawn(sure, wrong).rgb, drawn(sure, surfaces).rgb)
    assert ((drawn(sure, wrong).inverse_depth * depth[2:] - 1).abs()[covered]).median() < 0.02


def test_targets_that_see_nothing_of_the_surfaces_are_not_redrawn():
    inputs, cameras, surfaces, _, _ = exact_surfaces()
    behind = cameras.c2w[2:].clone()
    behind[:, :3, [0, 2]] *= -1
    away = Cameras(behind, cameras.K[2:], 64, 64)
    assert redraw(inputs, cameras[:2], away, surfaces) is None


@torch.inference_mode()
def test_of_photos_alike_the_nearer_one_is_believed():
    """By an untrained network, which has no opinion."""
    truth, _, inputs = rendered(128, 128)
    decoder = ReferenceDecoder().eval()
    torch.nn.init.zeros_(decoder.view_out.weight)
    torch.nn.init.zeros_(decoder.view_out.bias)
    shades = torch.stack([torch.zeros(3, 128, 128), torch.ones(3, 128, 128)])
    changed = replace(inputs, photos=shades, b=inputs.b * torch.tensor([1.0, 1e-3]).view(1, 2, 1))
    decoded = decoder(truth, changed)
    both = torch.stack([places(changed, changed.planes[:1].view(1, 1, 1, 1), 128, 128, 1)[1]]).amin((0, 1, 3)) > 0
    assert decoded.warped.mean(1).flatten(1)[both].mean() > 0.6


@torch.inference_mode()
def test_search_and_fusion_see_what_was_redrawn():
    truth, _, inputs = rendered()
    decoder = ReferenceDecoder().eval()
    assert inputs.drawn.rgb is inputs.rendered
    redrawn = Redrawn(rgb=truth, signals=inputs.signals, inverse_depth=inputs.inverse_depth)
    changed = replace(inputs, redrawn=redrawn)
    assert torch.equal(changed.of(1).drawn.rgb, truth[1:])
    found = decoder.find(truth, inputs)
    assert not torch.equal(decoder.find(truth, changed).sureness, found.sureness)
    assert not torch.equal(decoder.compose(truth, changed, found), decoder.compose(truth, inputs, found))
    hidden = changed.without_depth().drawn
    assert torch.equal(hidden.rgb, truth)
    assert (hidden.inverse_depth > 100 * inputs.planes[-1]).all()


def test_a_regressor_without_depth_of_the_photos_leaves_it_open():
    rgb, depth, cameras, _ = procedural_views(3, 4, 64, 64, split="val", supersample=1)
    maps = torch.ones(2, 64, 64)
    render = Render(rgb=rgb[2:], alpha=maps, confidence=maps, disagreement=maps, depth=depth[2:])
    unknown = decoder_inputs(rgb[:2], cameras[:2], cameras[2:], render)
    assert (unknown.photo_inverse_depth > 100 * unknown.planes[-1]).all()
    assert not unknown.photo_confidence.any()
    half = torch.stack([1 / depth[0], torch.zeros(64, 64)])[:, ::2, ::2]
    changed = replace(render, context_inverse_depth=half, context_confidence=half.clamp(0, 1))
    known = decoder_inputs(rgb[:2], cameras[:2], cameras[2:], changed)
    assert known.photo_inverse_depth.shape == (2, 64, 64)
    assert known.photo_inverse_depth[0].max() <= half.max()
    assert torch.equal(known.photo_inverse_depth[1], unknown.photo_inverse_depth[1])
    assert torch.equal(known.without_depth().photo_inverse_depth, unknown.photo_inverse_depth)


def test_planes_reach_past_the_renders_depth():
    inverse = torch.linspace(0.1, 2.0, 64 * 64).view(1, 64, 64)
    planes = planes_for(inverse)
    assert planes.shape == (NUM_PLANES,)
    assert (planes.diff() > 0).all()
    assert 0 < float(planes[0]) < 0.1
    assert float(planes[-1]) > 2.0


def test_a_certain_plane_is_taken_as_it_is_and_a_split_one_between():
    planes = torch.linspace(1.0, 2.0, NUM_PLANES)
    logits = torch.full((1, NUM_PLANES, 1, 2), -50.0)
    logits[0, 7, 0, 0] = 50.0
    logits[0, 10:12, 0, 1] = 50.0
    found = decided(logits, planes)
    assert found.inverse_depth[0, 0, 0].tolist() == pytest.approx([float(planes[7]), float(planes[10:12].mean())])
    assert found.sureness[0, 0, 0].tolist() == pytest.approx([1.0, 1.0])
