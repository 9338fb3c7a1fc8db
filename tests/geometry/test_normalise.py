"""SEVA's normalisation: laws (golden values are in tests/parity)."""

import pytest
import torch
from geometry_strategies import arc, cameras
from hypothesis import given
from hypothesis import strategies as st

from sphinx_nvs.errors import InputError
from sphinx_nvs.geometry import se3
from sphinx_nvs.geometry.cameras import Cameras
from sphinx_nvs.geometry.normalise import normalise_cameras, normalise_world, robust_centre


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


def test_a_normalised_world_is_upright_in_the_middle_and_of_unit_size():
    views = arc(7)
    points = torch.randn(60, 3, dtype=torch.float64) * torch.tensor([1.0, 3.0, 0.3], dtype=torch.float64) + 5
    moved, seen, similarity = normalise_world(views, points)
    spread = seen.T.cov()
    torch.testing.assert_close(spread, torch.diag(spread.diagonal()), atol=1e-9, rtol=0)
    assert spread[0, 0] > spread[1, 1] > spread[2, 2]
    rotations = moved.c2w[:, :3, :3]
    torch.testing.assert_close(rotations @ rotations.mT, torch.eye(3, dtype=torch.float64).expand(7, 3, 3))
    torch.testing.assert_close(torch.linalg.det(rotations), torch.ones(7, dtype=torch.float64))
    home = torch.linalg.inv(similarity)
    torch.testing.assert_close(seen @ home[:3, :3].T + home[:3, 3], points)
    torch.testing.assert_close(moved.centres @ home[:3, :3].T + home[:3, 3], views.centres)


@given(st.floats(0.1, 10))
def test_the_unit_of_the_world_does_not_matter(unit):
    views, points = arc(5), torch.rand(30, 3, dtype=torch.float64)
    larger = views.c2w.clone()
    larger[:, :3, 3] *= unit
    _, expected, _ = normalise_world(views, points)
    _, found, _ = normalise_world(Cameras(larger, views.K, views.height, views.width), points * unit)
    torch.testing.assert_close(found.abs(), expected.abs(), atol=1e-8, rtol=0)


def test_upside_down_cameras_are_turned():
    views = arc(5)
    turned = views.c2w.clone()
    turned[:, :3, :2] *= -1
    moved, _, _ = normalise_world(
        Cameras(turned, views.K, views.height, views.width), torch.rand(9, 3, dtype=torch.float64)
    )
    assert bool(moved.c2w.isfinite().all())


@pytest.mark.parametrize("degrees", [10.0, 90.0, 170.0])
def test_a_tilted_world_is_turned_as_the_upright_one_is(degrees):
    """Up to the signs of the principal axes; centres are medians of coordinates, which depend on the tilt."""
    views, points = arc(5), torch.rand(9, 3, dtype=torch.float64)
    tilt = se3.rotation_about(
        torch.tensor([0.0, 0.3, 1.0], dtype=torch.float64), torch.tensor(degrees, dtype=torch.float64).deg2rad()
    )
    c2w = views.c2w.clone()
    c2w[:, :3] = tilt @ c2w[:, :3]
    _, _, upright = normalise_world(views, points)
    _, _, tilted = normalise_world(Cameras(c2w, views.K, views.height, views.width), points @ tilt.T)
    expected, found = (torch.nn.functional.normalize(each[:3, :3]) for each in (upright, tilted))
    torch.testing.assert_close((found @ tilt).abs(), expected.abs(), atol=1e-8, rtol=0)


def test_worlds_that_cannot_be_normalised():
    with pytest.raises(InputError) as caught:
        normalise_world(arc(3), torch.zeros(2, 3, dtype=torch.float64))
    assert str(caught.value) == "points: there are 2; give at least 3"
    with pytest.raises(InputError) as caught:
        normalise_world(Cameras.cat([arc(1), arc(1)]), torch.rand(9, 3, dtype=torch.float64))
    assert str(caught.value) == "cameras: most of them are in one place; give cameras that move"
