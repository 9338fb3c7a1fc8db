"""The research code's masks, benchmark, clusters and decisions, reproduced from recorded values: exactly."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from sphinx_nvs.assess.quality import eased_benchmark
from sphinx_nvs.plan import PAPER_PROFILE, Profile
from sphinx_nvs.plan.rules import GOOD_START
from sphinx_nvs.released_code.masks import (
    HOLE_ALPHA,
    area_share,
    cleaned,
    inverted_detail,
    otsu_threshold,
    research_blur_mask,
)
from sphinx_nvs.released_code.released_network import Part
from sphinx_nvs.released_code.released_plan import TILED_BELOW, refined_cells, start_steps

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


def test_cells_of_every_case(golden):
    info, tensors = golden
    for case in cases(golden):
        mask = unpacked(golden, f"{case}.coherent", info[case]["hw"][1])
        area = area_share(mask)
        for factor in POOLS:
            pooled = tensors[f"{case}.p{factor}"].bool()
            cells = refined_cells(mask, area, factor)
            assert torch.equal(cells, pooled) if info[case]["sparse_mask_used"] else bool(cells.all())
        if f"{case}.block" in tensors:
            part = Part.of(torch.arange(1), refined_cells(mask, area, POOLS[0]), len(POOLS), tiled=True)
            assert torch.equal(part.tiles, tensors[f"{case}.block"][0].bool())
        assert (0 < area < TILED_BELOW) == info[case]["block_mask_used"]


def test_clusters(golden):
    _, tensors = golden
    profile = Profile(name="recorded", clusters=PAPER_PROFILE.clusters, centres=tensors["cluster.centers"])
    assert [profile.cluster(feature) for feature in tensors["cluster.feature"]] == tensors["cluster.best_idx"].tolist()


def test_decisions(golden):
    info, tensors = golden
    for decision in info["decisions"]:
        context = torch.tensor(decision["musiq_context"])
        benchmark = eased_benchmark(context[:1], context[1:], tensors["bench.t"], 0.5)
        scores = (torch.tensor(decision["musiq_render"]) / benchmark).tolist()
        area, quality = decision["masked_area"] / 100, int(decision["quality"]) / 100
        found = start_steps(scores, area, quality, PAPER_PROFILE, decision["cluster"])
        # Context views are listed first and last, and never start before the tail.
        assert [GOOD_START, *found, GOOD_START] == decision["s"]
        assert min(found) == decision["start_t"]
