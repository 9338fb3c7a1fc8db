import runpy
import sys
from pathlib import Path

import pytest
import torch

from sphinx_nvs.training.batches import Pool
from sphinx_nvs.training.samples import make_sample, save_samples


@pytest.fixture(scope="session")
def pool(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pool")
    samples = [make_sample(seed, num_views=5, size=32, real_share=0.0) for seed in range(4)]
    save_samples([s for s in samples if s is not None], folder / "a.safetensors")
    return Pool(folder)


@pytest.fixture
def samples(pool):
    return pool.draw(2, torch.Generator().manual_seed(0))


@pytest.fixture
def train_pair(monkeypatch):
    """Runs `scripts/train_pair.py` in this process with these arguments; the sentence with which it refuses them."""
    script = Path(__file__).parents[2] / "scripts" / "train_pair.py"

    def run(*words):
        monkeypatch.setattr(sys, "argv", [str(script), *map(str, words)])
        try:
            runpy.run_path(str(script), run_name="__main__")
        except SystemExit as leaving:
            return leaving.code
        return None

    return run
