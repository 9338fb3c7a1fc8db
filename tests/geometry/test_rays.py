"""Rays and Plücker coordinates: laws."""

import torch
from geometry_strategies import cameras, twists
from hypothesis import given
from hypothesis import strategies as st

from sphinx_nvs.geometry import se3
from sphinx_nvs.geometry.cameras import Cameras
from sphinx_nvs.geometry.rays import plucker, rays


def close(a, b, atol=1e-9):
    torch.testing.assert_close(a, b, atol=atol, rtol=0)


@given(cameras(), st.floats(-5, 5))
def test_plucker_does_not_change_when_the_origin_slides_along_the_ray(views, distance):
    origins, directions = rays(views)
    moved = torch.linalg.cross(origins + distance * directions, directions)
    close(moved, torch.linalg.cross(origins, directions))


@given(cameras(), twists())
def test_plucker_does_not_change_under_a_rigid_motion_of_the_world(views, xi):
    moved = Cameras(se3.exp(xi) @ views.c2w, views.K, views.height, views.width)
    close(plucker(moved), plucker(views), atol=1e-5)


@given(cameras())
def test_plucker_is_a_unit_direction_and_a_moment_at_right_angles(views):
    direction, moment = plucker(views).double().split(3, dim=1)
    close(direction.norm(dim=1), torch.ones_like(direction[:, 0]), atol=1e-5)
    close((direction * moment).sum(dim=1), torch.zeros_like(direction[:, 0]), atol=1e-5)


@given(cameras())
def test_plucker_of_the_first_camera_has_no_moment_and_a_reference_moves_that(views):
    assert float(plucker(views)[0, 3:].abs().max()) < 1e-6
    assert float(plucker(views, reference=views.c2w[1])[1, 3:].abs().max()) < 1e-6


@given(cameras(), st.integers(1, 3))
def test_a_coarse_grid_casts_rays_through_the_centres_of_its_cells(views, factor):
    fine = views.resized(views.height * (2 * factor + 1), views.width * (2 * factor + 1))
    _, coarse = rays(fine, views.height, views.width)
    _, every = rays(fine)
    step = 2 * factor + 1
    close(every[:, factor::step, factor::step], coarse)


def test_the_first_pixel_centre_is_half_a_pixel_from_the_corner():
    K = torch.tensor([[[2.0, 0, 1.5], [0, 4.0, 2.5], [0, 0, 1]]])
    _, directions = rays(Cameras(torch.eye(4)[None], K, 4, 3))
    expected = torch.tensor([(0.5 - 1.5) / 2, (0.5 - 2.5) / 4, 1], dtype=torch.float64)
    close(directions[0, 0, 0], expected / expected.norm())
