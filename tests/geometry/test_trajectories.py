"""Presets: where they start, how far they go, what they refuse."""

import math

import pytest
import torch
from geometry_strategies import arc

from sphinx_nvs.errors import InputError
from sphinx_nvs.geometry import se3
from sphinx_nvs.geometry.cameras import Cameras
from sphinx_nvs.geometry.fov import fov_long_side, intrinsics_from_fov
from sphinx_nvs.geometry.trajectories import PRESETS, preset_path


def close(a, b, atol=1e-9):
    torch.testing.assert_close(a, b, atol=atol, rtol=0)


@pytest.fixture
def start():
    """A camera that is neither at the origin nor aligned with the axes."""
    return arc(3)[2]


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("num_frames", [1, 5])
def test_every_preset_begins_at_the_start_camera(start, name, num_frames):
    path = preset_path(name, start, num_frames)
    assert len(path) == num_frames
    close(path.c2w[0], start.c2w[0], atol=1e-8)
    close(path.K[0], start.K[0], atol=1e-8)


@pytest.mark.parametrize("name", PRESETS)
def test_a_path_moves_with_the_world(start, name):
    motion = se3.exp(torch.tensor([0.3, -0.2, 0.5, 1, 2, 3], dtype=torch.float64))
    moved = Cameras(motion @ start.c2w, start.K, start.height, start.width)
    close(preset_path(name, moved, 4).c2w, motion @ preset_path(name, start, 4).c2w, atol=1e-8)


@pytest.mark.parametrize("name", PRESETS)
def test_distances_follow_the_scale(start, name):
    once = preset_path(name, start, 4, scale=1.0).centres - start.centres
    thrice = preset_path(name, start, 4, scale=3.0).centres - start.centres
    close(thrice, 3 * once, atol=1e-8)


@pytest.mark.parametrize(
    ("name", "direction"),
    [
        ("move-forward", (0, 0, 1)),
        ("move-backward", (0, 0, -1)),
        ("move-up", (0, -1, 0)),
        ("move-down", (0, 1, 0)),
        ("move-left", (-1, 0, 0)),
        ("move-right", (1, 0, 0)),
    ],
)
def test_moves_go_where_their_names_say(start, name, direction):
    path = preset_path(name, start, 3, scale=2.0)
    expected = start.c2w[0, :3, :3] @ torch.tensor(direction, dtype=torch.float64)
    close(path.centres[2] - path.centres[0], 2 * 0.99 * expected)


def test_orbit_and_lemniscate_keep_looking_at_the_target(start):
    target = torch.tensor([0.3, 0.1, 4.0], dtype=torch.float64)
    for name in ("orbit", "lemniscate"):
        path = preset_path(name, start, 7, look_at=target)
        forward = (target - path.centres) / (target - path.centres).norm(dim=-1, keepdim=True)
        close(path.c2w[:, :3, 2], forward)
    distances = (preset_path("orbit", start, 7, look_at=target).centres - target).norm(dim=-1)
    close(distances, distances[:1].expand(7))


def test_zooms_change_the_angle_of_view_linearly_and_nothing_else(start):
    path = preset_path("zoom-out", start, 5, zoom_factor=1.4)
    first = float(fov_long_side(start)[0])
    close(fov_long_side(path), torch.linspace(first, 1.4 * first, 5, dtype=torch.float64))
    close(path.c2w, start.c2w.expand(5, 4, 4))
    close(path.K[:, 0, 0] / path.K[:, 1, 1], (start.K[0, 0, 0] / start.K[0, 1, 1]).expand(5))


def test_roll_turns_about_the_view_axis(start):
    path = preset_path("roll", start, 4)
    close(path.c2w[:, :3, 2], start.c2w[:, :3, 2].expand(4, 3))
    close(se3.rotation_angle(path.c2w[:1], path.c2w[1:2]), torch.tensor([math.pi / 2], dtype=torch.float64))


def test_unknown_preset(start):
    with pytest.raises(InputError) as error:
        preset_path("obrit", start, 3)
    assert str(error.value) == (
        "camera path: there is no preset 'obrit'; choose one of orbit, spiral, lemniscate, zoom-in, "
        "zoom-out, dolly zoom-in, dolly zoom-out, "
        "move-forward, move-backward, move-up, move-down, move-left, "
        "move-right, roll, interpolate"
    )


def test_zero_frames(start):
    with pytest.raises(InputError) as error:
        preset_path("orbit", start, 0)
    assert str(error.value) == "frames: 0 are requested; request at least 1"


def test_look_at_at_the_camera(start):
    with pytest.raises(InputError) as error:
        preset_path("orbit", start, 3, look_at=start.centres[0])
    assert str(error.value) == "look-at point: it is the start camera's own centre; give a point in front of it"


def test_zoom_beyond_a_half_circle():
    K = intrinsics_from_fov(10, 10, math.radians(150))[None]
    wide = Cameras(torch.eye(4)[None], K, 10, 10)
    with pytest.raises(InputError) as error:
        preset_path("zoom-out", wide, 3)
    assert str(error.value) == (
        "zoom-out: the angle of view would end at 225 degrees; give a zoom factor that keeps it in 0..180"
    )
