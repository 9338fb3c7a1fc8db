"""Conversion of a scene's units to those the network was trained in.

The network searches depths between 1 and 100. Its training scenes, RealEstate10K's, were scaled so that a sequence's
nearest frames have the 5th percentile of their depth at 1.25 (Stereo magnification; Zhou et al., 2018, section 4.2); a
typical frame has it at about 1.5. Rules:

    measured   scales to that value: a small plane sweep estimates the percentile; `baseline` if it finds no matches
    baseline   the typical distance to the nearest other view becomes 1 (as in pixelSplat; Charatan et al., 2024)
    world      keeps the units; for RealEstate10K and ACID as published

With s the factor and o the mean of the context cameras' centres, x_network = s (x_world - o).

Shapes: V views.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float64
from torch import Tensor

from sphinx_nvs.errors import InputError
from sphinx_nvs.geometry.cameras import Cameras
from sphinx_nvs.media import resize
from sphinx_nvs.models.planesweep import PlaneSweep, PlaneSweepConfig
from sphinx_nvs.scene.scene import Scene

RULES = ("measured", "baseline", "world")
NEAREST = 1.5  # depth of the training scenes' nearest surfaces, network units
NEAREST_QUANTILE = 0.95  # quantile of inverse depth
MEASURED_PX = 64  # short side at which depth is measured
MEASURED_PLANES = 64
CONFIDENT, LEAST_CONFIDENT = 0.5, 0.02  # confidence that counts, and the share of pixels that must have it


@dataclass(frozen=True)
class Units:
    """x_network = scale (x_world - origin)."""

    origin: Float64[Tensor, "3"]
    scale: float

    def network_cameras(self, cameras: Cameras) -> Cameras:
        """The same cameras in the network's units."""
        c2w = cameras.c2w.clone()
        c2w[:, :3, 3] = self.scale * (c2w[:, :3, 3] - self.origin.to(c2w))
        return Cameras(c2w, cameras.K, cameras.height, cameras.width)


def network_units(scene: Scene, rule: str) -> Units:
    """The units of a scene whose views are not all at one place.

    Args:
        scene: the context views.
        rule: one of `RULES`.

    Raises:
        InputError: the rule is unknown.
    """
    if rule not in RULES:
        raise InputError("units", f"{rule!r}", f"give one of {', '.join(RULES)}")
    scale = 1.0
    if rule != "world":
        nearest = _nearest_surface(scene) if rule == "measured" else None
        scale = 1 / _typical_baseline(scene.cameras) if nearest is None else NEAREST / nearest
    return Units(scene.cameras.centres.mean(0), scale)


def _typical_baseline(cameras: Cameras) -> float:
    """Median over the views of the distance to the nearest view at another place, world units."""
    distance = torch.cdist(cameras.centres, cameras.centres)
    distance[distance <= 1e-6 * distance.max()] = torch.inf
    nearest = distance.amin(1)
    return float(nearest[nearest.isfinite()].median())


def _nearest_surface(scene: Scene) -> float | None:
    """The 5th percentile of depth in world units, or None if too few pixels match."""
    height, width = scene.images.shape[-2:]
    shrink = MEASURED_PX / min(height, width)
    if shrink < 1:
        size = (round(height * shrink), round(width * shrink))
        scene = Scene(name=scene.name, images=resize(scene.images, *size), cameras=scene.cameras.resized(*size))
    found = PlaneSweep(PlaneSweepConfig(max_planes=MEASURED_PLANES)).reconstruct(scene)
    if (found.confidence > CONFIDENT).float().mean() < LEAST_CONFIDENT:
        return None
    # All pixels, completed ones too: the nearest surfaces are often seen by one view only.
    return 1 / float(found.inverse_depth.flatten().quantile(NEAREST_QUANTILE))
