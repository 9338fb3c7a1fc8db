"""Cost of whole plans of SEVA's network: time, memory and FLOP/s against 50 dense steps, with random weights.

    python benchmarks/seva_plans.py --device cuda --dtype bfloat16            (full size: 21 frames of 576x576 pixels)
    python benchmarks/seva_plans.py --size small --frames 6 --cells 24x24     (the same script, on a laptop)

Two of the frames are context views. A request's mask resembles the method's: smooth blobs that drift from view to view
cover `--masks` of the cells of each view, every view starts at step 10, 15 or 20 of 50, the rest is held. Plans:
*dense* is full diffusion (Euler, 50 steps, both guidance branches at every call) on this engine; *plain network* the
same through `UNet.forward`, with nothing precomputed or cached; *research* the released code's plan (one mask for all
views, a refresh every fifth step, a dense tail, Euler); D4, RT, R and R+ see `plan/levers.py`. All share kernels, noise
and weights; they run in turn, `--repeats` times, and medians are reported. Autoencoder and embedder are excluded
(`benchmarks/seva_step.py` includes them). On a GPU the time is the wall time of synchronised runs and memory the peak;
on a CPU it is CPU time, and memory what the request holds. Weights are random: this measures cost, not quality. The
last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from sphinx_nvs.models.base import DenoiserRequest
from sphinx_nvs.models.seva.seva_denoiser import Seva, SevaConditioning
from sphinx_nvs.models.unet.network import SEVA, UNet, UNetConfig
from sphinx_nvs.plan import ComputePlan, Levers, economised
from sphinx_nvs.plan.cost import ideal_flops, plan_flops
from sphinx_nvs.plan.levers import D4, R_PLUS, RESEARCH, RT, R
from sphinx_nvs.refine import Refinement

CONTEXT = 2
STEPS = 50
SMALL = UNetConfig(
    in_channels=11, out_channels=4, model_channels=64, channel_mult=(1, 2, 4, 4), context_dim=64, num_head_channels=32
)
"""SEVA's layers at a fifth of the width."""
DENSE, PLAIN = "dense", "plain network"
PLANS: dict[str, tuple[Levers, str]] = {
    "research": (RESEARCH, "euler"),
    "D4": (D4, "multistep"),
    "RT": (RT, "multistep"),
    "R": (R, "multistep"),
    "R+": (R_PLUS, "multistep"),
}


@dataclass(frozen=True, kw_only=True)
class Run:
    """One plan's cost."""

    seconds: float
    memory_gb: float
    dense_calls: tuple[int, ...]


class PlainNetwork:
    """The denoiser without its engine: exposes only what plain refinement needs."""

    def __init__(self, seva: Seva) -> None:
        self.name, self.factor, self.size_multiple = seva.name, seva.factor, seva.size_multiple
        self.latent_channels, self.denoise, self.sigmas = seva.latent_channels, seva.denoise, seva.sigmas
        self.encode, self.decode, self.condition = seva.encode, seva.decode, seva.condition


class NoPictures:
    """Stands in for autoencoder and embedder, which a step does not need."""

    def encode(self, images: Tensor) -> Tensor:
        """Never called."""
        raise NotImplementedError("this benchmark refines latents only")

    decode = embed = encode


def main(argv: Sequence[str] | None = None) -> int:
    """Measures and prints the results."""
    options = _options(argv)
    seva, conditioning, z_render = _request(options)
    plans = _plans(seva, options, z_render)
    runs: dict[str, list[Run]] = {name: [] for name in plans}
    for repeat in range(options.repeats + 1):
        for name, plan in plans.items():
            denoiser = PlainNetwork(seva) if name == PLAIN else seva
            run = _run(denoiser, conditioning, z_render, plan, options)
            sys.stderr.write(f"{name}: {run.seconds:.3g} s{'' if repeat else ' (warm-up)'}\n")
            if repeat or options.repeats == 0:
                runs[name].append(run)
    table = {name: _row(name, plan, runs, seva.unet.config) for name, plan in plans.items()}
    sys.stderr.write(_markdown(table))
    result = {
        "size": options.size,
        "device": torch.cuda.get_device_name() if options.device == "cuda" else options.device,
        "dtype": options.dtype,
        "compiled": options.compile,
        "frames": options.frames,
        "cells": options.cells,
        "repeats": options.repeats,
        "plans": table,
    }
    sys.stdout.write(json.dumps(result) + "\n")
    return 0


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=("full", "small"), default="full", help="size of the network")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", choices=("float32", "bfloat16", "float16"), default="float32")
    parser.add_argument("--frames", type=int, default=21, help="context views and targets")
    parser.add_argument("--cells", default="72x72", help="latent cells, HxW")
    parser.add_argument("--masks", type=float, nargs="+", default=[0.1, 0.3, 0.6], help="shares of refined cells")
    parser.add_argument("--plans", nargs="+", choices=tuple(PLANS), default=tuple(PLANS))
    parser.add_argument("--repeats", type=int, default=3, help="after one warm-up; 0 measures the warm-up")
    parser.add_argument("--cache-gb", type=float, default=math.inf, help="memory for features between calls")
    parser.add_argument("--compile", action="store_true", help="fuse the operations between matrix products")
    parser.add_argument("--skip-plain", action="store_true", help="skip the plain network")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads")
    options = parser.parse_args(argv)
    torch.set_num_threads(options.threads)
    return options


def _request(options: argparse.Namespace) -> tuple[Seva, SevaConditioning, Tensor]:
    """A network with random weights, and random but plausible inputs."""
    torch.manual_seed(0)
    dtype, device = getattr(torch, options.dtype), options.device
    with torch.device(device):
        unet = UNet(SEVA if options.size == "full" else SMALL)
    seva = Seva(unet.to(dtype).eval().requires_grad_(False), NoPictures(), NoPictures())
    seva.compiled = options.compile
    generator = torch.Generator().manual_seed(0)
    height, width = (int(side) for side in options.cells.split("x"))

    def noise(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator).to(device)

    context_dim = unet.config.context_dim
    assert context_dim is not None
    targets = options.frames - CONTEXT
    conditioning = SevaConditioning(
        z_context=noise(CONTEXT, 4, height, width),
        eps_context=noise(CONTEXT, 4, height, width),
        plucker=noise(options.frames, 6, height, width),
        token=noise(context_dim),
        scale=torch.full((targets,), 2.0, device=device),
    )
    return seva, conditioning, noise(targets, 4, height, width)


def _plans(seva: Seva, options: argparse.Namespace, z_render: Tensor) -> dict[str, ComputePlan]:
    """Full diffusion, then every plan for every mask."""
    views, _, height, width = z_render.shape
    full = ComputePlan(
        start_step=torch.zeros(views, height, width, dtype=torch.long),
        sigmas=seva.sigmas(STEPS),
        solver="euler",
        dense_steps=tuple(range(STEPS)),
        quality=1.0,
        profile="none",
        reason="benchmark",
    )
    plans = {} if options.skip_plain else {PLAIN: full}
    plans[DENSE] = full
    for share in options.masks:
        masked = replace(full, start_step=_start_steps(views, height, width, share))
        for name in options.plans:
            levers, solver = PLANS[name]
            plans[f"{name}, {share:.0%}"] = economised(replace(masked, solver=solver), levers)
    return plans


def _start_steps(views: int, height: int, width: int, share: float) -> Tensor:
    """Blobs that drift by three quarters of a cell per view, with start steps 10, 15 or 20."""
    generator = torch.Generator().manual_seed(1)
    drift = math.ceil(0.75 * views)
    field = F.avg_pool2d(torch.rand(1, 1, height, width + drift, generator=generator), 15, 1, 7)[0, 0]
    start = torch.full((views, height, width), STEPS)
    for view in range(views):
        window = field[:, round(0.75 * view) :][:, :width]
        threshold = window.flatten().kthvalue(max(1, math.ceil((1 - share) * window.numel()))).values
        start[view][window >= threshold] = (10, 15, 20)[view % 3]
    return start


def _run(
    denoiser: Any, conditioning: SevaConditioning, z_render: Tensor, plan: ComputePlan, options: argparse.Namespace
) -> Run:
    """Runs one plan from its first step to its last."""
    on_gpu = z_render.is_cuda
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
    held = 0
    dense_calls = []

    def work() -> None:
        nonlocal held
        refinement = Refinement(denoiser, conditioning, z_render, plan, 0, 1e9 * options.cache_gb)
        while not refinement.done:
            report = refinement.step()
            if report.dense:
                dense_calls.append(report.step)
        held = _held_bytes(refinement)
        if not bool(torch.isfinite(refinement.latents).all()):
            sys.exit("a plan produced non-finite numbers")

    seconds = _timed(work, on_gpu)
    memory = torch.cuda.max_memory_allocated() if on_gpu else held
    return Run(seconds=seconds, memory_gb=memory / 1e9, dense_calls=tuple(dense_calls))


def _held_bytes(refinement: Refinement) -> int:
    """Bytes held by a request's caches; 0 for the plain network."""
    request: DenoiserRequest | None = refinement._request
    return sum(cache.num_bytes for cache in request.caches) if request is not None else 0


def _timed(work: Callable[[], None], on_gpu: bool) -> float:
    if not on_gpu:
        started = time.process_time()
        work()
        return time.process_time() - started
    torch.cuda.synchronize()
    started = time.perf_counter()
    work()
    torch.cuda.synchronize()
    return time.perf_counter() - started


def _row(name: str, plan: ComputePlan, runs: dict[str, list[Run]], config: UNetConfig) -> dict[str, float]:
    """Medians, and FLOPs."""
    seconds = statistics.median(run.seconds for run in runs[name])
    dense_s = statistics.median(run.seconds for run in runs[DENSE])
    dense_steps = runs[name][0].dense_calls
    flops = sum(plan_flops(plan, config, CONTEXT, dense_steps=dense_steps, branches=2))
    ideal = ideal_flops(plan, config, CONTEXT, branches=2)
    return {
        "seconds": round(seconds, 4),
        "speedup": round(dense_s / seconds, 3),
        "calls": plan.num_steps - plan.first_step,
        "dense_calls": len(dense_steps),
        "tflop": round(flops / 1e12, 3),
        "tflops": round(flops / seconds / 1e12, 3),
        "eta_alg": round(ideal / flops, 3),
        "memory_gb": round(max(run.memory_gb for run in runs[name]), 3),
    }


def _markdown(table: dict[str, dict[str, float]]) -> str:
    lines = ["| plan | speed-up | calls (dense) | TFLOP | TFLOP/s | eta_alg | memory, GB |", "|" + "---|" * 7]
    for name, row in table.items():
        lines.append(
            f"| {name} | {row['speedup']:.2f}x | {row['calls']:.0f} ({row['dense_calls']:.0f}) | {row['tflop']:.3g} | "
            f"{row['tflops']:.3g} | {row['eta_alg']:.2f} | {row['memory_gb']:.2f} |"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
