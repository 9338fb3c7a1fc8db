"""Attention over several views' keys: the mask lies as the keys do, which is where the original code differs."""

import pytest
import torch

from sphinx_nvs.models.mvsplat.window_attention import Windows, windowed_attention


def attended(q, keys, values, mask):
    """Softmax attention as a formula."""
    scores = q @ keys.transpose(-1, -2) / q.shape[-1] ** 0.5
    return torch.softmax(scores if mask is None else scores + mask, dim=-1) @ values


def windows_of(num_others, is_shifted):
    """Queries of a view, and keys and values of `num_others` views, view after view and pixel after pixel."""
    rng = torch.Generator().manual_seed(num_others)
    windows = Windows(8, 12, is_shifted)
    views = torch.randn(2 * num_others + 1, 96, 6, generator=rng, dtype=torch.float64)
    cut = windows.cut(views)
    q, keys, values = cut[:1], cut[1 : 1 + num_others], cut[1 + num_others :]
    by_view = [x.transpose(0, 1).flatten(1, 2)[None] for x in (keys, values)]
    by_pixel = [x.permute(1, 2, 0, 3).flatten(1, 2)[None] for x in (keys, values)]
    return windows.mask(q), q, by_view, by_pixel


@pytest.mark.parametrize("num_others", [1, 2, 3])
@pytest.mark.parametrize("is_shifted", [False, True])
def test_each_key_has_the_mask_of_its_own_pixel(num_others, is_shifted):
    mask, q, by_view, by_pixel = windows_of(num_others, is_shifted)
    found = windowed_attention(q, *by_view, mask)
    own = None if mask is None else mask.repeat_interleave(num_others, dim=2)[None]
    torch.testing.assert_close(found, attended(q, *by_pixel, own))


@pytest.mark.parametrize("num_others", [1, 2, 3])
@pytest.mark.parametrize("is_shifted", [False, True])
def test_the_original_differs_by_its_mask_alone_and_only_beyond_pairs(num_others, is_shifted):
    mask, q, by_view, by_pixel = windows_of(num_others, is_shifted)
    laid = None if mask is None else mask.repeat(1, 1, num_others)[None]
    original = attended(q, *by_pixel, laid)
    is_same = torch.allclose(windowed_attention(q, *by_view, mask), original)
    assert is_same is (num_others == 1 or not is_shifted)
