"""Training samples: a procedural scene, its context views, and what a regressor makes of the other views.

Most samples render from the exact depth, spoilt the way matching spoils it (`spoiling`), because that costs a tenth of
a real plane sweep and runs on any device; the others come from the real regressor, so that its true failures are seen
too.

Shapes: B samples, N views of a sample (context first), V_c of them context, H W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TypeVar, cast

import torch
from jaxtyping import Float, Float32, Int64, UInt8
from safetensors.torch import load_file, save_file
from torch import Tensor

from sphinx_nvs.errors import InputError
from sphinx_nvs.geometry.cameras import Cameras
from sphinx_nvs.models import planesweep
from sphinx_nvs.models.base import Render
from sphinx_nvs.procedural import procedural_views
from sphinx_nvs.scene.scene import Scene
from sphinx_nvs.training.rendering import render_scenes
from sphinx_nvs.training.spoiling import spoil

Stored = TypeVar("Stored")


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


@dataclass(frozen=True, kw_only=True)
class Samples:
    """B samples of one size, view count and context count, on one device; fields as in `Sample`."""

    rgb: UInt8[Tensor, "B N 3 H W"]
    render: UInt8[Tensor, "B N 3 H W"]
    signals: UInt8[Tensor, "B N 3 H W"]
    c2w: Float32[Tensor, "B N 4 4"]
    K: Float32[Tensor, "B N 3 3"]
    depth_unit: Float32[Tensor, "B"]
    num_context: int

    def __len__(self) -> int:
        return len(self.rgb)

    @property
    def key(self) -> tuple[int, int, int]:
        """What samples must share to be stacked: views, context views, pixels of a side."""
        return self.rgb.shape[1], self.num_context, self.rgb.shape[-1]

    def tensors(self) -> dict[str, Tensor]:
        """The tensor fields by name."""
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name != "num_context"}

    def __getitem__(self, index: Int64[Tensor, "_b"]) -> Samples:
        """The samples at `index`."""
        return Samples(num_context=self.num_context, **{k: v[index] for k, v in self.tensors().items()})

    def to(self, device: torch.device | str) -> Samples:
        """The same samples on another device."""
        return Samples(num_context=self.num_context, **{k: v.to(device) for k, v in self.tensors().items()})


def stack_samples(samples: Sequence[Sample]) -> Samples:
    """Samples of one view count, context count and size as one value."""
    parts = {f.name: torch.stack([getattr(s, f.name) for s in samples]) for f in fields(Sample)}
    num_context = int(parts.pop("num_context")[0])
    return Samples(num_context=num_context, **{**parts, "depth_unit": parts["depth_unit"][:, 0]})


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
    # The names of the splits differ in length, so that no two splits draw the same numbers for a seed.
    generator = torch.Generator().manual_seed(seed * 7919 + len(split))
    rgb, depth, cameras, _ = procedural_views(seed, num_views, size, size, split=split)
    order, num_context = choose_context(num_views, generator)
    rgb, depth, cameras = rgb[order], depth[order], cameras[order]
    if float(torch.rand((), generator=generator)) >= real_share:
        made = oracle_samples(rgb[None], depth[None], cameras.c2w[None], cameras.K[None], num_context, generator)
        return _first(made) if len(made) else None
    scene = Scene(name=f"procedural-{split}-{seed}", images=rgb[:num_context], cameras=cameras[:num_context])
    try:
        render = planesweep.PlaneSweep().reconstruct(scene).render(cameras[num_context:])
    except InputError:
        return None
    return _pack(scene, rgb[num_context:], cameras, render)


def choose_context(num_views: int, generator: torch.Generator, num_context: int | None = None) -> tuple[list[int], int]:
    """Which views of a path are known: all views in order, context first, and how many those are.

    Two to six: at both ends and between (interpolation), together at one end (extrapolation), every other one, or
    anywhere. At least two targets remain.
    """
    if num_context is None:
        # Shares of 2 to 6 context views, cut to the counts that leave two targets.
        shares = torch.tensor([0.4, 0.25, 0.15, 0.1, 0.1])[: max(1, min(5, num_views - 3))]
        num_context = 2 + int(torch.multinomial(shares, 1, generator=generator))
    style = float(torch.rand((), generator=generator))
    if style < 0.4:
        context = [round(i * (num_views - 1) / (num_context - 1)) for i in range(num_context)]
    elif style < 0.6:
        context = list(range(num_context))
        context = context if style < 0.5 else [num_views - 1 - view for view in reversed(context)]
    elif style < 0.75 and num_views >= 2 * num_context - 1:
        context = list(range(0, 2 * num_context, 2))
    else:
        context = sorted(torch.randperm(num_views, generator=generator)[:num_context].tolist())
    return context + [view for view in range(num_views) if view not in context], num_context


@torch.no_grad()
def oracle_samples(
    rgb: Float[Tensor, "B N 3 H W"],
    depth: Float[Tensor, "B N H W"],
    c2w: Float[Tensor, "B N 4 4"],
    K: Float[Tensor, "B N 3 3"],
    num_context: int,
    generator: torch.Generator | None,
) -> Samples:
    """Samples whose renders come from spoilt exact depth; scenes of which no target sees anything are left out.

    Args:
        rgb: true pictures in [0, 1], context views first.
        depth: their exact z-depth.
        c2w: their poses.
        K: their intrinsics in pixels.
        num_context: how many views are context.
        generator: on the tensors' device; None for the global one.
    """
    known = slice(num_context)
    found = spoil(depth[:, known], c2w[:, known], K[:, known], generator)
    render = render_scenes(rgb[:, known], found.inverse_depth, found.confidence, c2w, K)
    targets = torch.stack([render.alpha, render.confidence, render.disagreement], 2)
    # A context view is a photograph: covered everywhere, certain, undisputed.
    sure = torch.tensor([1.0, 1.0, 0.0], device=rgb.device).view(1, 1, 3, 1, 1)
    samples = Samples(
        rgb=as_bytes(rgb),
        render=as_bytes(torch.cat([rgb[:, known], render.rgb], 1)),
        signals=as_bytes(torch.cat([sure.expand_as(rgb[:, known]), targets], 1)),
        c2w=c2w.float(),
        K=K.float(),
        depth_unit=render.depth.flatten(1).median(1).values,
        num_context=num_context,
    )
    return samples[render.covered.nonzero()[:, 0]]


def _first(samples: Samples) -> Sample:
    """The first of a stack, by itself."""
    parts = {k: v[0] for k, v in samples.tensors().items()}
    parts["depth_unit"] = parts["depth_unit"].view(1)
    return Sample(num_context=torch.tensor([samples.num_context], dtype=torch.uint8), **parts)


def _pack(scene: Scene, truth: Float[Tensor, "V 3 H W"], cameras: Cameras, render: Render) -> Sample:
    """The sample of a rendered scene; `cameras` are the context's, then the targets'."""
    known = torch.ones(len(scene.images), 1, *truth.shape[-2:])
    context_signals = torch.cat([known, known, torch.zeros_like(known)], 1)
    target_signals = torch.stack([render.alpha, render.confidence, render.disagreement], 1)
    return Sample(
        rgb=as_bytes(torch.cat([scene.images, truth])),
        render=as_bytes(torch.cat([scene.images, render.rgb])),
        signals=as_bytes(torch.cat([context_signals, target_signals])),
        c2w=cameras.c2w.float(),
        K=cameras.K.float(),
        depth_unit=render.depth.median().view(1).float(),
        num_context=torch.tensor([len(scene.images)], dtype=torch.uint8),
    )


def as_bytes(x: Tensor) -> Tensor:
    """[0, 1] to 0..255."""
    return (x.clamp(0, 1) * 255).round().to(torch.uint8)


def save_samples(samples: Sequence[Any], path: Path) -> None:
    """Writes samples of one kind, dataclasses of tensors, to one safetensors file: beside, then renamed."""
    tensors = {f"{i}.{f.name}": getattr(s, f.name) for i, s in enumerate(samples) for f in fields(s)}
    beside = path.with_suffix(".partial")
    save_file({k: v.contiguous() for k, v in tensors.items()}, beside)
    beside.replace(path)


def load_samples(path: Path, kind: type[Stored]) -> list[Stored]:
    """What `save_samples` wrote of that kind.

    Raises:
        InputError: the file holds samples of another kind.
    """
    tensors = load_file(path)
    count = 1 + max(int(key.split(".")[0]) for key in tensors)
    names = [field.name for field in fields(cast(Any, kind))]
    missing = [name for name in names if f"0.{name}" not in tensors]
    if missing:
        hint = f"name a pool of {kind.__name__}s, see docs/how-to/train-the-embedded-pair.md"
        raise InputError(f"pool {path}", f"its samples have no {missing[0]}", hint)
    return [kind(**{name: tensors[f"{i}.{name}"] for name in names}) for i in range(count)]
