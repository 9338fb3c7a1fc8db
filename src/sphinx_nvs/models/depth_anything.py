"""A regressor that predicts depth from single photos where no other view confirms it.

A monocular network predicts relative inverse depth r for every photo, up to an affine map. Plane sweep measures true
inverse depth w with confidence c, but only where views match. So the map is fitted to the confident part of plane sweep
and replaces the rest:

    (a, b) = argmin sum c rho(a r + b - w),        w' = c w + (1 - c) (a r + b)          per view

with rho the Geman-McClure loss, by iteratively reweighted least squares. Rendering is plane sweep's. The network is
Depth Anything (Yang et al., 2024; V2-Small is under Apache-2.0, the larger ones are for non-commercial use) in the
implementation of transformers, imported on load; any function from photos to relative inverse depth works.

Shapes: V context views, H W pixels.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from sphinx_nvs.errors import InputError
from sphinx_nvs.media import resize
from sphinx_nvs.models.planesweep import PlaneSweep, PlaneSweepReconstruction
from sphinx_nvs.scene.scene import Scene

Monocular = Callable[[Float[Tensor, "V 3 H W"]], Float[Tensor, "V H W"]]
"""Maps photos in [0, 1] to relative inverse depth: greater is nearer, at any scale."""

IMAGE_MEAN, IMAGE_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
ROUNDS = 8
LEAST_INVERSE_DEPTH = 0.02  # relative to the view's median


@dataclass(frozen=True)
class DepthAnything:
    """Plane sweep with depths from a monocular network where they are unconfirmed."""

    monocular: Monocular
    sweep: PlaneSweep = field(default_factory=PlaneSweep)
    name: str = "depth-anything"
    min_context_views: int = 2

    @torch.no_grad()
    def reconstruct(self, scene: Scene) -> PlaneSweepReconstruction:
        """Estimates inverse depth for every pixel of every context view.

        Raises:
            InputError: there are fewer than two views, or all are at one place.
        """
        found = self.sweep.reconstruct(scene)
        guess = self.monocular(scene.images).to(found.inverse_depth)
        views = zip(guess, found.inverse_depth, found.confidence, strict=True)
        return replace(found, inverse_depth=torch.stack([_merged(r, w, c) for r, w, c in views]))


@dataclass(frozen=True)
class DepthAnythingNetwork:
    """A `Monocular` that wraps transformers' `DepthAnythingForDepthEstimation`.

    Args:
        model: the network, in evaluation mode.
        short_side: short side in pixels to which photos are resized for the network.
    """

    model: Any
    short_side: int = 392

    def __call__(self, images: Float[Tensor, "V 3 H W"]) -> Float[Tensor, "V H W"]:
        """Predicts relative inverse depth at the photos' size."""
        size, patch = images.shape[-2:], self.model.config.patch_size
        scale = self.short_side / min(size) / patch
        seen = resize(images, *(max(round(side * scale), 1) * patch for side in size))
        mean, std = (seen.new_tensor(values).view(1, 3, 1, 1) for values in (IMAGE_MEAN, IMAGE_STD))
        predicted = self.model(pixel_values=((seen - mean) / std).to(self.model.device)).predicted_depth
        return resize(predicted[:, None].float().to(images.device), *size)[:, 0]


def load_depth_anything(folder: Path, *, device: str | torch.device = "cpu") -> DepthAnything:
    """Loads the regressor with a network from a folder in transformers' layout; nothing is downloaded.

    Args:
        folder: contains `config.json` and `model.safetensors`, e.g. a copy of Depth-Anything-V2-Small-hf.
        device: device of the network.

    Raises:
        InputError: transformers is not installed, or the folder holds no such network.
    """
    try:
        transformers = importlib.import_module("transformers")
    except ImportError as error:
        raise InputError("packages", "transformers is not importable", "run: pip install transformers") from error
    if not (folder / "config.json").is_file():
        found = "there is no config.json"
        raise InputError(str(folder), found, "give a folder with config.json and model.safetensors")
    try:
        model = transformers.DepthAnythingForDepthEstimation.from_pretrained(
            folder, local_files_only=True, use_safetensors=True
        )
    except (OSError, ValueError, RuntimeError) as error:
        found = f"no Depth Anything network can be read ({str(error).splitlines()[0]})"
        raise InputError(str(folder), found, "download Depth-Anything-V2-Small-hf again") from error
    return DepthAnything(DepthAnythingNetwork(model.to(device).eval().requires_grad_(False)))


def _merged(
    relative: Float[Tensor, "H W"], inverse_depth: Float[Tensor, "H W"], confidence: Float[Tensor, "H W"]
) -> Float[Tensor, "H W"]:
    """The merged w' of one view; w itself if r and w are not positively correlated."""
    a, b = _fit(relative, inverse_depth, confidence)
    if not a > 0:
        return inverse_depth
    guess = (a * relative + b).clamp_min(LEAST_INVERSE_DEPTH * float(inverse_depth.median()))
    return torch.lerp(guess, inverse_depth, confidence)


def _fit(
    relative: Float[Tensor, "H W"], inverse_depth: Float[Tensor, "H W"], confidence: Float[Tensor, "H W"]
) -> tuple[float, float]:
    """Scale a and shift b from relative to true inverse depth; a is 0 if the fit is degenerate."""
    r, w, c = (part.flatten().double() for part in (relative, inverse_depth, confidence))
    weight, a, b = c, 0.0, 0.0
    for _ in range(ROUNDS):
        total = weight.sum().clamp_min(1e-12)
        mean_r, mean_w = (weight * r).sum() / total, (weight * w).sum() / total
        # Weighted linear regression in closed form; a constant r has no slope.
        spread = (weight * (r - mean_r).square()).sum()
        if float(spread) <= 1e-12 * float(total * r.square().mean()):
            return 0.0, 0.0
        a = float((weight * (r - mean_r) * (w - mean_w)).sum() / spread)
        b = float(mean_w) - a * float(mean_r)
        error = a * r + b - w
        # The residuals' median is the robust scale of the Geman-McClure loss.
        scale = error[c > 0].abs().median().clamp_min(1e-9)
        weight = c / (1 + (error / (2 * scale)).square()).square()
    return a, b
