"""Cameras: what they refuse, word for word, and how they are picked and joined."""

import math

import pytest
import torch
from geometry_strategies import arc
from jaxtyping import TypeCheckError

from sphinx_nvs.errors import InputError
from sphinx_nvs.geometry.cameras import Cameras

POSE = torch.eye(4)
K = torch.tensor([[10.0, 0, 4], [0, 10, 3], [0, 0, 1]])


def pose(**entries):
    """The identity with entries like _03 (row 0, column 3) replaced."""
    out = POSE.clone()
    for key, value in entries.items():
        out[int(key[1]), int(key[2])] = value
    return out


def intrinsics(**entries):
    out = K.clone()
    for key, value in entries.items():
        out[int(key[1]), int(key[2])] = value
    return out


@pytest.mark.parametrize(
    ("c2w", "k", "size", "expected"),
    [
        (
            pose(_03=math.nan),
            K,
            (6, 8),
            "pose of view 0: a value is NaN or infinite; give a finite 4x4 camera-to-world matrix",
        ),
        (pose(_11=0), K, (6, 8), "pose of view 0: its rotation is singular (determinant 0); give a rotation"),
        (pose(_22=-1), K, (6, 8), "pose of view 0: its rotation mirrors (determinant -1); give a proper rotation"),
        (
            pose(_00=2),
            K,
            (6, 8),
            "pose of view 0: R R^T differs from identity by 3; give a rotation without scale or shear",
        ),
        (
            pose(_00=2, _11=2, _22=2),
            K,
            (6, 8),
            "pose of view 0: R R^T differs from identity by 3: it scales by 2; give a rotation without scale or shear",
        ),
        (pose(_31=0.5), K, (6, 8), "pose of view 0: its last row is 0 0.5 0 1; give 0 0 0 1 there"),
        (POSE, intrinsics(_00=-5), (6, 8), "K of view 0: fx is -5; give a focal length above 0 pixels"),
        (POSE, intrinsics(_11=0), (6, 8), "K of view 0: fy is 0; give a focal length above 0 pixels"),
        (POSE, intrinsics(_02=math.inf), (6, 8), "K of view 0: a value is NaN or infinite; give finite intrinsics"),
        (POSE, K, (0, 8), "image size: 8x0; give at least 1x1 pixels"),
    ],
)
def test_what_cannot_be(c2w, k, size, expected):
    with pytest.raises(InputError) as error:
        Cameras(c2w[None], k[None], *size)
    assert str(error.value) == expected


def test_each_pose_needs_intrinsics():
    # Where shapes in signatures are checked, that check comes first.
    with pytest.raises((InputError, TypeCheckError)) as error:
        Cameras(POSE.expand(2, 4, 4), K.expand(3, 3, 3), 6, 8)
    if error.type is InputError:
        assert str(error.value) == "cameras: 2 poses but 3 intrinsics; give one K per pose"


def test_cameras_are_float64_whatever_comes_in():
    cameras = Cameras(POSE[None], K[None], 6, 8)
    assert cameras.c2w.dtype == cameras.K.dtype == torch.float64


def test_picking_keeps_the_view_axis():
    views = arc(4)
    assert len(views[2]) == 1
    assert torch.equal(views[2].c2w, views.c2w[2:3])
    assert torch.equal(views[[3, 0]].K, views.K[[3, 0]])
    assert len(views[1:3]) == 2


def test_joining_needs_one_size():
    views = arc(2)
    assert len(Cameras.cat([views, views])) == 4
    with pytest.raises(InputError) as error:
        Cameras.cat([views, views.resized(7, 9)])
    assert str(error.value) == "cameras: image sizes [(7, 9), (24, 32)]; bring all views to one size first"


def test_world_to_camera_is_the_inverse_and_k_norm_is_per_side():
    views = arc(3)
    torch.testing.assert_close(views.w2c @ views.c2w, torch.eye(4, dtype=torch.float64).expand(3, 4, 4))
    assert views.K_norm[0, :2].tolist() == [[30 / 32, 0, 0.5], [0, 30 / 24, 0.5]]
