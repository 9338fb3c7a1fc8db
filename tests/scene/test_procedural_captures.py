"""Procedural scenes by name."""

import torch

from sphinx_nvs.scene.procedural_captures import read_generated


def test_a_name_gives_the_same_capture_each_time():
    first, second = (read_generated("procedural:room:3", num_views=3, height=16, width=24) for _ in range(2))
    assert first.name == "room-3"
    assert (first.splits[2].train_ids, first.splits[2].test_ids) == ((0, 2), (1,))
    assert torch.equal(first.load([0, 1, 2], 16, 24).images, second.load([0, 1, 2], 16, 24).images)
