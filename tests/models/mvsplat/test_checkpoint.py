import pathlib
import sys
import types

import pytest
import torch
from safetensors.torch import save_file

from sphinx_nvs.errors import InputError
from sphinx_nvs.models.mvsplat import TINY, encoder_weights, load_mvsplat, random_mvsplat


@pytest.fixture(scope="module")
def weights():
    return {
        f"encoder.{name}": value for name, value in random_mvsplat(size="tiny", seed=3).encoder.state_dict().items()
    }


def same(regressor, weights):
    state = regressor.encoder.state_dict()
    return all(torch.equal(state[name.removeprefix("encoder.")], value) for name, value in weights.items())


def test_safetensors(tmp_path, weights):
    save_file(weights, tmp_path / "mvsplat.safetensors")
    assert same(load_mvsplat(tmp_path / "mvsplat.safetensors", config=TINY), weights)


def foreign(package):
    """A class that pickles under a name of a package that is then gone."""
    module = types.ModuleType(f"{package}.callbacks")
    module.State = type("State", (), {"__module__": f"{package}.callbacks"})
    return module


def save_with_foreign(path, package, weights, monkeypatch):
    module = foreign(package)
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, package, types.ModuleType(package))
        patch.setitem(sys.modules, module.__name__, module)
        state = module.State()
        state.where = pathlib.PurePosixPath("outputs")
        content = {"epoch": 3, "callbacks": {"last": state}, "optimizer_states": [{"lr": 1.0}], "state_dict": weights}
        torch.save(content, path)


def test_lightning_checkpoint(tmp_path, weights, monkeypatch):
    save_with_foreign(tmp_path / "re10k.ckpt", "pytorch_lightning", weights, monkeypatch)
    assert same(load_mvsplat(tmp_path / "re10k.ckpt", config=TINY), weights)


def test_other_objects_are_refused(tmp_path, weights, monkeypatch):
    save_with_foreign(tmp_path / "evil.ckpt", "evil", weights, monkeypatch)
    with pytest.raises(InputError, match=r"evil\.ckpt: beside tensors it holds evil\.callbacks\.State"):
        load_mvsplat(tmp_path / "evil.ckpt", config=TINY)


class Runs:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return pathlib.Path.touch, (self.path,)


def test_no_code_in_a_file_is_executed(tmp_path, weights):
    torch.save({"state_dict": weights, "extra": Runs(tmp_path / "ran")}, tmp_path / "bad.ckpt")
    with pytest.raises(InputError, match=r"bad.ckpt"):
        load_mvsplat(tmp_path / "bad.ckpt", config=TINY)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("name", ["a.ckpt", "a.safetensors"])
@pytest.mark.parametrize(
    "content", [b"", b"no weights", bytes(100), b"PK\x03\x04 cut off"], ids=["empty", "text", "zeros", "cut"]
)
def test_damaged_files_are_refused(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match="damaged"):
        load_mvsplat(tmp_path / name)


def test_missing_files_are_refused(tmp_path):
    with pytest.raises(InputError, match="there is no such file"):
        load_mvsplat(tmp_path / "none.ckpt")


def test_a_missing_tensor_is_named(tmp_path, weights):
    gone = "encoder.backbone.backbone.conv1.weight"
    save_file({k: v for k, v in weights.items() if k != gone}, tmp_path / "a.safetensors")
    with pytest.raises(InputError, match=f"it lacks tensor {gone};"):
        load_mvsplat(tmp_path / "a.safetensors", config=TINY)


def test_an_unknown_tensor_is_named(tmp_path, weights):
    save_file({**weights, "encoder.b": torch.zeros(1), "encoder.a": torch.zeros(1)}, tmp_path / "a.safetensors")
    with pytest.raises(InputError, match=r"it has an unknown tensor encoder\.a and 1 more"):
        load_mvsplat(tmp_path / "a.safetensors", config=TINY)


def test_a_wrong_shape_is_named(tmp_path, weights):
    save_file({**weights, "encoder.depth_predictor.to_disparity.2.bias": torch.zeros(3)}, tmp_path / "a.safetensors")
    with pytest.raises(InputError, match=r"to_disparity.2.bias has shape \(3,\) where \(2,\) is needed"):
        load_mvsplat(tmp_path / "a.safetensors", config=TINY)


@pytest.mark.parametrize("content", [{"state_dict": {"decoder.x": torch.zeros(1)}}, {"x": 1}, [1]])
def test_other_checkpoints_are_refused(tmp_path, content):
    torch.save(content, tmp_path / "a.ckpt")
    with pytest.raises(InputError, match="give the model's own checkpoint"):
        encoder_weights(tmp_path / "a.ckpt")


def test_random_weights_follow_the_seed_and_leave_the_generator_alone():
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    first, again, other = (random_mvsplat(size="tiny", seed=seed).encoder.state_dict() for seed in (1, 1, 2))
    assert torch.equal(torch.rand(1), expected)
    name = "backbone.backbone.conv1.weight"
    assert torch.equal(first[name], again[name])
    assert not torch.equal(first[name], other[name])


def test_an_unknown_size_is_refused():
    with pytest.raises(InputError, match="size: 'huge'; give one of full, tiny"):
        random_mvsplat(size="huge")
