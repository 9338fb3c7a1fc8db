"""The spiral through a capture's poses: laws (golden values are in tests/parity)."""

import torch
from geometry_strategies import arc

from sphinx_nvs.geometry.spiral import mean_pose, spiral_through


def test_it_looks_at_one_point_from_round_the_mean_pose():
    views = arc(5)
    path = spiral_through(views, 16, focus=4.0)
    pose = mean_pose(views)
    target = pose[:3, 3] + 4 * pose[:3, 2]
    ahead = torch.nn.functional.normalize(target - path.centres, dim=-1)
    torch.testing.assert_close(path.c2w[:, :3, 2], ahead)
    torch.testing.assert_close(path.centres[:8, 0].mean(), path.centres[8:, 0].mean())


def test_it_stays_within_the_radii():
    views = arc(5)
    radii = torch.tensor([0.3, 0.2, 0.1], dtype=torch.float64)
    pose = mean_pose(views)
    offsets = (spiral_through(views, 40, focus=4.0, radii=radii).centres - pose[:3, 3]) @ pose[:3, :3]
    torch.testing.assert_close(offsets.abs().amax(0), radii, atol=2e-2, rtol=0)
