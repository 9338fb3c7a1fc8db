"""Frames of any size: what is computed beyond them, and what is left of it."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sphinx_nvs.geometry.cameras import Cameras
from sphinx_nvs.geometry.padding import cropped_cells, cropped_frames, padded_cameras, padded_size


@given(st.integers(1, 4000), st.integers(1, 4000), st.sampled_from((8, 32, 64)))
def test_the_padded_size_is_the_least_multiple_that_holds_the_frame(height, width, multiple):
    for side, padded in zip((height, width), padded_size(height, width, multiple), strict=True):
        assert padded % multiple == 0
        assert 0 <= padded - side < multiple


def test_padding_keeps_every_pixel_of_the_frame_where_it_is():
    cameras = Cameras(torch.eye(4)[None], torch.tensor([[[50.0, 0, 20], [0, 50, 15], [0, 0, 1]]]), 30, 40)
    padded = padded_cameras(cameras, 32)
    assert (padded.height, padded.width) == (32, 64)
    assert torch.equal(padded.K, cameras.K)
    assert torch.equal(padded.c2w, cameras.c2w)
    frames = torch.arange(32 * 64.0).view(1, 1, 32, 64)
    assert cropped_frames(frames, 30, 40)[0, 0, 29, 39] == 29 * 64 + 39


@pytest.mark.parametrize(("size", "cells"), [((111, 333), (14, 42)), ((128, 352), (16, 44)), ((97, 321), (13, 41))])
def test_cells_under_the_frame_are_kept(size, cells):
    assert cropped_cells(torch.zeros(3, 16, 44), *size, multiple=32).shape == (3, *cells)
