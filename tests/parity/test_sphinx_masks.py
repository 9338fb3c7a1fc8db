"""The research code's masks, benchmark, clusters and decisions, reproduced from recorded values: exactly."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from sphinx_nvs.assess.quality import eased_benchmark
from sphinx_nvs.assess.research import (
    HOLE_ALPHA,
    area_share,
    cleaned,
    inverted_detail,
    otsu_threshold,
    research_blur_mask,
)

POOLS = (8, 16, 32, 64)


@pytest.fixture(scope="module")
def golden(parity_dir):
    path = parity_dir / "sphinx_masks.safetensors"
    if not path.exists():
        pytest.skip(f"{path.name} is absent from {parity_dir}")
    return json.loads((parity_dir / "sphinx_masks.json").read_text()), load_file(path)


def unpacked(golden, name, width):
    return torch.from_numpy(np.unpackbits(golden[1][f"{name}.bits"].numpy(), axis=-1)[..., :width].astype(bool))


def cases(golden):
    found = [name for name, facts in golden[0].items() if isinstance(facts, dict) and "use_blur" in facts]
    assert found
    return found


def renders(golden):
    return golden[1]["rgb"].permute(0, 3, 1, 2).contiguous()


def test_detail_and_threshold(golden):
    info, tensors = golden
    found = inverted_detail(renders(golden)[0])
    assert torch.equal(found, tensors["blur.inverted0_u8"])
    assert otsu_threshold(found) == info["blur0"]["otsu_threshold"]


def test_blur_masks(golden):
    expected = unpacked(golden, "blur.blurry01", golden[1]["rgb"].shape[2])
    for view, mask in zip(renders(golden), expected, strict=True):
        assert torch.equal(research_blur_mask(view), mask)


def test_refined_pixels_of_every_case(golden):
    info, tensors = golden
    for case in cases(golden):
        width = info[case]["hw"][1]
        refined = holes = unpacked(golden, f"{case}.alpha_mask", width)
        if f"{case}.alpha" in tensors:
            assert torch.equal(holes, tensors[f"{case}.alpha"].float() < HOLE_ALPHA)
        if info[case]["use_blur"]:
            refined = holes | ~unpacked(golden, f"{case}.blurry01", width)
        mask = cleaned(refined.any(0))
        assert torch.equal(mask, unpacked(golden, f"{case}.coherent", width)), case
        assert 100 * area_share(mask) == pytest.approx(info[case]["masked_area_pct"], rel=1e-6)


def test_benchmark_curve(golden):
    for pair, curve in zip(golden[1]["bench.c0c1"], golden[1]["bench.curve_gamma0.5"], strict=True):
        found = eased_benchmark(pair[:1], pair[1:], golden[1]["bench.t"], 0.5)
        torch.testing.assert_close(found, curve, rtol=1e-5, atol=1e-5)
