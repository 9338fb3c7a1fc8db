"""The paper's rules and benchmark curve against values recorded from the research code."""

import pytest
import torch
from safetensors.torch import load_file

from sphinx_nvs.assess.quality import benchmark_quality
from sphinx_nvs.geometry import Cameras
from sphinx_nvs.plan import PAPER_PROFILE


@pytest.fixture(scope="module")
def golden(parity_dir):
    path = parity_dir / "sphinx_masks.safetensors"
    if not path.exists():
        pytest.skip(f"{path.name} is absent from {parity_dir}")
    return load_file(path)


@pytest.mark.parametrize("quality", [0.95, 0.98])
def test_start_steps_equal_the_released_rules(golden, quality):
    recorded = golden[f"rules.k_{round(quality * 100)}"]
    for cluster, row in enumerate(recorded):
        ours = [PAPER_PROFILE.start_step(float(x), quality, cluster, 50) for x in golden["rules.ratio"]]
        assert ours == row.tolist()


def test_benchmark_curve_equals_the_recorded_one(golden):
    t = golden["bench.t"].double()
    c2w = torch.eye(4, dtype=torch.float64).repeat(len(t) + 2, 1, 1)
    c2w[:, 0, 3] = torch.cat([torch.tensor([0.0, 1.0]), t])
    K = torch.tensor([[10.0, 0, 5], [0, 10, 5], [0, 0, 1]]).repeat(len(c2w), 1, 1)
    cameras = Cameras(c2w, K, 10, 10)
    for pair, curve in zip(golden["bench.c0c1"], golden["bench.curve_gamma0.5"], strict=True):
        ours = benchmark_quality(pair, cameras[:2], cameras[2:], power=0.5)
        torch.testing.assert_close(ours, curve, rtol=1e-5, atol=1e-5)
