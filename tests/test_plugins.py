"""The code in docs/plugins.md is the plug-in point's test: it is run as it stands there."""

import re
from pathlib import Path

import pytest
import torch

from sphinx_nvs import presets
from sphinx_nvs.geometry.cameras import Cameras
from sphinx_nvs.models.base import Reconstruction, Regressor
from sphinx_nvs.pipeline.pipeline import Pipeline
from sphinx_nvs.scene.scene import Scene

PAGE = Path(__file__).parents[1] / "docs" / "plugins.md"


def blocks():
    return re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)


def cameras(x):
    c2w = torch.eye(4).repeat(len(x), 1, 1)
    c2w[:, 0, 3] = torch.tensor(x)
    K = torch.tensor([[60.0, 0, 32], [0, 60.0, 32], [0, 0, 1]]).repeat(len(x), 1, 1)
    return Cameras(c2w, K, 64, 64)


@pytest.fixture
def scene():
    return Scene(name="noise", images=torch.rand(2, 3, 64, 64), cameras=cameras([0.0, 1.0]))


@pytest.fixture
def page(monkeypatch):
    """What the page's code defines, once it has run."""
    monkeypatch.setattr(presets, "_PRESETS", dict(presets._PRESETS))
    names = {"__name__": "page"}
    for block in blocks():
        exec(block, names)
    return names


def test_the_least_regressor_meets_the_protocol(page, scene):
    regressor = page["NearestPhoto"]()
    assert isinstance(regressor, Regressor)
    reconstruction = regressor.reconstruct(scene)
    assert isinstance(reconstruction, Reconstruction)
    assert torch.equal(reconstruction.render(cameras([0.9])).rgb[0], scene.images[1])


def test_a_pipeline_and_a_preset_run_it(page, scene):
    pipeline = page["pipeline"]
    assert isinstance(pipeline, Pipeline)
    assert pipeline.regressor.name == "nearest-photo"
    result = pipeline(scene, cameras([0.9]), quality=1.0)
    assert result.frames.shape == (1, 3, 64, 64)
    assert len(result.steps) > 0


def test_every_file_the_page_names_is_there():
    root = PAGE.parents[1]
    for name in re.findall(r"`((?:models|tests|assess|scene)/[\w/.]+)`", PAGE.read_text()):
        assert (root / "src" / "sphinx_nvs" / name).exists() or (root / name).exists(), name
