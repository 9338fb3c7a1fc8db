"""Cost of a step of SEVA: seconds and peak memory of the full-size networks, with random weights.

    python benchmarks/seva_step.py [--frames 21] [--size 576] [--dtype bfloat16] [--device cpu] [--steps 1]
                                   [--cache-gb 0] [--offload] [--no-decode]

Two context views and frames - 2 targets consist of noise, on which the networks do the same work as on images. Weights
are random, too, so no checkpoint is needed; the networks are SEVA's U-Net (1.26 billion parameters), Stable Diffusion's
autoencoder and CLIP ViT-H-14. A step computes both guidance branches for every token. `--cache-gb` lets the request
cache features for sparse calls, as far as they fit. The table on stderr has the seconds of each stage, and the peak of
the memory that the process (on a GPU: PyTorch's allocator) has held until its end. The last line, on stdout, is one
JSON object. On a busy machine, prefer CPU time.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor

from sphinx_nvs.geometry.cameras import Cameras
from sphinx_nvs.models.base import DenoiseCall, Render
from sphinx_nvs.models.seva.checkpoint import SIZES, random_seva
from sphinx_nvs.models.seva.seva_denoiser import Seva
from sphinx_nvs.scene.scene import Scene

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
NUM_CONTEXT = 2
GB = 1e9


@dataclass
class Stages:
    """Seconds and peak memory, stage by stage."""

    device: torch.device
    seconds: dict[str, float] = field(default_factory=dict)
    cpu_seconds: dict[str, float] = field(default_factory=dict)
    peak_gb: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """Measures the block."""
        start, start_cpu = time.perf_counter(), time.process_time()
        yield
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        self.seconds[name] = time.perf_counter() - start
        self.cpu_seconds[name] = time.process_time() - start_cpu
        self.peak_gb[name] = peak_bytes(self.device) / GB
        seconds = f"{self.seconds[name]:>10.1f} s{self.cpu_seconds[name]:>10.1f} s"
        sys.stderr.write(f"{name:<12}{seconds}{self.peak_gb[name]:>10.2f} GB\n")
        sys.stderr.flush()


def peak_bytes(device: torch.device) -> int:
    """Peak memory held so far."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    # Kilobytes on Linux, bytes on macOS.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def main(arguments: list[str] | None = None) -> None:
    options = parsed(arguments)
    device = torch.device(options.device)
    stages = Stages(device)
    sys.stderr.write(f"{'stage':<12}{'time':>12}{'CPU time':>12}{'peak so far':>13}\n")
    with stages("build"):
        model = random_seva(size=options.networks, device=device, dtype=DTYPES[options.dtype], offload=options.offload)
    latents = run(model, stages, options)
    found = {
        "options": vars(options),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "seconds": stages.seconds,
        "cpu_seconds": stages.cpu_seconds,
        "peak_gb": peak_bytes(device) / GB,
        "peak_so_far_gb": stages.peak_gb,
        "latents_std": float(latents.std()),
        "finite": bool(latents.isfinite().all()),
    }
    sys.stdout.write(json.dumps(found) + "\n")


@torch.inference_mode()
def run(model: Seva, stages: Stages, options: argparse.Namespace) -> Tensor:
    """Encodes, conditions, takes the first steps of full diffusion, and decodes; returns the final latents."""
    scene, targets, render = views(options.frames, options.size)
    with stages("encode"):
        z_render = model.encode(render.rgb)
    with stages("condition"):
        conditioning = model.condition(scene, targets, render, z_render)
    with stages("begin"):
        request = model.begin(conditioning, options.cache_gb * GB)
    sigmas = model.sigmas(50)
    latents = z_render + sigmas[0].to(z_render) * torch.randn(z_render.shape, device=z_render.device)
    for step in range(options.steps):
        sigma, after = float(sigmas[step]), float(sigmas[step + 1])
        with stages(f"step {step}"):
            call = DenoiseCall(request=request, latents=latents, sigma=sigma, keep=bool(request.caches))
            denoised = model.denoise_calls([call])[0]
            latents = denoised + after / sigma * (latents - denoised)
    if options.decode:
        with stages("decode"):
            model.decode(latents)
    return latents


def views(num_frames: int, size: int) -> tuple[Scene, Cameras, Render]:
    """Noise images with cameras on a line, the first two of them context."""
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(num_frames, 3, size, size, generator=generator)
    c2w = torch.eye(4).repeat(num_frames, 1, 1)
    c2w[:, 0, 3] = torch.linspace(0, 1, num_frames)
    K = torch.tensor([[size, 0.0, size / 2], [0.0, size, size / 2], [0.0, 0.0, 1.0]]).repeat(num_frames, 1, 1)
    known, asked = slice(NUM_CONTEXT), slice(NUM_CONTEXT, None)
    scene = Scene(name="noise", images=images[known], cameras=Cameras(c2w[known], K[known], size, size))
    maps = torch.ones(num_frames - NUM_CONTEXT, size, size)
    render = Render(rgb=images[asked], alpha=maps, depth=maps, confidence=maps, disagreement=maps)
    return scene, Cameras(c2w[asked], K[asked], size, size), render


def parsed(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--frames", type=int, default=21, help="context views and targets together, from 3")
    parser.add_argument("--size", type=int, default=576, help="height and width in pixels, a multiple of 64")
    parser.add_argument("--dtype", choices=sorted(DTYPES), default="bfloat16")
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1, ...")
    parser.add_argument("--steps", type=int, default=1, help="solver steps to take")
    parser.add_argument("--cache-gb", type=float, default=0.0, help="memory for features between calls")
    parser.add_argument("--offload", action="store_true", help="keep autoencoder and CLIP on the CPU between calls")
    parser.add_argument("--networks", choices=SIZES, default="full", help="tiny for a trial of the script")
    parser.add_argument("--no-decode", dest="decode", action="store_false")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
