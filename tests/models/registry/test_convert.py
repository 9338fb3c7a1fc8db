"""Pickled checkpoints are converted to tensors without executing their code."""

import os
import pathlib
import pickle
import sys
import types

import pytest
import torch
from safetensors.torch import load_file

from sphinx_nvs.errors import InputError
from sphinx_nvs.models.mvsplat import load_mvsplat, random_mvsplat
from sphinx_nvs.models.registry.cards import CARDS
from sphinx_nvs.models.registry.convert import is_pickled, tensors_from_pickle
from sphinx_nvs.models.registry.installation import adopt, verify
from sphinx_nvs.models.registry.resolution import locate


class Evil:
    """Runs a command when it is unpickled."""

    def __init__(self, marker: pathlib.Path) -> None:
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch {self.marker}",)


@pytest.fixture
def checkpoint(tmp_path, tensors, monkeypatch) -> pathlib.Path:
    """A Lightning checkpoint: weights, other models' weights, optimizer, settings of missing classes."""
    module = types.ModuleType("omegaconf.dictconfig")
    config = type("DictConfig", (), {"__module__": "omegaconf.dictconfig", "__qualname__": "DictConfig"})
    module.DictConfig = config
    monkeypatch.setitem(sys.modules, "omegaconf", types.ModuleType("omegaconf"))
    monkeypatch.setitem(sys.modules, "omegaconf.dictconfig", module)
    settings = config()
    settings.content = {"lr": 1e-4, "where": pathlib.PurePosixPath("data")}
    path = tmp_path / "toy.ckpt"
    torch.save(
        {
            "epoch": 3,
            "state_dict": {**tensors, "losses.lpips": torch.rand(5)},
            "optimizer_states": [{"state": {0: {"exp_avg": torch.rand(2, 3)}}}],
            "hyper_parameters": settings,
        },
        path,
    )
    monkeypatch.delitem(sys.modules, "omegaconf.dictconfig")
    monkeypatch.delitem(sys.modules, "omegaconf")
    return path


def _refused(path: pathlib.Path) -> str:
    with pytest.raises(InputError) as caught:
        tensors_from_pickle(path, "encoder.")
    return str(caught.value)


def test_only_the_models_tensors_are_kept(checkpoint, tensors):
    found = tensors_from_pickle(checkpoint, "encoder.")
    assert found.keys() == tensors.keys()
    assert all(torch.equal(found[name], tensors[name]) for name in tensors)
    assert "omegaconf" not in sys.modules


def test_a_bare_state_dict(tmp_path, tensors):
    torch.save(tensors, tmp_path / "bare.pt")
    assert tensors_from_pickle(tmp_path / "bare.pt").keys() == tensors.keys()


def test_adoption_converts_once(home, card, checkpoint, tensors):
    record = adopt(card, checkpoint)
    assert locate(card).suffix == ".safetensors"
    assert load_file(locate(card)).keys() == tensors.keys()
    assert verify(card) == record


def test_code_is_refused_by_name_and_never_executed(home, card, tmp_path, tensors):
    marker, path = tmp_path / "marker", tmp_path / "evil.ckpt"
    torch.save({"state_dict": tensors, "surprise": Evil(marker)}, path)
    expected = (
        f"checkpoint {path}: beside tensors it holds {os.system.__module__}.system; "
        "use it only if you trust it: save its state_dict alone with torch.save, then install that"
    )
    assert _refused(path) == expected
    with pytest.raises(InputError):
        adopt(card, path)
    assert not marker.exists()
    assert not home.exists() or not list(home.iterdir())


def test_an_old_bare_pickle_is_refused_and_never_executed(home, card, tmp_path):
    marker, path = tmp_path / "marker", tmp_path / "evil.pt"
    path.write_bytes(pickle.dumps({"state_dict": Evil(marker)}))
    assert is_pickled(path)
    assert _refused(path).startswith(f"checkpoint {path}: it is damaged or not a checkpoint (")
    assert not marker.exists()


def test_a_truncated_checkpoint(checkpoint):
    checkpoint.write_bytes(checkpoint.read_bytes()[:-100])
    assert _refused(checkpoint).startswith(f"checkpoint {checkpoint}: it is damaged or not a checkpoint (")


@pytest.mark.parametrize("content", [{"state_dict": {"other.x": torch.zeros(1)}}, [torch.zeros(1)]])
def test_a_checkpoint_of_something_else(tmp_path, content):
    path = tmp_path / "other.ckpt"
    torch.save(content, path)
    assert _refused(path) == (f"checkpoint {path}: it has no tensors named encoder.*; give the model's own checkpoint")


def test_mvsplat_in_its_authors_format_works_after_adoption(home, tmp_path):
    """The true names and shapes, with random numbers: what a user does who has re10k.ckpt."""
    state = {f"encoder.{name}": value for name, value in random_mvsplat(seed=3).encoder.state_dict().items()}
    torch.save({"state_dict": state, "global_step": 300_000}, tmp_path / "re10k.ckpt")
    record = adopt(CARDS["mvsplat-re10k"], tmp_path)
    assert (record.num_tensors, record.num_parameters) == (471, 11_955_734)
    loaded = load_mvsplat(locate(CARDS["mvsplat-re10k"])).encoder.state_dict()
    assert all(torch.equal(loaded[name.removeprefix("encoder.")], value) for name, value in state.items())
