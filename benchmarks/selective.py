"""Cost of a sparse network call relative to a dense one, over the share of active cells.

    python benchmarks/selective.py [--quick] [--config nano|seva|small] [--device cpu|cuda] [--dtype float32|bfloat16]
                                   [--frames 22] [--size 32x32] [--compile] [--out folder]

Dense and sparse calls alternate (A/B/A/B), medians are compared; on a CPU the time is the process's CPU time, which a
busy machine disturbs least, on a GPU it is the wall time of synchronised calls. `eta_hw` is the ratio of FLOPs over the
ratio of times: 1 means that a sparse call reaches the FLOP rate of a dense one. Active cells are smooth blobs in target
views, about as large as the masks of procedural scenes (there, 6 % of the cells are 10 % of those at half resolution
and 20 % at a quarter); the first two frames are context views, which a sparse call never computes. `flops_model_err`
compares the cost model with the FLOPs that PyTorch counts in the calls. `operations_5` counts the operations that a
sparse call at 5 % dispatches (a fused one counts once): on a GPU each is about one launch. `seva` is the full-size
network with random weights, both guidance branches; run it on a GPU. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import io
import json
import math
import re
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from sphinx_nvs import media
from sphinx_nvs.models.embedded.shipped import load_nano
from sphinx_nvs.models.unet.flops import CallShape, call_flops, total
from sphinx_nvs.models.unet.network import SEVA, UNet, UNetConfig
from sphinx_nvs.models.unet.operations import NetworkCall, rows_from_map
from sphinx_nvs.models.unet.selective import SelectiveUNet
from sphinx_nvs.nn.active_tokens import ActiveTokens
from sphinx_nvs.nn.feature_cache import FeatureCache

CONTEXT = 2
SHARES = (0.02, 0.05, 0.1, 0.2, 0.3, 0.45, 0.6, 0.8, 1.0)
SMALL = UNetConfig(
    in_channels=11, out_channels=4, model_channels=64, channel_mult=(1, 2, 4, 4), context_dim=64, num_head_channels=32
)
"""SEVA's layers at a fifth of the width: runs on a laptop."""


def _packed_flops(x_shape: tuple[int, ...], *_: object, out_shape: tuple[int, ...], **__: object) -> int:
    """FLOPs of oneDNN's packed product, which PyTorch's counter does not know."""
    return 2 * math.prod(out_shape) * x_shape[-1]


PACKED = {torch.ops.mkldnn._linear_pointwise: _packed_flops} if torch.backends.mkldnn.is_available() else {}


BOOKKEEPING = re.compile(
    r"aten::(alias|as_strided|chunk|detach|empty|empty_like|empty_strided|expand|is_nonzero|item|lift_fresh|permute|"
    r"promote_types|reshape|resize_|resolve_conj|result_type|select|slice|split|squeeze|t|to|transpose|unbind|"
    r"unflatten|unsqueeze|view|_local_scalar_dense|_unsafe_view)"
)
"""Operations that compute nothing."""


@dataclass
class Bench:
    """A network with one request's inputs, per guidance branch."""

    network: SelectiveUNet
    config: UNetConfig
    inputs: Tensor
    constants: list[Any]
    caches: list[FeatureCache]

    def call(self, active: ActiveTokens | None, cached: bool) -> list[Tensor]:
        """Runs one network call with all branches."""
        pairs = zip(self.constants, self.caches, strict=True)
        return self.network(
            [
                NetworkCall(x=self.inputs, timestep=500.0, constants=c, cache=k if cached else None, active=active)
                for c, k in pairs
            ]
        )


def main() -> None:
    """Measures and prints the results."""
    options = _options()
    bench = _bench(options)
    frames, height, width = bench.inputs.shape[0], *bench.inputs.shape[-2:]
    bench.call(None, True)
    shares = (0.05, 0.3) if options.quick else SHARES
    sys.stderr.write("| active | FLOPs | time | eta_hw | TFLOP/s dense | TFLOP/s sparse | memory GB |\n")
    sys.stderr.write("|---|---|---|---|---|---|---|\n")
    rows = []
    for share in shares:
        row = _measure(bench, _blobs(frames, height, width, share, options.device), options)
        rows.append(row)
        sys.stderr.write(
            f"| {row['active']:.0%} | {row['flops']:.3f} | {row['time']:.3f} | {row['eta_hw']:.2f} | "
            f"{row['dense_tflops']:.3f} | {row['sparse_tflops']:.3f} | {row['memory_gb']:.2f} |\n"
        )
    by_share = {round(share, 2): row for share, row in zip(shares, rows, strict=True)}
    result = {
        "config": options.config,
        "device": options.device,
        "dtype": options.dtype,
        "compiled": options.compile,
        "frames": frames,
        "cells": [height, width],
        "all_active_rel_err": _all_active_error(bench),
        "eta_hw_30": round(by_share[0.3]["eta_hw"], 3),
        "sparse5_over_dense": round(by_share[0.05]["time"], 4),
        "flops_model_err": _model_error(options),
        "operations_5": _operations(bench, _blobs(frames, height, width, 0.05, options.device)),
        "rows": rows,
    }
    if options.out is not None:
        _plot(options.out, rows)
    sys.stdout.write(json.dumps(result) + "\n")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="two shares, few repeats")
    parser.add_argument("--config", choices=("nano", "seva", "small"), default="nano")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", choices=("float32", "bfloat16", "float16"), default="float32")
    parser.add_argument("--frames", type=int, help="default: 22, for seva 21")
    parser.add_argument("--size", help="latent cells HxW; default 32x32, for seva 72x72")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--compile", action="store_true", help="fuse the operations between matrix products")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads")
    parser.add_argument("--out", type=Path, help="folder for a plot")
    options = parser.parse_args()
    options.repeats = 3 if options.quick else options.repeats
    options.frames = options.frames or (21 if options.config == "seva" else 22)
    options.size = options.size or ("72x72" if options.config == "seva" else "32x32")
    torch.set_num_threads(options.threads)
    return options


def _bench(options: argparse.Namespace) -> Bench:
    """The network on its device, random inputs, one cache per branch."""
    generator = torch.Generator().manual_seed(0)
    dtype = getattr(torch, options.dtype)
    height, width = (int(side) for side in options.size.split("x"))
    unet = load_nano().unet if options.config == "nano" else _random_unet(options)
    unet = unet.to(options.device, dtype).eval().requires_grad_(False)
    config: UNetConfig = unet.config
    varying = 24 if options.config == "nano" else 4
    network = SelectiveUNet(unet, varying, compiled=options.compile)

    def noise(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator).to(options.device, dtype)

    constants = []
    for _ in range(1 if config.context_dim is None else 2):
        context = None if config.context_dim is None else noise(options.frames, 1, config.context_dim)
        features = noise(options.frames, config.in_channels - varying, height, width)
        dense = noise(options.frames, config.dense_in_channels, height, width)
        constants.append(network.constants(features, dense, context, keep_film=options.config != "seva"))
    inputs = noise(options.frames, varying, height, width)
    return Bench(network, config, inputs, constants, [FeatureCache() for _ in constants])


def _random_unet(options: argparse.Namespace) -> UNet:
    """A network with random weights, generated on the device."""
    torch.manual_seed(0)
    with torch.device(options.device):
        return UNet(SEVA if options.config == "seva" else SMALL)


def _blobs(frames: int, height: int, width: int, share: float, device: str) -> Tensor:
    """Smooth random regions covering `share` of the target views' cells, as a mask."""
    generator = torch.Generator().manual_seed(1)
    field = F.avg_pool2d(torch.rand(frames - CONTEXT, 1, height, width, generator=generator), 15, 1, 7)[:, 0]
    threshold = field.flatten().kthvalue(max(1, math.ceil((1 - share) * field.numel()))).values
    cells = field >= threshold if share < 1 else torch.ones_like(field, dtype=torch.bool)
    return torch.cat([cells.new_zeros(CONTEXT, height, width), cells]).to(device)


def _measure(bench: Bench, cells: Tensor, options: argparse.Namespace) -> dict[str, float]:
    """Costs of a sparse call relative to those of a dense one."""
    active = ActiveTokens.from_cells(cells, bench.config.num_levels)
    dense_s, sparse_s = _alternating(
        lambda: bench.call(None, False), lambda: bench.call(active, True), options.repeats, options.device
    )
    size, frames = (bench.inputs.shape[-2], bench.inputs.shape[-1]), bench.inputs.shape[0]
    shape = {
        "size": size,
        "num_frames": frames,
        "branches": len(bench.constants),
        "context_tokens": int(bench.config.context_dim is not None),
        "folded": True,
    }
    dense_flops = total(call_flops(bench.config, CallShape(**shape)))  # type: ignore[arg-type]
    counts = tuple(level.counts for level in active.levels)
    sparse_flops = total(call_flops(bench.config, CallShape(active=counts, **shape)))  # type: ignore[arg-type]
    ratio, times = sparse_flops / dense_flops, sparse_s / dense_s
    return {
        "active": len(active.levels[0].index) / ((frames - CONTEXT) * size[0] * size[1]),
        "flops": ratio,
        "time": times,
        "eta_hw": ratio / times,
        "dense_s": dense_s,
        "dense_tflops": dense_flops / dense_s / 1e12,
        "sparse_tflops": sparse_flops / sparse_s / 1e12,
        "memory_gb": _memory_gb(bench, options.device),
    }


def _alternating(
    dense: Callable[[], object], sparse: Callable[[], object], repeats: int, device: str
) -> tuple[float, float]:
    """Median seconds of each, run in turn after a warm-up."""
    times: tuple[list[float], list[float]] = ([], [])
    for repeat in range(repeats + 1):
        for work, kept in zip((dense, sparse), times, strict=True):
            seconds = _timed(work, device)
            if repeat:
                kept.append(seconds)
    return statistics.median(times[0]), statistics.median(times[1])


def _timed(work: Callable[[], object], device: str) -> float:
    if device == "cpu":
        started = time.process_time()
        work()
        return time.process_time() - started
    torch.cuda.synchronize()
    started = time.perf_counter()
    work()
    torch.cuda.synchronize()
    return time.perf_counter() - started


def _memory_gb(bench: Bench, device: str) -> float:
    """Peak memory on a GPU; the caches' size on a CPU."""
    if device != "cpu":
        return torch.cuda.max_memory_allocated() / 1e9
    return sum(cache.num_bytes for cache in bench.caches) / 1e9


def _all_active_error(bench: Bench) -> float:
    """Relative error of a sparse call with every token active, against the dense call."""
    frames, _, height, width = bench.inputs.shape
    cells = torch.ones(frames, height, width, dtype=torch.bool, device=bench.inputs.device)
    dense = rows_from_map(bench.call(None, True)[0]).float()
    sparse = bench.call(ActiveTokens.from_cells(cells, bench.config.num_levels), True)[0].float()
    return float((sparse - dense).abs().max() / dense.abs().max())


def _operations(bench: Bench, cells: Tensor) -> int:
    """Number of operations of one sparse call that compute; views and bookkeeping are excluded."""
    active = ActiveTokens.from_cells(cells, bench.config.num_levels)
    bench.call(active, True)
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        bench.call(active, True)
    return sum(_computes(event) for event in profiler.events())


def _computes(event: Any) -> bool:
    """Whether a profiled event is a computation."""
    if event.name.startswith("Torch-Compiled Region"):
        return True
    is_leaf = not event.cpu_children and event.name.startswith(("aten::", "mkldnn::"))
    return is_leaf and not BOOKKEEPING.fullmatch(event.name)


def _model_error(options: argparse.Namespace) -> float:
    """Largest relative error of the cost model over one dense and two sparse calls of a small network."""
    small = argparse.Namespace(**{**vars(options), "config": "small", "frames": 4, "size": "16x16", "device": "cpu"})
    small.dtype, small.compile = "float32", False
    bench = _bench(small)
    bench.call(None, True)
    errors = []
    for share in (None, 0.1, 0.5):
        cells = None if share is None else _blobs(4, 16, 16, share, "cpu")
        active = None if cells is None else ActiveTokens.from_cells(cells, SMALL.num_levels)
        # PyTorch has no formula for the CPU's fused attention; its plain kernel is counted as two products.
        with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False, custom_mapping=PACKED) as counter:
            bench.call(active, True)
        counts = None if active is None else tuple(level.counts for level in active.levels)
        shape = CallShape(size=(16, 16), num_frames=4, active=counts, branches=2, context_tokens=1, folded=True)
        counted = counter.get_total_flops()
        errors.append(abs(total(call_flops(SMALL, shape)) - counted) / counted)
    return max(errors)


def _plot(folder: Path, rows: list[dict[str, float]]) -> None:
    """Time and FLOPs of a sparse call over a dense one, against the active share."""
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    active = [row["active"] for row in rows]
    axes.plot(active, [row["time"] for row in rows], "o-", label="time")
    axes.plot(active, [row["flops"] for row in rows], "s--", label="FLOPs")
    axes.axhline(1, color="grey", linewidth=0.8)
    axes.set(xlabel="share of active cells", ylabel="sparse call / dense call", ylim=(0, None), xlim=(0, 1))
    axes.legend()
    data = io.BytesIO()
    figure.savefig(data, format="png", dpi=120)
    media.write_bytes(folder / "selective.png", data.getvalue())


if __name__ == "__main__":
    main()
