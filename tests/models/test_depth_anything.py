import math

import pytest
import torch

from sphinx_nvs.errors import InputError
from sphinx_nvs.geometry.cameras import Cameras
from sphinx_nvs.models.base import Reconstruction, Regressor
from sphinx_nvs.models.depth_anything import DepthAnything, DepthAnythingNetwork, load_depth_anything
from sphinx_nvs.models.embedded.shipped import load_nano
from sphinx_nvs.models.planesweep import PlaneSweep
from sphinx_nvs.pipeline.pipeline import Pipeline
from sphinx_nvs.procedural import procedural_views
from sphinx_nvs.scene.scene import Scene


@pytest.fixture(scope="module")
def world():
    rgb, depth, cameras, _ = procedural_views(3, 5, 64, 96, motion="walk")
    pair = [0, 2]
    return Scene(name="world", images=rgb[pair], cameras=cameras[pair]), depth[pair], cameras


@pytest.fixture(scope="module")
def sweep(world):
    return PlaneSweep().reconstruct(world[0])


def unconfirmed_error(reconstruction, depth, confidence):
    """Median relative error of inverse depth where plane sweep is unconfident."""
    return (reconstruction.inverse_depth * depth - 1).abs()[confidence < 0.1].median()


def test_unconfirmed_depth_comes_from_the_network(world, sweep):
    scene, depth, _ = world
    found = DepthAnything(lambda images: 7 / depth + 0.3).reconstruct(scene)
    assert unconfirmed_error(found, depth, sweep.confidence) < 0.05
    assert unconfirmed_error(sweep, depth, sweep.confidence) > 2 * unconfirmed_error(found, depth, sweep.confidence)


def test_confirmed_depth_stays(world, sweep):
    scene, _, _ = world
    found = DepthAnything(lambda images: torch.rand(images[:, 0].shape)).reconstruct(scene)
    sure = sweep.confidence > 0.99
    assert torch.allclose(found.inverse_depth[sure], sweep.inverse_depth[sure], rtol=0.05)
    assert torch.equal(found.confidence, sweep.confidence)


@pytest.mark.parametrize("nonsense", [lambda r: 0 * r, lambda r: -r])
def test_a_network_without_positive_correlation_is_ignored(world, sweep, nonsense):
    scene, depth, _ = world
    found = DepthAnything(lambda images: nonsense(1 / depth)).reconstruct(scene)
    assert torch.equal(found.inverse_depth, sweep.inverse_depth)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A tiny untrained network, saved as transformers saves them."""
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    backbone = transformers.Dinov2Config(
        hidden_size=32,
        num_hidden_layers=4,
        num_attention_heads=2,
        image_size=56,
        patch_size=14,
        out_indices=[1, 2, 3, 4],
        reshape_hidden_states=False,
    )
    config = transformers.DepthAnythingConfig(
        backbone_config=backbone,
        patch_size=14,
        reassemble_hidden_size=32,
        neck_hidden_sizes=[8, 8, 16, 16],
        fusion_hidden_size=16,
        head_hidden_size=8,
    )
    path = tmp_path_factory.mktemp("depth-anything")
    torch.manual_seed(0)
    transformers.DepthAnythingForDepthEstimation(config).save_pretrained(path)
    return path


def test_the_plug_in_point_takes_a_public_package(folder, world):
    """From a folder of weights to frames, without registering the regressor anywhere."""
    scene, _, cameras = world
    regressor = load_depth_anything(folder)
    assert isinstance(regressor, Regressor)
    assert isinstance(regressor.reconstruct(scene), Reconstruction)
    pipeline = Pipeline(regressor=regressor, denoiser=load_nano(), num_steps=2)
    result = pipeline(scene, Cameras(cameras.c2w[1:2], cameras.K[1:2], 64, 96), quality=1.0)
    assert result.frames.shape == (1, 3, 64, 96)
    assert torch.isfinite(result.frames).all()


@pytest.mark.parametrize("size", [(64, 96), (33, 20)])
def test_any_photo_size(folder, size):
    network = load_depth_anything(folder).monocular
    small = DepthAnythingNetwork(network.model, short_side=56)
    images = torch.rand(2, 3, *size)
    assert small(images).shape == (2, *size)
    assert not math.isnan(float(small(images).sum()))


def test_a_folder_without_a_network_is_refused(tmp_path):
    pytest.importorskip("transformers", reason="transformers is not installed")
    with pytest.raises(InputError, match=r"there is no config\.json; give a folder"):
        load_depth_anything(tmp_path)


def test_a_folder_without_weights_is_refused(folder, tmp_path):
    (tmp_path / "config.json").write_bytes((folder / "config.json").read_bytes())
    with pytest.raises(InputError, match="no Depth Anything network can be read"):
        load_depth_anything(tmp_path)
