"""Look-at point and the scene's scale."""

import torch
from geometry_strategies import arc

from sphinx_nvs.geometry.cameras import Cameras
from sphinx_nvs.geometry.focus import focus_distance, is_converging, look_at_point


def parallel():
    """Three cameras side by side, 1 apart, looking the same way."""
    views = arc(1)
    c2w = views.c2w.repeat(3, 1, 1)
    c2w[:, 0, 3] += torch.arange(3, dtype=torch.float64)
    return Cameras(c2w, views.K.expand(3, 3, 3), views.height, views.width)


def test_cameras_on_an_arc_look_at_its_centre():
    target = torch.tensor([0.0, 0, 4], dtype=torch.float64)
    torch.testing.assert_close(look_at_point(arc(5)), target, atol=1e-9, rtol=0)
    assert is_converging(arc(5))
    assert abs(focus_distance(arc(5)) - 4) < 1e-9


def test_cameras_that_look_away_from_each_other_do_not_converge():
    views = arc(5)
    backwards = Cameras(views.c2w * torch.tensor([-1.0, 1, -1, 1]), views.K, views.height, views.width)
    assert not is_converging(backwards)


def test_parallel_cameras_fall_back_to_their_baseline():
    assert not is_converging(parallel())
    assert abs(focus_distance(parallel()) - 5 * 2 / 2) < 1e-9
    assert abs(focus_distance(parallel()[:2]) - 5) < 1e-9


def test_a_known_depth_wins_and_a_lone_camera_gets_sevas_unit():
    assert focus_distance(arc(5), median_depth=2.5) == 2.5
    assert focus_distance(arc(1)) == 10
