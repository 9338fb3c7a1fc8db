"""MVSplat's encoder against tensors recorded from the original code: tiny with its weights, and the released sizes."""

import json

import pytest
import torch
from safetensors import safe_open

from sphinx_nvs.models.mvsplat.adapter import gaussians_from_pixels
from sphinx_nvs.models.mvsplat.encoder import Encoder
from sphinx_nvs.models.mvsplat.encoder_config import RELEASED, EncoderConfig, UNetShape

TINY, DEFAULT, RECIPE = (
    "mvsplat_tiny.safetensors",
    "mvsplat_default_noweights.safetensors",
    "mvsplat_default_params.json",
)
RELATIVE = 1e-4
INPUTS = ("image", "extrinsics", "intrinsics", "near", "far")
MIDDLE = ("trans_features", "cnn_features", "costvolume_and_feature_in", "costvolume_refined", "depth_logits")
OUTPUTS = ("means", "covariances", "harmonics", "opacities", "depths", "densities")
FAR_REACHING = ("means", "depths")  # inverse depth makes their noise large where they are


def read(path):
    """Tensors and metadata; skips where the file is absent."""
    if not path.is_file():
        pytest.skip(f"{path} is absent")
    with safe_open(path, "pt") as file:
        return {key: file.get_tensor(key) for key in file.keys()}, file.metadata()  # noqa: SIM118 (no mapping)


def config_from_metadata(text):
    params = json.loads(text)
    return EncoderConfig(
        feature_channels=params["d_feature"],
        num_depths=params["D_"],
        cost_unet=UNetShape(width=params["cv"], channel_mult=tuple(params["cvm"]), attention_at=tuple(params["cva"])),
        depth_unet=UNetShape(width=params["du"], channel_mult=tuple(params["dum"]), attention_at=tuple(params["dua"])),
        sh_degree=params["sh_degree"],
    )


def recorded(encoder, golden):
    """What the encoder computes, under the names of the golden file."""
    seen = {}
    predictor = encoder.depth_predictor

    def refined(module, args, output):
        seen["mid.costvolume_and_feature_in"], seen["mid.costvolume_refined"] = args[0], output

    hooks = [
        encoder.backbone.register_forward_hook(lambda module, args, output: seen.update(features=output)),
        predictor.corr_refine_net.register_forward_hook(refined),
        predictor.depth_head_lowres.register_forward_hook(
            lambda module, args, output: seen.update({"mid.depth_logits": output})
        ),
    ]
    with torch.no_grad():
        encoded = encoder(*(golden[f"in.{name}"][0] for name in INPUTS))
    for hook in hooks:
        hook.remove()
    seen["mid.trans_features"], seen["mid.cnn_features"] = seen.pop("features")
    for name in ("means", "covariances", "harmonics", "opacities"):
        seen[f"out.{name}"] = getattr(encoded.gaussians, name)
    seen["out.depths"], seen["out.densities"] = encoded.pixels.depth, encoded.pixels.density
    return seen


@pytest.fixture(scope="module")
def tiny(parity_dir):
    golden, info = read(parity_dir / TINY)
    encoder = Encoder(config_from_metadata(info["config"])).eval()
    prefix = "weights.encoder."
    weights = {key.removeprefix(prefix): value for key, value in golden.items() if key.startswith(prefix)}
    encoder.load_state_dict(weights, strict=True)
    return golden, recorded(encoder, golden)


@pytest.mark.parametrize("name", [f"mid.{name}" for name in MIDDLE] + [f"out.{name}" for name in OUTPUTS])
def test_tiny(tiny, relative, name):
    golden, seen = tiny
    found = seen[name].reshape(golden[name].shape)
    assert relative(found, golden[name]) < RELATIVE
    rtol = 5e-4 if name.endswith(FAR_REACHING) else 1e-4
    largest = float(golden[name].abs().max())
    torch.testing.assert_close(found, golden[name], rtol=rtol, atol=1e-4 * max(1.0, largest / 10))


def regenerated(recipe):
    """The released configuration's parameters, as the golden data's README draws them."""
    generator = torch.Generator().manual_seed(recipe["seed"])
    weights = {}
    for name, shape in recipe["parameters_in_order"]:
        draw = torch.randn(shape, generator=generator)
        if len(shape) > 1:
            weights[name] = draw / draw[0].numel() ** 0.5
        else:
            weights[name] = 1 + 0.2 * draw if name.endswith("weight") else 0.1 * draw
    for name, factor in (("depth_head_lowres", 0.3), ("to_disparity", 0.3), ("to_gaussians", 1.5)):
        weights[f"depth_predictor.{name}.2.weight"] *= factor
    return weights


@pytest.fixture(scope="module")
def released(parity_dir):
    golden, _ = read(parity_dir / DEFAULT)
    recipe = json.loads((parity_dir / RECIPE).read_text())
    encoder = Encoder(RELEASED).eval()
    encoder.load_state_dict(regenerated(recipe), strict=True)
    return golden, recipe, encoder, recorded(encoder, golden)


def test_regenerated_weights_are_those_of_the_recipe(released):
    _, recipe, encoder, _ = released
    parameters = dict(encoder.named_parameters())
    assert len(parameters) == len(recipe["parameters_in_order"])
    for name, (total, squares) in recipe["checks_sum_sumsq"].items():
        value = parameters[name].detach().double()
        assert float(value.sum()) == pytest.approx(total, abs=1e-3), name
        assert float(value.square().sum()) == pytest.approx(squares, rel=1e-5), name


@pytest.mark.parametrize("name", [name for name in OUTPUTS if name != "densities"])
def test_released_sizes(released, relative, name):
    golden, _, _, seen = released
    found = seen[f"out.{name}"]
    found = found if name == "depths" else found[golden["out.index"]]
    assert relative(found.reshape(golden[f"out.{name}"].shape), golden[f"out.{name}"]) < RELATIVE


def test_raw_parameters_and_what_becomes_of_them(released, relative):
    golden, _, _, _ = released
    index, shape = golden["out.index"], golden["out.depths"].shape[1:]
    raw = torch.zeros(len(golden["mid.raw_gaussians"][0][0]), golden["out.depths"].numel())
    raw[:, index] = golden["mid.raw_gaussians"][0].T
    density = torch.zeros(raw.shape[1])
    density[index] = golden["out.opacities"][0]
    gaussians = gaussians_from_pixels(
        raw.unflatten(1, shape).transpose(0, 1),
        golden["out.depths"][0],
        density.view(shape),
        golden["in.extrinsics"][0],
        golden["in.intrinsics"][0],
    )
    for name in ("means", "covariances", "harmonics", "opacities"):
        assert relative(getattr(gaussians, name)[index], golden[f"out.{name}"][0]) < RELATIVE, name
