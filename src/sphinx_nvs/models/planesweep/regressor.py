"""The regressor without weights: plane-sweep stereo for every context view, in two passes.

1. Range: at a quarter of the size, planes from infinity to half a baseline away, one pixel of parallax apart;
   the inverse depths of confident pixels bound the scene.
2. Depth: at full size, planes over that range. Matching (`matching_cost`), aggregation (`sgm`), agreement between the
   views (`depth_consistency`), completion of pixels that no other view confirms (`completion`).

Shapes: V context views, D planes, H W pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from sphinx_nvs.errors import InputError
from sphinx_nvs.geometry.cameras import Cameras
from sphinx_nvs.models.planesweep import matching_kernels
from sphinx_nvs.models.planesweep.completion import CompletionConfig, complete
from sphinx_nvs.models.planesweep.depth_consistency import consistency, support
from sphinx_nvs.models.planesweep.matching_cost import Patches, cost_volume, grey_from_rgb, reference_patches
from sphinx_nvs.models.planesweep.reconstruction import PlaneSweepReconstruction, RenderConfig, is_compiled
from sphinx_nvs.models.planesweep.sgm import FAR_PLANES, aggregate, best_inverse_depth
from sphinx_nvs.models.planesweep.sources import check_parallax, choose_sources, parallax
from sphinx_nvs.models.planesweep.splatting import homography
from sphinx_nvs.nn.row_bands import in_bands, interleaved
from sphinx_nvs.scene.scene import Scene

FEWEST_PLANES = 16
CONFIDENT = 0.5  # confidence from which a pixel contributes to the range
RANGE_QUANTILES = (0.02, 0.98)  # mismatches lie outside
RANGE_MARGIN = (0.8, 1.15)
LARGE = 50_000_000
"""Costs (planes times pixels) from which memory counts more than a second thread."""


@dataclass(frozen=True, kw_only=True)
class PlaneSweepConfig:
    """Parameters of the reconstruction.

    Args:
        num_sources: number of views that each view is matched against, at most.
        max_planes: upper bound on the planes of the fine pass; fewer are used if they would be closer than
            `plane_px`.
        plane_px: parallax between neighbouring planes, in pixels.
        nearest_baselines: nearest depth searched, in distances to the nearest source view.
        patch_radius: radius of the correlation patches, in pixels.
        colour_trunc: colour difference at which a mismatch is complete.
        colour_mix: share of the colour difference in the matching cost.
        small_step: penalty of a step by one plane between neighbouring pixels.
        big_step: penalty of a larger step.
        confidence_floor: weight of unconfirmed depth in the completion.
        completion: weights of the completion.
        render: how the reconstruction is rendered.
    """

    num_sources: int = 2
    max_planes: int = 96
    plane_px: float = 1.0
    nearest_baselines: float = 0.5
    patch_radius: int = 3
    colour_trunc: float = 0.12
    colour_mix: float = 0.3
    small_step: float = 0.2
    big_step: float = 2.5
    confidence_floor: float = 0.03
    completion: CompletionConfig = field(default_factory=CompletionConfig)
    render: RenderConfig = field(default_factory=RenderConfig)

    def __post_init__(self) -> None:
        if self.num_sources < 1:
            raise InputError("PlaneSweepConfig.num_sources", f"{self.num_sources}", "give 1 or more")
        if self.max_planes < FEWEST_PLANES:
            found = f"{self.max_planes}"
            raise InputError("PlaneSweepConfig.max_planes", found, f"give {FEWEST_PLANES} or more")
        for name in ("plane_px", "nearest_baselines", "colour_trunc", "confidence_floor"):
            if not getattr(self, name) > 0:
                raise InputError(f"PlaneSweepConfig.{name}", f"{getattr(self, name)}", "give a value above 0")
        if not 0 <= self.colour_mix <= 1:
            raise InputError("PlaneSweepConfig.colour_mix", f"{self.colour_mix}", "give a value in [0, 1]")


@dataclass(frozen=True)
class PlaneSweep:
    """Regressor without weights: depth from plane-sweep stereo, colours from the photos."""

    config: PlaneSweepConfig = field(default_factory=PlaneSweepConfig)
    name: str = "planesweep"
    min_context_views: int = 2

    @torch.no_grad()
    def reconstruct(self, scene: Scene) -> PlaneSweepReconstruction:
        """Estimates inverse depth and confidence for every pixel of every context view.

        Raises:
            InputError: there are fewer than two views, or all are at one place.
        """
        check_parallax(scene.cameras)
        sources = choose_sources(scene.cameras, self.config.num_sources)
        low, high = self._range(scene, sources)
        planes = self._planes(scene.cameras, sources, low, high, self.config.max_planes)
        inverse_depth, confidence = self._match(scene, sources, planes)
        compiled = is_compiled(self.config.render, scene.images.device)
        confidence = confidence * support(inverse_depth, confidence, compiled=compiled)
        inverse_depth = complete(
            inverse_depth,
            confidence.clamp_min(self.config.confidence_floor),
            grey_from_rgb(scene.images),
            self.config.completion,
            compiled=compiled,
        )
        return PlaneSweepReconstruction(scene, inverse_depth, confidence, self.config.render)

    def _range(self, scene: Scene, sources: Sequence[Sequence[int]]) -> tuple[float, float]:
        """Least and greatest inverse depth of the scene, with a margin."""
        small = _quartered(scene)
        centres = scene.cameras.centres
        nearest = min(float((centres[v] - centres[s[0]]).norm()) for v, s in enumerate(sources))
        high = 1 / (self.config.nearest_baselines * nearest)
        # Twice as many planes: at a quarter of the size each costs a sixteenth, and the range is not known yet.
        planes = self._planes(small.cameras, sources, 1e-3 * high, high, 2 * self.config.max_planes)
        inverse_depth, confidence = self._match(small, sources, planes)
        seen = inverse_depth[confidence > CONFIDENT]
        # Too few confident pixels would make the quantiles arbitrary.
        if len(seen) < 0.01 * inverse_depth.numel():
            seen = inverse_depth.flatten()
        low, high = (float(q) for q in torch.quantile(seen, seen.new_tensor(RANGE_QUANTILES)))
        return max(low * RANGE_MARGIN[0], 1e-4 * high), high * RANGE_MARGIN[1]

    def _planes(
        self, cameras: Cameras, sources: Sequence[Sequence[int]], low: float, high: float, most: int
    ) -> Float[Tensor, " D"]:
        """Inverse depths from `low` to `high`, `plane_px` of parallax apart in the widest pair."""
        widest = max(
            parallax(cameras[view], cameras[other], low, high)
            for view, others in enumerate(sources)
            for other in others
        )
        count = round(widest / self.config.plane_px) + 1
        return torch.linspace(low, high, min(max(count, FEWEST_PLANES), most))

    def _match(
        self, scene: Scene, sources: Sequence[Sequence[int]], planes: Float[Tensor, " D"]
    ) -> tuple[Float[Tensor, "V H W"], Float[Tensor, "V H W"]]:
        """Inverse depth of every pixel from its own matches, and its confidence."""
        planes = planes.to(scene.images)
        views = [self._match_view(scene, view, others, planes) for view, others in enumerate(sources)]
        inverse_depth, distinctness = (torch.stack(parts) for parts in zip(*views, strict=True))
        agreement = consistency(inverse_depth, scene.cameras, sources, float(planes[1] - planes[0]))
        # Agreement of two views counts most; a flat minimum takes at most three quarters of it.
        return inverse_depth, agreement * (0.25 + 0.75 * (6 * distinctness).clamp(0, 1))

    def _match_view(
        self, scene: Scene, view: int, others: Sequence[int], planes: Float[Tensor, " D"]
    ) -> tuple[Float[Tensor, "H W"], Float[Tensor, "H W"]]:
        """Inverse depth of one view from its sources, and the distinctness of each minimum."""
        config, cameras = self.config, scene.cameras
        # A patch must fit into the image, down to frames of a few pixels.
        radius = min(config.patch_radius, (min(cameras.height, cameras.width) - 1) // 2)
        patches = reference_patches(scene.images[view], radius)
        images, sources = scene.images[list(others)], cameras[list(others)]
        if is_compiled(config.render, images.device):
            return self._match_compiled(patches, cameras[view], images, sources, planes, radius)
        cost = cost_volume(
            patches, cameras[view], images, sources, planes, radius, config.colour_trunc, config.colour_mix
        )
        return best_inverse_depth(aggregate(cost, patches.grey, config.small_step, config.big_step), planes)

    def _match_compiled(
        self,
        patches: Patches,
        reference: Cameras,
        images: Float[Tensor, "S 3 H W"],
        sources: Cameras,
        planes: Float[Tensor, " D"],
        radius: int,
    ) -> tuple[Float[Tensor, "H W"], Float[Tensor, "H W"]]:
        """`_match_view` by compiled kernels."""
        config, size = self.config, patches.grey.shape
        A, b = (part.float() for part in homography(reference.K[0], reference.c2w[0], sources.K, sources.c2w))
        costs = torch.empty(len(planes), *size)
        # A row and a column more, so that every place has a neighbour.
        repeated = F.pad(images, (0, 1, 0, 1), mode="replicate")
        of_view = patches.image, patches.grey, patches.mean, patches.variance, patches.count
        weights = config.colour_trunc, config.colour_mix
        in_bands(
            matching_kernels.plane_costs,
            len(planes),
            *of_view,
            interleaved(repeated),
            A,
            b,
            planes,
            radius,
            *weights,
            costs,
        )
        # Planes of a pixel beside one another, as the scans want them.
        costs = costs.permute(1, 2, 0).contiguous()
        # Each scan adds to sums of its own, so that two threads can work; large ones share, one after the other.
        both = torch.get_num_threads() > 1 and costs.numel() <= LARGE
        totals = torch.zeros(2 if both else 1, *costs.shape)
        steps = config.small_step, config.big_step
        in_bands(matching_kernels.scan_directions, 2, costs, patches.grey, *steps, totals, fewest=1 if both else 2)
        inverse_depth, distinctness = torch.empty(size), torch.empty(size)
        in_bands(matching_kernels.best_planes, size[0], totals, planes, FAR_PLANES, inverse_depth, distinctness)
        return inverse_depth, distinctness


def _quartered(scene: Scene) -> Scene:
    """The scene at a quarter of its size, with sides of at least 8 pixels unless they were smaller."""
    height, width = (max(length // 4, min(length, 8)) for length in (scene.cameras.height, scene.cameras.width))
    images = F.interpolate(scene.images, size=(height, width), mode="area")
    return Scene(name=scene.name, images=images, cameras=scene.cameras.resized(height, width))
