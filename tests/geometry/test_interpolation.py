"""Paths through given cameras: ends included, even, blind to the choice of world frame."""

import pytest
import scipy.interpolate
import torch
from geometry_strategies import arc, cameras, twists
from hypothesis import given
from hypothesis import strategies as st

from sphinx_nvs.errors import InputError
from sphinx_nvs.geometry import se3
from sphinx_nvs.geometry.cameras import Cameras
from sphinx_nvs.geometry.interpolation import interpolate_path
from sphinx_nvs.geometry.views import path_lengths, pose_distances


def close(a, b, atol=1e-7):
    torch.testing.assert_close(a, b, atol=atol, rtol=0)


@given(cameras(num_views=4), st.integers(2, 9))
def test_the_path_passes_through_its_ends(views, num_frames):
    path = interpolate_path(views, num_frames)
    assert len(path) == num_frames
    for end in (0, -1):
        close(path.c2w[end], views.c2w[end])
        close(path.K[end], views.K[end])


@given(cameras(num_views=2), twists())
def test_the_path_moves_with_the_world(views, xi):
    motion = se3.exp(xi)
    moved = Cameras(motion @ views.c2w, views.K, views.height, views.width)
    close(interpolate_path(moved, 5).c2w, motion @ interpolate_path(views, 5).c2w, atol=1e-6)


@given(cameras(num_views=5), st.integers(2, 9))
def test_positions_lie_on_the_natural_cubic_spline(views, num_frames):
    knots = path_lengths(views).numpy()
    spline = scipy.interpolate.CubicSpline(knots, views.centres.numpy(), bc_type="natural")
    wanted = spline(torch.linspace(0, float(knots[-1]), num_frames, dtype=torch.float64).numpy())
    close(interpolate_path(views, num_frames).centres, torch.from_numpy(wanted), atol=1e-9 * float(knots[-1] + 1))


def test_the_path_passes_through_inner_cameras_and_is_even_on_an_arc():
    views = arc(5)
    path = interpolate_path(views, 9)
    close(path.c2w[::2], views.c2w, atol=1e-9)
    steps = pose_distances(path, path).diagonal(offset=1)
    assert float(steps.max() / steps.min()) < 1.05


def test_two_cameras_are_joined_by_a_line_and_an_arc():
    views = arc(2)
    middle = interpolate_path(views, 3)[1]
    close(middle.centres[0], views.centres.mean(dim=0))
    close(se3.rotation_angle(views.c2w[0], middle.c2w[0]), se3.rotation_angle(middle.c2w[0], views.c2w[1]))


def test_cameras_at_one_place_still_give_a_path():
    view = arc(1)
    path = interpolate_path(Cameras.cat([view, view]), 3)
    close(path.c2w, view.c2w.expand(3, 4, 4))


def test_one_camera_is_no_path():
    with pytest.raises(InputError) as error:
        interpolate_path(arc(1), 4)
    assert str(error.value) == "path interpolate: it has 1 context view; give at least 2, or choose a preset"


def test_one_frame_is_no_path():
    with pytest.raises(InputError) as error:
        interpolate_path(arc(2), 1)
    assert str(error.value) == "path interpolate: 1 frames are requested; request at least 2"
