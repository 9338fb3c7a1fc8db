import pytest
import torch

from sphinx_nvs.evaluation.consistency import neighbour_warp, reprojection_error
from sphinx_nvs.geometry.cameras import Cameras
from sphinx_nvs.procedural import procedural_views


def sideways(step: float = 0.1, views: int = 3, side: int = 32) -> Cameras:
    """Cameras that move right by `step`, focal length `side` pixels: a plane at depth 1 moves `step * side` pixels."""
    c2w = torch.eye(4, dtype=torch.float64).repeat(views, 1, 1)
    c2w[:, 0, 3] = step * torch.arange(views)
    K = torch.tensor([[side, 0, side / 2], [0, side, side / 2], [0, 0, 1]], dtype=torch.float64)
    return Cameras(c2w, K.repeat(views, 1, 1), side, side)


def wallpaper(shift: int, side: int = 32) -> torch.Tensor:
    wide = torch.rand(3, side, 2 * side, generator=torch.Generator().manual_seed(0))
    return wide[:, :, shift : shift + side]


def test_a_known_shift_is_undone():
    """A wall at depth 1 seen from cameras 4 pixels apart: frames that show it agree to rounding."""
    frames = torch.stack([wallpaper(4 * i) for i in range(3)])
    depth = torch.ones(3, 32, 32)
    assert reprojection_error(frames, depth, sideways(4 / 32)) == pytest.approx(0, abs=1e-6)
    still = torch.stack([wallpaper(0)] * 3)
    assert reprojection_error(still, depth, sideways(4 / 32)) > 0.2


def test_only_what_both_frames_see_is_compared():
    warp = neighbour_warp(torch.ones(2, 32, 32), sideways(4 / 32, views=2))
    assert not bool(warp.visible[0, :, :4].any())
    assert bool(warp.visible[0, 1:-1, 5:].all())
    occluded = torch.ones(2, 32, 32)
    occluded[1, :, :16] = 0.5
    assert not bool(neighbour_warp(occluded, sideways(4 / 32, views=2)).visible[0, :, :18].any())


def test_flicker_of_a_known_strength_is_measured():
    frames = torch.stack([wallpaper(4 * i) for i in range(3)]).clamp(0.2, 0.8)
    frames[1] += 0.1
    assert reprojection_error(frames, torch.ones(3, 32, 32), sideways(4 / 32)) == pytest.approx(0.1, abs=1e-5)


def test_true_pictures_agree_better_than_shuffled_or_noisy_ones():
    rgb, depth, cameras, _ = procedural_views(1, 4, 64, 64, split="test")
    truth = reprojection_error(rgb, depth, cameras)
    noise = 0.1 * torch.randn(rgb.shape, generator=torch.Generator().manual_seed(0))
    assert truth is not None
    assert truth < 0.05
    assert reprojection_error((rgb + noise).clamp(0, 1), depth, cameras) > 2 * truth
    assert reprojection_error(rgb.flip(-1), depth, cameras) > 2 * truth


def test_frames_without_shared_pixels_have_no_error():
    assert reprojection_error(torch.rand(1, 3, 8, 8), torch.ones(1, 8, 8), sideways(0.1, 1, 8)) is None
    far = sideways(50.0, 2)
    assert reprojection_error(torch.rand(2, 3, 32, 32), torch.ones(2, 32, 32), far) is None


def test_unknown_depth_is_left_out():
    frames = torch.stack([wallpaper(4 * i) for i in range(2)])
    frames[0, :, :16] = 0
    known = torch.ones(2, 32, 32, dtype=torch.bool)
    known[0, :16] = False
    assert reprojection_error(frames, torch.ones(2, 32, 32), sideways(4 / 32, 2), known) == pytest.approx(0, abs=1e-6)
