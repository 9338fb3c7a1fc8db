"""Training samples: a procedural scene, its context views, and what a regressor makes of the other views.

Most samples render from the exact depth, spoilt the way matching spoils it (smooth error, blurred edges, wrong patches,
guesses where no second view looks), because that costs a tenth of a real plane sweep; the others come from the real
regressor, so that its true failures are seen too.

Shapes: N views of a sample (context first), V_c of them context, H W pixels.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float, Float32, UInt8
from safetensors.torch import load_file, save_file
from torch import Tensor

from sphinx_nvs.errors import InputError
from sphinx_nvs.geometry.cameras import Cameras
from sphinx_nvs.models import planesweep
from sphinx_nvs.models.base import Render
from sphinx_nvs.scene.procedural import procedural_views
from sphinx_nvs.scene.scene import Scene


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One scene, small enough to keep thousands in memory.

    Args:
        rgb: true pictures, context views first.
        render: the regressor's pictures; for a context view, the picture itself.
        signals: alpha, confidence and disagreement of the render, times 255; 255, 255, 0 for context views.
        c2w: poses, OpenCV axes.
        K: intrinsics in pixels.
        depth_unit: the render's median depth, world units, shape (1,).
        num_context: how many views are context, shape (1,).
    """

    rgb: UInt8[Tensor, "N 3 H W"]
    render: UInt8[Tensor, "N 3 H W"]
    signals: UInt8[Tensor, "N 3 H W"]
    c2w: Float32[Tensor, "N 4 4"]
    K: Float32[Tensor, "N 3 3"]
    depth_unit: Float32[Tensor, "1"]
    num_context: UInt8[Tensor, "1"]


def make_sample(
    seed: int, split: str = "train", num_views: int = 8, size: int = 128, real_share: float = 0.25
) -> Sample | None:
    """One sample, the same for the same arguments.

    Args:
        seed: which scene.
        split: `train`, `val` or `test`; they share neither seeds nor textures.
        num_views: context and target views together.
        size: height and width in pixels.
        real_share: the probability that the real plane sweep renders the targets.

    Returns:
        None where the regressor can make nothing of the scene (no target sees any context point).
    """
    generator = torch.Generator().manual_seed(seed * 7919 + len(split))
    rgb, depth, cameras, _ = procedural_views(seed, num_views, size, size, split=split)
    context = _choose_context(num_views, generator)
    targets = [view for view in range(num_views) if view not in context]
    scene = Scene(name=f"procedural-{split}-{seed}", images=rgb[context], cameras=cameras[context])
    real = float(torch.rand((), generator=generator)) < real_share
    try:
        if real:
            reconstruction = planesweep.PlaneSweep().reconstruct(scene)
        else:
            reconstruction = _spoilt_oracle(scene, depth[context], generator)
        render = reconstruction.render(cameras[targets])
    except InputError:
        return None
    return _pack(scene, rgb[targets], cameras[context + targets], render)


def _choose_context(num_views: int, generator: torch.Generator) -> list[int]:
    """Two to four context views: around the targets, at one end of the path, or spread at random."""
    count = int(torch.randint(2, min(5, num_views), (), generator=generator))
    style = float(torch.rand((), generator=generator))
    if style < 0.5:
        return [round(i * (num_views - 1) / (count - 1)) for i in range(count)]
    if style < 0.7:
        return list(range(0, num_views, 2))[:count]
    return sorted(torch.randperm(num_views, generator=generator)[:count].tolist())


def _spoilt_oracle(
    scene: Scene, depth: Float[Tensor, "V H W"], generator: torch.Generator
) -> planesweep.PlaneSweepReconstruction:
    """A reconstruction from exact depth with the errors that matching makes, and the confidence it would report."""
    inverse = 1 / depth.clamp_min(1e-3)
    seen = _seen_by_another(scene.cameras, depth)
    doubt = F.avg_pool2d((1 - seen)[:, None], 5, 1, 2)[:, 0]
    strength = 0.002 + 0.02 * float(torch.rand((), generator=generator)) ** 2
    inverse = inverse * (1 + strength * _smooth_noise(inverse.shape, 16, generator))
    inverse = inverse * (1 + doubt * 0.15 * _smooth_noise(inverse.shape, 24, generator))
    blurred = F.avg_pool2d(inverse[:, None], 3, 1, 1)[:, 0]
    edge = ((inverse - blurred).abs() / inverse > 0.03).float()
    inverse = torch.where(edge > 0, blurred, inverse)
    wrong = (_smooth_noise(inverse.shape, 12, generator) > 2.2).float()
    shift = 1 + 0.3 * _smooth_noise(inverse.shape, 40, generator)
    inverse = torch.where(wrong > 0, inverse * shift.clamp(0.4, 2), inverse)
    confidence = (1 - doubt) * (1 - 0.5 * edge) * (1 - 0.7 * wrong)
    confidence = confidence * (0.85 + 0.15 * _smooth_noise(inverse.shape, 8, generator)).clamp(0.2, 1)
    return planesweep.PlaneSweepReconstruction(scene, inverse.clamp_min(1e-4), confidence.clamp(0, 1))


def _seen_by_another(cameras: Cameras, depth: Float[Tensor, "V H W"]) -> Float[Tensor, "V H W"]:
    """1 where another context view sees the same surface point, by reprojecting exact depth."""
    num_views, height, width = depth.shape
    y, x = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    pixels = torch.stack([x, y, torch.ones_like(x)]).reshape(3, -1)
    c2w, w2c, K = cameras.c2w.float(), cameras.w2c.float(), cameras.K.float()
    seen = torch.zeros_like(depth)
    for a in range(num_views):
        world = c2w[a, :3, :3] @ (torch.linalg.inv(K[a]) @ pixels * depth[a].view(1, -1)) + c2w[a, :3, 3:]
        for b in range(num_views):
            if a == b:
                continue
            there = w2c[b, :3, :3] @ world + w2c[b, :3, 3:]
            z = there[2].clamp_min(1e-6)
            uv = (K[b] @ there)[:2] / z
            grid = (uv / uv.new_tensor([[width], [height]]) * 2 - 1).T.view(1, height, width, 2)
            other = F.grid_sample(depth[b][None, None], grid, mode="nearest", align_corners=False)[0, 0]
            inside = (grid[0].abs() < 1).all(-1) & (there[2].view(height, width) > 0)
            agrees = (other / z.view(height, width) - 1).abs() < 0.03
            seen[a] = torch.maximum(seen[a], (inside & agrees).float())
    return seen


def _smooth_noise(shape: torch.Size, cell: int, generator: torch.Generator) -> Float[Tensor, "V H W"]:
    """Unit-variance noise with features of about `cell` pixels."""
    views, height, width = shape
    coarse = torch.randn(views, 1, height // cell + 3, width // cell + 3, generator=generator)
    fine = F.interpolate(coarse, size=(height, width), mode="bicubic", align_corners=False)[:, 0]
    return fine / fine.std().clamp_min(1e-6)


def _pack(scene: Scene, truth: Float[Tensor, "V 3 H W"], cameras: Cameras, render: Render) -> Sample:
    """The sample of a rendered scene; `cameras` are the context's, then the targets'."""
    known = torch.ones(len(scene.images), 1, *truth.shape[-2:])
    context_signals = torch.cat([known, known, torch.zeros_like(known)], 1)
    target_signals = torch.stack([render.alpha, render.confidence, render.disagreement], 1)
    return Sample(
        rgb=_bytes(torch.cat([scene.images, truth])),
        render=_bytes(torch.cat([scene.images, render.rgb])),
        signals=_bytes(torch.cat([context_signals, target_signals])),
        c2w=cameras.c2w.float(),
        K=cameras.K.float(),
        depth_unit=render.depth.median().view(1).float(),
        num_context=torch.tensor([len(scene.images)], dtype=torch.uint8),
    )


def _bytes(x: Tensor) -> Tensor:
    """[0, 1] to 0..255."""
    return (x.clamp(0, 1) * 255).round().to(torch.uint8)


def save_samples(samples: list[Sample], path: Path) -> None:
    """Writes samples to one safetensors file, beside and then renamed."""
    tensors = {f"{i}.{f.name}": getattr(s, f.name) for i, s in enumerate(samples) for f in fields(Sample)}
    beside = path.with_suffix(".partial")
    save_file({k: v.contiguous() for k, v in tensors.items()}, beside)
    beside.replace(path)


def load_samples(path: Path) -> list[Sample]:
    """What `save_samples` wrote."""
    tensors = load_file(path)
    count = 1 + max(int(key.split(".")[0]) for key in tensors)
    return [Sample(**{f.name: tensors[f"{i}.{f.name}"] for f in fields(Sample)}) for i in range(count)]
