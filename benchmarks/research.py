"""Effects of the released code's choices: its masks on held-out scenes, and its arithmetic against the exact engine.

    python benchmarks/research.py [--scenes 8] [--size 160]

*Masks*, of held-out procedural scenes rendered by the embedded regressor, mean over scenes: share of pixels in holes,
in sharp regions, per view after cleaning, and in the union that serves all views; the same in latent cells; share of
views without a hole of their own; share of the render's squared error in the pixels it refines, and in those that it
would refine if it took the blurry side, as the paper states; the change in their latents from storing renders in 8
bits; share of cells that our plan refines. *Arithmetic*, on an untrained SEVA of the tiny size with masks of three
shares: relative difference of the final latents between the released code's arithmetic, the same with tiles, the same
without
the sampler's noise, and the exact engine, all with one plan and one noise. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import defaultdict
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from sphinx_nvs.models.seva.seva_denoiser import Seva, SevaConditioning
from sphinx_nvs.models.unet.network import UNet, UNetConfig
from sphinx_nvs.pipeline.pipeline import Pipeline
from sphinx_nvs.plan import ComputePlan
from sphinx_nvs.plan.score_plan import uncertain_cells
from sphinx_nvs.presets import load_preset
from sphinx_nvs.procedural import procedural_views
from sphinx_nvs.released_code.loop import ResearchNoise, ResearchRefinement, begin_refinement
from sphinx_nvs.released_code.masks import (
    HOLE_ALPHA,
    area_share,
    cleaned,
    eight_bit,
    research_assess,
    research_blur_mask,
)
from sphinx_nvs.scene.scene import Scene

CONTEXT, VIEWS = (0, 4), 8
SIDE, SEED, STARTS, TAIL, STEPS = 16, 7, (30, 35, 30, 40), 40, 50
SMALL = UNetConfig(
    in_channels=11, out_channels=4, model_channels=32, channel_mult=(1, 1, 1, 2), num_head_channels=16, context_dim=24
)


def main() -> None:
    """Measures and prints the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenes", type=int, default=8)
    parser.add_argument("--size", type=int, default=160)
    options = parser.parse_args()
    torch.set_num_threads(1)
    pipeline = load_preset()
    found: dict[str, list[float]] = defaultdict(list)
    for seed in range(options.scenes):
        for name, value in _masks(pipeline, seed, options.size).items():
            found[name].append(value)
    result = {
        "masks": {name: round(sum(values) / len(values), 4) for name, values in found.items()},
        "arithmetic": {f"{share:.0%} of cells": _arithmetic(share) for share in (0.05, 0.3, 1.0)},
    }
    sys.stdout.write(json.dumps(result) + "\n")


@torch.inference_mode()
def _masks(pipeline: Pipeline, seed: int, size: int) -> dict[str, float]:
    """Mask statistics of one scene."""
    rgb, _, cameras, _ = procedural_views(seed, VIEWS, size, size, split="test")
    context, targets = list(CONTEXT), [view for view in range(VIEWS) if view not in CONTEXT]
    scene = Scene(name=f"test-{seed:03d}", images=rgb[context], cameras=cameras[context])
    prepared = pipeline.prepare(scene, cameras[targets])
    render, factor = prepared.render, pipeline.denoiser.factor
    stored = eight_bit(render.rgb)
    holes = render.alpha < HOLE_ALPHA
    sharp = torch.stack([~research_blur_mask(view) for view in stored])
    union = research_assess(scene, render, prepared.assessment.quality).holes_or_sharp
    per_view = torch.stack([cleaned(view) for view in holes | sharp])
    error = (render.rgb - rgb[targets]).square().mean(1)
    latents = pipeline.denoiser.encode(render.rgb)
    return {
        "holes": _share(holes),
        "sharp": _share(sharp),
        "per_view": _share(per_view),
        "union": area_share(union),
        "per_view_cells": _share(_cells(per_view, factor)),
        "union_cells": _share(_cells(union[None], factor)),
        "our_cells": _share(uncertain_cells(prepared.assessment.uncertainty, factor, pipeline.plan_config)),
        "views_without_holes": 1 - _share(holes.flatten(1).any(1)),
        "error_in_holes_or_sharp": float(error[holes | sharp].sum() / error.sum()),
        "error_in_holes_or_blurry": float(error[holes | ~sharp].sum() / error.sum()),
        "latents_of_8_bits": _relative(pipeline.denoiser.encode(stored.float() / 255), latents),
    }


def _share(mask: Tensor) -> float:
    return float(mask.float().mean())


def _cells(mask: Tensor, factor: int) -> Tensor:
    """Cells with any pixel of the mask."""
    return F.max_pool2d(mask[:, None].float(), factor, ceil_mode=True)[:, 0] > 0


class _Nothing:
    """Stands in for autoencoder and embedder."""

    encode = decode = embed = staticmethod(torch.clone)


@torch.inference_mode()
def _arithmetic(share: float) -> dict[str, float]:
    """Differences for one plan whose mask has this share of tiles."""
    torch.manual_seed(SEED)
    seva = Seva(UNet(SMALL), _Nothing(), _Nothing()).eval()
    views, rows = len(STARTS), len(STARTS) + len(CONTEXT)
    conditioning = SevaConditioning(
        z_context=torch.randn(len(CONTEXT), 4, SIDE, SIDE),
        eps_context=torch.randn(len(CONTEXT), 4, SIDE, SIDE),
        plucker=torch.randn(rows, 6, SIDE, SIDE),
        token=torch.randn(24),
        scale=torch.full((views,), 2.0),
    )
    z_render = torch.randn(views, 4, SIDE, SIDE)
    mask = F.interpolate((torch.rand(1, 1, 4, 4) < share).float(), size=SIDE)[0, 0] > 0
    mask[:4, :4] = True
    plan = ComputePlan(
        start_step=torch.where(mask, torch.tensor(STARTS)[:, None, None], TAIL),
        sigmas=seva.sigmas(STEPS),
        solver="euler",
        dense_steps=(30, 35, *range(TAIL, STEPS)),
        arithmetic="research",
    )

    def final(arithmetic: str) -> Tensor:
        plan_here = replace(plan, arithmetic=arithmetic)
        refinement = begin_refinement(seva, conditioning, z_render, plan_here, SEED)
        while not refinement.done:
            refinement.step()
        return refinement.latents

    noise = ResearchNoise.seeded(SEED, conditioning, z_render)
    quiet = ResearchRefinement(
        seva, conditioning, z_render, plan, SEED, ResearchNoise(noise.start, lambda _: torch.zeros(rows, 4, SIDE, SIDE))
    )
    while not quiet.done:
        quiet.step()
    research = final("research")
    return {
        "mask": round(_share(mask), 3),
        "exact_against_research": round(_relative(final("exact"), research), 4),
        "tiles_against_research": round(_relative(final("research-tiled"), research), 4),
        "without_sampler_noise_against_research": round(_relative(quiet.latents, research), 5),
    }


def _relative(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


if __name__ == "__main__":
    main()
