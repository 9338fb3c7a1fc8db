"""Pictures and weights for tests of metrics."""

from pathlib import Path

import pytest
import torch

from sphinx_nvs.evaluation.weights import SETUP, weights_path
from sphinx_nvs.media import read_image

DATA = Path(__file__).parent / "data"


def example(name: str) -> torch.Tensor:
    """One of LPIPS' published example pictures, `1 3 64 64`."""
    return read_image(DATA / f"ex_{name}.png")[None]


def need_weights(*names: str) -> None:
    lacking = [name for name in names if not weights_path(name).is_file()]
    if lacking:
        pytest.skip(f"weights missing: {', '.join(lacking)}; run {SETUP}")


def photo(side: int = 176) -> torch.Tensor:
    """A picture with structure at every scale, `1 3 side side`."""
    generator = torch.Generator().manual_seed(0)
    layers = []
    for cells in (4, 16, side):
        noise = torch.rand(1, 3, cells, cells, generator=generator)
        layers.append(torch.nn.functional.interpolate(noise, size=(side, side), mode="bilinear"))
    return torch.stack(layers).mean(0)
