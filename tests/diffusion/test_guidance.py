import math

import torch

from sphinx_nvs.diffusion.guidance import (
    coincides,
    constant_scale,
    guide,
    multiview_scale,
    rotations_deg,
    temporal_scale,
)


def yawed(degrees, x=0.0):
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return torch.tensor([[c, 0, s, x], [0, 1, 0, 0], [-s, 0, c, 0], [0, 0, 0, 1]], dtype=torch.float64)


def known(*views, count):
    mask = torch.zeros(count, dtype=torch.bool)
    mask[list(views)] = True
    return mask


def lens(count):
    return torch.eye(3, dtype=torch.float64).repeat(count, 1, 1)


def test_scale_one_is_no_guidance_and_zero_is_unconditional():
    unconditional, conditional = torch.randn(2, 3, 4, 2, 2)
    found = guide(unconditional, conditional, torch.tensor([0.0, 1.0, 3.0]))
    assert torch.equal(found[0], unconditional[0])
    torch.testing.assert_close(found[1], conditional[1])
    torch.testing.assert_close(found[2], 3 * conditional[2] - 2 * unconditional[2])


def test_angles():
    found = rotations_deg(torch.stack([yawed(0), yawed(30), yawed(180)]), yawed(0)[None])
    torch.testing.assert_close(found[:, 0], torch.tensor([0.0, 30.0, 180.0]).double())


def test_a_view_coincides_only_with_equal_position_direction_and_intrinsics():
    c2w = torch.stack([yawed(0), yawed(9), yawed(11), yawed(0, 1e-6), yawed(0, 1e-4), yawed(0)])
    K = lens(6)
    K[5, 0, 0] = 1.0001
    assert coincides(c2w, K, known(0, count=6)).tolist() == [True, True, False, True, False, False]


def test_multiview_scale_is_lower_for_coinciding_views():
    c2w = torch.stack([yawed(0), yawed(5), yawed(50)])
    found = multiview_scale(c2w, lens(3), known(0, count=3), scale=2.0, scale_min=1.2)
    torch.testing.assert_close(found, torch.tensor([1.2, 1.2, 2.0]))


def test_temporal_scale_rises_with_frames_to_the_nearest_known_view():
    c2w = torch.stack([yawed(20 * view) for view in range(6)])
    found = temporal_scale(c2w, lens(6), known(0, 5, count=6), scale=2.0, scale_min=1.0)
    torch.testing.assert_close(found, torch.tensor([1.0, 1.5, 2.0, 2.0, 1.5, 1.0]))


def test_temporal_scale_is_lower_for_a_distant_frame_that_coincides():
    c2w = torch.stack([yawed(0), yawed(40), yawed(0)])
    found = temporal_scale(c2w, lens(3), known(0, count=3), scale=2.0, scale_min=1.0)
    torch.testing.assert_close(found, torch.tensor([1.0, 1.5, 1.0]))


def test_without_known_views_every_scale_is_full():
    c2w, none = torch.stack([yawed(0), yawed(0)]), known(count=2)
    for rule in (multiview_scale, temporal_scale):
        found = rule(c2w, lens(2), none, scale=2.0, scale_min=1.0)
        torch.testing.assert_close(found, constant_scale(2, 2.0))


def test_with_only_known_views_every_scale_is_low():
    c2w = torch.stack([yawed(0), yawed(90)])
    for rule in (multiview_scale, temporal_scale):
        found = rule(c2w, lens(2), known(0, 1, count=2), scale=2.0, scale_min=1.0)
        torch.testing.assert_close(found, constant_scale(2, 1.0))
