"""Tours through cameras in any order."""

import pytest
import torch

from sphinx_nvs.geometry.cameras import Cameras
from sphinx_nvs.geometry.tours import along_tour, tour


def row(places):
    """Cameras beside one another at these places."""
    c2w = torch.eye(4, dtype=torch.float64).repeat(len(places), 1, 1)
    c2w[:, 0, 3] = torch.tensor(places, dtype=torch.float64)
    return Cameras(c2w, torch.eye(3, dtype=torch.float64).expand(len(places), 3, 3), 1, 1)


@pytest.mark.parametrize("count", [3, 6, 9, 10, 25])
def test_a_shuffled_row_is_visited_from_end_to_end(count):
    order = torch.randperm(count, generator=torch.Generator().manual_seed(count)).tolist()
    places = along_tour(row(order)).centres[:, 0].tolist()
    assert places in (sorted(places), sorted(places, reverse=True))


def test_a_row_in_order_stays():
    cameras = row([0, 1, 2, 3])
    assert along_tour(cameras) is cameras


def test_a_tour_that_is_hardly_shorter_changes_nothing():
    angles = torch.arange(6) * (2 * torch.pi / 7)
    ring = torch.stack([angles.cos(), angles.sin()], dim=1).double()
    assert tour(torch.cdist(ring, ring)) == list(range(6))
