"""Projection and its inverse; cropping and resizing move pixels, not rays."""

import torch
from geometry_strategies import arc, cameras, generator
from hypothesis import given
from hypothesis import strategies as st

from sphinx_nvs.geometry.projection import project, unproject
from sphinx_nvs.geometry.rays import pixel_centres


def close(a, b, atol=1e-8):
    torch.testing.assert_close(a, b, atol=atol, rtol=0)


def some_points(views, seed):
    """World points in front of every camera."""
    shape = (len(views), views.height, views.width)
    return unproject(views, 1 + torch.rand(shape, generator=generator(seed), dtype=torch.float64)).flatten(1, 2)


@given(cameras(), st.integers(0, 999))
def test_unproject_then_project_is_the_identity(views, seed):
    shape = (len(views), views.height, views.width)
    depth = 0.5 + torch.rand(shape, generator=generator(seed), dtype=torch.float64)
    pixels, z = project(views, unproject(views, depth).flatten(1, 2))
    close(z, depth.flatten(1))
    close(pixels, pixel_centres(views.height, views.width)[..., :2].flatten(0, 1).expand_as(pixels))


@given(cameras(), st.integers(1, 30), st.integers(1, 30), st.integers(0, 999))
def test_resizing_scales_pixel_positions(views, height, width, seed):
    points = some_points(views, seed)
    scale = torch.tensor([width / views.width, height / views.height], dtype=torch.float64)
    close(project(views.resized(height, width), points)[0], project(views, points)[0] * scale)


@given(cameras(), st.integers(0, 3), st.integers(0, 3), st.integers(0, 999))
def test_cropping_shifts_pixel_positions(views, top, left, seed):
    points = some_points(views, seed)
    cropped = views.cropped(top, left, views.height - top, views.width - left)
    close(
        project(cropped, points)[0],
        project(views, points)[0] - torch.tensor([left, top], dtype=torch.float64),
    )


@given(cameras())
def test_resizing_back_restores_the_cameras(views):
    close(views.resized(7, 5).resized(views.height, views.width).K, views.K)


def test_depth_behind_the_camera_is_negative():
    views = arc(2)
    _, depth = project(views, (views.centres - views.c2w[:, :3, 2])[:, None])
    close(depth, torch.full_like(depth, -1.0))
