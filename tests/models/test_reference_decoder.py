from dataclasses import replace
from itertools import product

import pytest
import torch

from sphinx_nvs.models.base import Render
from sphinx_nvs.models.reference_decoder import (
    NUM_PLANES,
    SEARCH_SIDE,
    ReferenceDecoder,
    _decided,
    _places,
    look_at,
    planes_for,
    search_stride,
)
from sphinx_nvs.scene.procedural import procedural_views


def rendered(height=64, width=64, contexts=2, views=2, seed=3):
    """Photos, truth, true depth, and a sight whose render is a grey card at the true depth."""
    rgb, depth, cameras, _ = procedural_views(seed, contexts + views, height, width, split="val", supersample=1)
    maps = torch.ones(views, height, width)
    render = Render(
        rgb=torch.full((views, 3, height, width), 0.5),
        alpha=maps,
        confidence=0.5 * maps,
        disagreement=0 * maps,
        depth=depth[contexts:],
    )
    sight = look_at(rgb[:contexts], cameras[:contexts], cameras[contexts:], render)
    return rgb[contexts:], depth, sight


@torch.inference_mode()
def test_photos_seen_through_the_true_depth_are_the_truth():
    truth, depth, sight = rendered(seed=4)
    inverse = (1 / depth[2:]).view(1, 2, 1, -1)
    grid, inside = _places(sight, inverse.float(), 64, 64, 1)
    for photo, view in product(range(2), range(2)):
        seen = torch.nn.functional.grid_sample(
            sight.photos[photo : photo + 1], grid[photo, view].view(1, 64, 64, 2), align_corners=False
        )[0]
        error = (seen - truth[view]).abs().mean(0).flatten()[inside[photo, view, 0] > 0]
        assert float(error.median()) < 0.01


@torch.inference_mode()
def test_a_coarse_grids_places_are_those_of_the_pixels_beneath():
    _, _, sight = rendered()
    fine, _ = _places(sight, sight.planes.view(1, 1, -1, 1), 64, 64, 1)
    coarse, _ = _places(sight, sight.planes.view(1, 1, -1, 1), 32, 32, 2)
    fine = fine.view(2, 2, NUM_PLANES, 64, 64, 2)
    between = (fine[:, :, :, ::2, ::2] + fine[:, :, :, 1::2, 1::2]) / 2
    # Perspective bends the way between two pixels by less than a thousandth of the picture.
    torch.testing.assert_close(coarse.view(2, 2, NUM_PLANES, 32, 32, 2), between, atol=2e-3, rtol=0)


@torch.inference_mode()
@pytest.mark.parametrize(("height", "width"), [(32, 32), (64, 96), (160, 96), (96, 544)])
def test_any_size_that_the_denoiser_takes(height, width):
    truth, _, sight = rendered(height, width, contexts=3)
    decoded = ReferenceDecoder().eval()(truth, sight)
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
    truth, _, sight = rendered()
    decoder = ReferenceDecoder().eval()
    together = decoder(truth, sight).frames
    for view in range(2):
        alone = decoder(truth[view : view + 1], sight.of(view)).frames
        torch.testing.assert_close(alone, together[view : view + 1], atol=1e-4, rtol=0)


@torch.inference_mode()
def test_photos_have_no_order():
    truth, _, sight = rendered(contexts=3)
    decoder, order = ReferenceDecoder().eval(), torch.tensor([2, 0, 1])
    turned = replace(sight, photos=sight.photos[order], A=sight.A[:, order], b=sight.b[:, order])
    a, b = decoder(truth, sight), decoder(truth, turned)
    torch.testing.assert_close(a.frames, b.frames, atol=1e-4, rtol=0)
    torch.testing.assert_close(a.plane_logits, b.plane_logits, atol=1e-4, rtol=1e-4)


@torch.inference_mode()
def test_where_no_photo_shows_the_place_the_render_stands_in():
    truth, _, sight = rendered()
    # Every photo looks the other way.
    behind = replace(sight, A=sight.A * torch.tensor([1.0, 1, -1]).view(3, 1), b=0 * sight.b)
    decoded = ReferenceDecoder().eval()(truth, behind)
    assert not decoded.in_view.any()
    assert torch.equal(decoded.warped, behind.rendered)
    assert torch.isfinite(decoded.frames).all()


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
    found = _decided(logits, planes)
    assert found.inverse_depth[0, 0, 0].tolist() == pytest.approx([float(planes[7]), float(planes[10:12].mean())])
    assert found.sureness[0, 0, 0].tolist() == pytest.approx([1.0, 1.0])
