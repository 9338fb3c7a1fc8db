"""The research code's partial denoising, reproduced from its recorded runs: every case, to 1e-4 of its norm."""

import json
from dataclasses import dataclass, replace
from functools import cached_property

import pytest
import torch
from safetensors.torch import load_file

from sphinx_nvs.geometry.cameras import Cameras
from sphinx_nvs.models.seva.seva_denoiser import Seva, SevaConditioning, SevaSettings
from sphinx_nvs.plan import ComputePlan
from sphinx_nvs.refine import Refinement
from sphinx_nvs.released_code.loop import ResearchNoise, ResearchRefinement
from sphinx_nvs.released_code.released_network import Part, tiled_res_block

TOLERANCE = 1e-4
QUICK = ("sparse", "sparse_block", "frame", "dense40")
CASES = (*QUICK, "sparse_block_all", "from0", "frame_from0", "sparse_eps0")
"""The slow ones add longer paths through the same code: from the first step on, tiles everywhere, no noise."""


class Nothing:
    """In the place of autoencoder and embedder: the recorded runs begin after them."""

    encode = decode = embed = staticmethod(torch.clone)


@dataclass(frozen=True)
class Recorded:
    """A golden file, its rows put in our order: known views first."""

    info: dict
    tensors: dict[str, torch.Tensor]

    @cached_property
    def order(self):
        return self.tensors["input_mask"].argsort(descending=True, stable=True)

    @cached_property
    def num_context(self):
        return int(self.tensors["input_mask"].sum())

    def rows(self, name):
        return self.tensors[name].float()[self.order]

    def targets(self, name):
        return self.rows(name)[self.num_context :]

    def mask(self, case, level=0):
        """The token mask of a case; every cell where it has none."""
        name = f"{case}mask{level}"
        whole = torch.ones(self.tensors["latents"].shape[-2:], dtype=torch.bool)
        return self.tensors[name].bool() if name in self.tensors else whole

    def seva(self, unet, cfg, cfg_min):
        return Seva(unet, Nothing(), Nothing(), SevaSettings(guidance_scale=cfg, guidance_scale_min=cfg_min))

    def conditioning(self, seva):
        cameras = Cameras(self.rows("c2w"), self.rows("K"), 1, 1)
        return SevaConditioning(
            z_context=self.rows("latents")[: self.num_context],
            eps_context=self.rows("noise")[: self.num_context],
            plucker=self.rows("plucker"),
            token=self.tensors["cond.crossattn"][0, 0],
            scale=seva.guidance_scale(cameras, self.num_context),
        )

    def plan(self, case, facts, sigmas, dense_steps):
        """Masked cells start when their view does, all others at the tail, from which on all steps are dense."""
        num_steps = len(sigmas) - 1
        tail = min(k for k in range(num_steps + 1) if set(range(k, num_steps)) <= set(dense_steps))
        starts = torch.tensor(facts["s"])[self.order][self.num_context :, None, None]
        return ComputePlan(
            start_step=torch.where(self.mask(case), starts, tail),
            sigmas=sigmas,
            solver="euler",
            dense_steps=tuple(dense_steps),
            arithmetic="research-tiled" if facts["block"] else "research",
        )


def recorded(parity_dir, name):
    path = parity_dir / f"{name}.safetensors"
    if not path.exists():
        pytest.skip(f"{path.name} is absent from {parity_dir}")
    return Recorded(json.loads((parity_dir / f"{name}.json").read_text()), load_file(path))


@pytest.fixture(scope="module")
def partial(parity_dir):
    return recorded(parity_dir, "sphinx_partial")


def case_of(partial, case):
    """The case's facts and whose mask it has; skips where the file has no such case."""
    if f"{case}.final" not in partial.tensors or case not in partial.info:
        pytest.skip(f"the file has no case {case}")
    same = partial.info[case].get("same_as", case)
    return partial.info[same], same


@pytest.mark.parametrize(
    "case", [case if case in QUICK else pytest.param(case, marks=pytest.mark.slow) for case in CASES]
)
def test_every_recorded_state_and_the_result(partial, seva_tiny, relative, case):
    facts, same = case_of(partial, case)
    config = partial.info["config"]
    seva = partial.seva(seva_tiny.unet, config["cfg"], config["cfg_min"])
    plan = partial.plan(f"{same}.", facts, partial.tensors["sigmas50"], facts["dense_steps"])
    assert plan.first_step == facts["start_t"]
    eps = partial.tensors["eps"][:, partial.order] * (0 if "eps" in partial.info[case] else 1)
    noise = ResearchNoise(partial.targets("noise"), lambda step: eps[step])
    refinement = ResearchRefinement(seva, partial.conditioning(seva), partial.targets("latents"), plan, 0, noise)
    steps = partial.tensors.get(f"{case}.steps", torch.empty(0)).tolist()
    dense, errors = [], {}
    while not refinement.done:
        report = refinement.step()
        dense += [report.step] * report.dense
        if report.step in steps:
            expected = partial.tensors[f"{case}.x_after_step"][steps.index(report.step)]
            errors[report.step] = relative(refinement.rows, expected[partial.order])
    errors["final"] = relative(refinement.rows, partial.rows(f"{case}.final"))
    assert len(errors) == len(steps) + 1
    assert max(errors.values()) < TOLERANCE, errors
    assert dense == facts["dense_steps"]


def test_masks_of_coarser_levels_and_tiles_are_pooled(partial):
    masked = [case for case in CASES if f"{case}.mask0" in partial.tensors]
    assert masked
    for case in masked:
        names = [f"{case}.mask{level}" for level in range(len(partial.info["config"]["mask_heights"]))]
        part = Part.of(torch.arange(1), partial.mask(f"{case}."), len(names), tiled=partial.info[case]["block"])
        for name, cells in zip(names, part.cells, strict=True):
            assert torch.equal(cells, partial.tensors[name].flatten().nonzero().squeeze(1))
        if partial.info[case]["block"]:
            assert torch.equal(part.tiles, partial.tensors[f"{case}.block"][0].bool())


@torch.no_grad()
def test_tiled_residual_block(partial, seva_tiny, relative):
    block = seva_tiny.unet.get_submodule("input_blocks.1.0")
    x, emb, rays = (partial.tensors[f"resblock.{name}"] for name in ("x", "emb", "dense"))
    assert relative(block(x, emb, rays), partial.tensors["resblock.dense_out"]) < TOLERANCE
    two = partial.tensors["resblock.two_tiles_mask"][0].bool()
    for tiles, name in ((torch.ones_like(two), "all_tiles"), (two, "two_tiles")):
        expected = partial.tensors[f"resblock.block_out_{name}"]
        assert relative(tiled_res_block(block, x, emb, rays, tiles), expected) < TOLERANCE


@torch.no_grad()
def test_tiles_are_as_far_from_the_dense_block_as_recorded(partial, seva_tiny):
    """The two recorded facts on block-sparse convolution; docs/reports/released-code.md has them."""
    facts = {name.split(",")[0]: value for name, value in partial.info["facts"].items()}
    block = seva_tiny.unet.get_submodule("input_blocks.1.0")
    x, emb, rays = (partial.tensors[f"resblock.{name}"] for name in ("x", "emb", "dense"))
    every = torch.ones_like(partial.tensors["resblock.two_tiles_mask"][0]).bool()
    dense, tiled = block(x, emb, rays) - x, tiled_res_block(block, x, emb, rays, every) - x
    found = float((tiled - dense).norm() / dense.norm())
    assert found == pytest.approx(facts["ResBlock residual branch"], rel=1e-3)


def test_noise_of_zero_differs_as_recorded(partial):
    """The nudge of the sampler alone: what is lost by leaving its noise out."""
    if "sparse_eps0" not in partial.info:
        pytest.skip("the file has no case sparse_eps0")
    found = (partial.tensors["sparse_eps0.final"] - partial.tensors["sparse.final"]).abs().max()
    assert float(found) == pytest.approx(partial.info["sparse_eps0"]["max_abs_diff_vs_sparse"], rel=1e-3)


@pytest.mark.parametrize("case", [pytest.param("frame", marks=pytest.mark.slow), "sparse"])
def test_the_exact_engine_on_the_same_plan_and_noise_is_near_but_not_equal(partial, seva_tiny, relative, case):
    """What differs: docs/explanation/released-code.md; held cells and context views are where most of it begins."""
    facts, same = case_of(partial, case)
    config = partial.info["config"]
    seva = partial.seva(seva_tiny.unet, config["cfg"], config["cfg_min"])
    plan = partial.plan(f"{same}.", facts, partial.tensors["sigmas50"], facts["dense_steps"])
    exact = replace(plan, arithmetic="exact")
    refinement = Refinement(seva, partial.conditioning(seva), partial.targets("latents"), exact, 0)
    refinement.eps = partial.targets("noise")
    refinement.latents = partial.targets("latents") + plan.sigmas[plan.first_step] * refinement.eps
    while not refinement.done:
        refinement.step()
    assert 1e-3 < relative(refinement.latents, partial.targets(f"{case}.final")) < 0.5


@pytest.mark.slow
def test_the_unmodified_research_tree_at_its_own_size(parity_dir, seva_tiny, relative):
    golden = recorded(parity_dir, "sphinx_partial_576")
    info = golden.info
    seva = golden.seva(seva_tiny.unet, info["cfg"], info["cfg_min"])
    steps, num_steps = info["steps_run"], info["num_steps"]
    first, tail = steps[0], max(info["s"])
    plan = golden.plan("", info, seva.sigmas(num_steps), [first, *range(tail, num_steps)])
    noise = ResearchNoise(golden.targets("noise"), lambda _: torch.zeros_like(golden.rows("noise")))
    refinement = ResearchRefinement(seva, golden.conditioning(seva), golden.targets("latents"), plan, 0, noise)
    reports = [refinement.step() for _ in steps]
    assert [report.dense for report in reports] == [step == first for step in steps]
    assert relative(refinement.rows, golden.rows("x_out")) < TOLERANCE
