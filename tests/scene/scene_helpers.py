"""Small scenes on disk, in every layout, for the readers' tests."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from sphinx_nvs.errors import InputError
from sphinx_nvs.geometry import se3
from sphinx_nvs.geometry.cameras import Cameras


def some_cameras(num_views=3, height=12, width=16):
    """Cameras in general position, with off-centre principal points."""
    rng = torch.Generator().manual_seed(num_views)
    c2w = se3.exp(torch.randn(num_views, 6, generator=rng, dtype=torch.float64))
    K = torch.tensor([[20.0, 0, 7.5], [0, 21, 6.25], [0, 0, 1]], dtype=torch.float64).repeat(num_views, 1, 1)
    K[:, 0, 0] += torch.arange(num_views)
    return Cameras(c2w, K, height, width)


def save_photo(path, height=12, width=16, level=None, **options):
    """A gradient, or a constant grey level, as an image file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    y, x = np.mgrid[:height, :width]
    pixels = np.stack([255 * x / width, 255 * y / height, np.full_like(x, 90)], axis=-1)
    if level is not None:
        pixels[:] = level
    Image.fromarray(pixels.astype(np.uint8)).save(path, **options)


def write_json(path, data):
    path.write_text(data if isinstance(data, str) else json.dumps(data))
    return path


def sentence(call, *args):
    """The text of the InputError that `call` raises."""
    with pytest.raises(InputError) as error:
        call(*args)
    return str(error.value)


def close(a, b, atol=1e-9):
    torch.testing.assert_close(a, b, atol=atol, rtol=0)
