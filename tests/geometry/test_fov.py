"""Angles of view."""

import math

import pytest
import torch

from sphinx_nvs.errors import InputError
from sphinx_nvs.geometry.cameras import Cameras
from sphinx_nvs.geometry.fov import fov_between_borders, fov_long_side, intrinsics_from_fov, zoomed


def camera(height, width, fov):
    return Cameras(torch.eye(4)[None], intrinsics_from_fov(height, width, fov)[None], height, width)


@pytest.mark.parametrize(("height", "width"), [(90, 160), (160, 90), (64, 64)])
def test_the_longer_side_spans_the_angle(height, width):
    views = camera(height, width, 1.1)
    assert abs(float(fov_long_side(views)) - 1.1) < 1e-12
    assert abs(float(fov_between_borders(views).max()) - 1.1) < 1e-12


def test_borders_see_an_off_centre_principal_point():
    K = torch.tensor([[[1.0, 0, 0], [0, 1, 1], [0, 0, 1]]])
    horizontal, vertical = fov_between_borders(Cameras(torch.eye(4)[None], K, 2, 1))[0].tolist()
    assert abs(horizontal - math.pi / 4) < 1e-12
    assert abs(vertical - math.pi / 2) < 1e-12


def test_zoomed_reaches_the_angle_and_keeps_the_pixel_aspect():
    views = zoomed(camera(90, 160, 1.1), torch.tensor([0.4]))
    assert abs(float(fov_long_side(views)) - 0.4) < 1e-7
    assert float(views.K[0, 0, 0]) == float(views.K[0, 1, 1])


def test_an_angle_of_a_half_circle_is_refused():
    with pytest.raises(InputError) as error:
        intrinsics_from_fov(4, 4, math.pi)
    assert str(error.value) == "field of view: it is 3.14159 rad; give an angle between 0 and pi radians"
