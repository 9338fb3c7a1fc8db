"""SEVA's normalisation: laws (golden values are in tests/parity)."""

import torch
from geometry_strategies import arc, cameras
from hypothesis import given
from hypothesis import strategies as st

from sphinx_nvs.geometry.cameras import Cameras
from sphinx_nvs.geometry.normalise import normalise_cameras, robust_centre


@given(cameras(num_views=5), st.floats(0.1, 10))
def test_units_and_origin_of_the_world_do_not_matter(views, unit):
    c2w = views.c2w.clone()
    c2w[:, :3, 3] = c2w[:, :3, 3] * unit + torch.tensor([3.0, -1, 2], dtype=torch.float64)
    moved = normalise_cameras(Cameras(c2w, views.K, views.height, views.width))
    torch.testing.assert_close(moved.c2w, normalise_cameras(views).c2w, atol=1e-6, rtol=0)


@given(cameras(num_views=5))
def test_the_first_camera_ends_at_the_camera_scale(views):
    assert abs(float(normalise_cameras(views, camera_scale=3.0).centres[0].norm()) - 3) < 1e-9


def test_cameras_at_one_place_stay_there():
    views = arc(1)
    normalised = normalise_cameras(Cameras.cat([views, views]))
    assert float(normalised.centres.abs().max()) == 0


def test_a_far_outlier_does_not_move_the_centre():
    centres = torch.cat([torch.rand(39, 3, dtype=torch.float64), torch.full((1, 3), 1e5, dtype=torch.float64)])
    torch.testing.assert_close(robust_centre(centres), centres[:39].mean(dim=0))
