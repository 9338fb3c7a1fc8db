"""Per-pixel uncertainty of a render from the regressor's own maps, the picture and the cameras.

    u = 1 - alpha (f + (1 - f) confidence) exp(-disagreement / d) exp(-distance / s) (1 - w blur)

with a floor f that keeps a merely weak match above a hole. Distance is that of `context_distance`. Blur is one side of
a split of the picture, |Laplacian|, smoothed, by Otsu's threshold: the paper refines the blurry side, its released code
the sharp side. A regressor that warps photos errs on texture and is never blurrier than its sources, so by default the
sharp side counts, and as a hint (w below 1) where the paper takes it for certain (w = 1). Switches and constants were
chosen on validation scenes; docs/reports/assessment.md has what each signal predicts on others.

Shapes: V views, H W pixels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from sphinx_nvs.assess.distance import context_distance
from sphinx_nvs.errors import InputError
from sphinx_nvs.geometry.cameras import Cameras
from sphinx_nvs.models.base import Render

LUMA = (0.299, 0.587, 0.114)
BLUR_SIDES = ("off", "blurry", "sharp")

_SECOND_DIFFERENCE = np.array([1.0, -2.0, 1.0])
_GAUSSIAN = np.exp(-0.5 * np.arange(-4, 5) ** 2) / np.exp(-0.5 * np.arange(-4, 5) ** 2).sum()
"""Sigma 1, cut off at four sigma."""


@dataclass(frozen=True, kw_only=True)
class UncertaintyConfig:
    """Signals and their switches.

    Args:
        use_alpha: holes count.
        use_confidence: weak matching counts.
        use_disagreement: context views that show different colours count.
        use_distance: points that no near context camera sees count.
        confidence_floor: certainty left to a covered pixel with confidence 0, [0, 1].
        disagreement_scale: colour difference at which certainty falls to 1/e.
        distance_scale: baseline over depth at which certainty falls to 1/e.
        blur: which side of the blur split counts as uncertain, `off`, `blurry` (paper) or `sharp` (released code).
        blur_weight: share of certainty that is lost on that side, [0, 1]; paper and released code: 1.
        clean_radius: pixels; gaps and islands of the uncertain region smaller than this disappear.
    """

    use_alpha: bool = True
    use_confidence: bool = True
    use_disagreement: bool = True
    use_distance: bool = True
    confidence_floor: float = 0.4
    disagreement_scale: float = 0.2
    distance_scale: float = 2.0
    blur: str = "sharp"
    blur_weight: float = 0.3
    clean_radius: int = 2

    def __post_init__(self) -> None:
        for name in ("confidence_floor", "blur_weight"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(name, f"it is {getattr(self, name):g}", "give a number in 0..1")
        for name in ("disagreement_scale", "distance_scale"):
            if not getattr(self, name) > 0:
                raise InputError(name, f"it is {getattr(self, name):g}", "give a number above 0")
        if self.blur not in BLUR_SIDES:
            raise InputError("blur", f"it is {self.blur!r}", f"choose one of {', '.join(BLUR_SIDES)}")
        if self.clean_radius < 0:
            raise InputError("clean_radius", f"it is {self.clean_radius}", "give 0 or more pixels")


def uncertainty_map(
    render: Render, context: Cameras, targets: Cameras, config: UncertaintyConfig | None = None
) -> Float[Tensor, "V H W"]:
    """Uncertainty of each pixel, [0, 1].

    Args:
        render: render of the target views.
        context: cameras of the photos behind the render.
        targets: cameras of the render.
        config: signals and their switches.
    """
    config = config or UncertaintyConfig()
    certainty = torch.ones_like(render.alpha)
    for doubt in signal_maps(render, context, targets, config).values():
        # As independent probabilities: any one signal alone can make a pixel uncertain.
        certainty = certainty * (1 - doubt)
    return _cleaned((1 - certainty).clamp(0, 1), config.clean_radius)


def signal_maps(
    render: Render, context: Cameras, targets: Cameras, config: UncertaintyConfig | None = None
) -> dict[str, Float[Tensor, "V H W"]]:
    """By name, the uncertainty that each signal that is switched on would give on its own, [0, 1], not cleaned up.

    Args:
        render: render of the target views.
        context: cameras of the photos behind the render.
        targets: cameras of the render.
        config: signals and their switches.
    """
    config = config or UncertaintyConfig()
    maps = {}
    if config.use_alpha:
        maps["alpha"] = 1 - render.alpha
    if config.use_confidence:
        maps["confidence"] = (1 - config.confidence_floor) * (1 - render.confidence)
    if config.use_disagreement:
        maps["disagreement"] = 1 - torch.exp(-render.disagreement / config.disagreement_scale)
    if config.use_distance:
        maps["distance"] = 1 - torch.exp(-context_distance(context, targets, render.depth) / config.distance_scale)
    if config.blur != "off":
        blurry = torch.stack([blur_mask(view) for view in render.rgb])
        maps["blur"] = config.blur_weight * (blurry if config.blur == "blurry" else ~blurry).to(render.alpha)
    return maps


def _cleaned(uncertainty: Float[Tensor, "V H W"], radius: int) -> Float[Tensor, "V H W"]:
    """Grey closing, then opening, per view: what is smaller than the radius is filled or removed."""
    if radius == 0:
        return uncertainty
    dilated, eroded = (torch.maximum, -torch.inf), (torch.minimum, torch.inf)
    views = []
    # View by view: the maps of one fit the cache.
    for view in uncertainty:
        for best, nothing in (dilated, eroded, eroded, dilated):
            view = _best_around(view, radius, best, nothing)
        views.append(view)
    return torch.stack(views)


def _best_around(
    view: Float[Tensor, "H W"], radius: int, best: Callable[[Tensor, Tensor], Tensor], nothing: float
) -> Float[Tensor, "H W"]:
    """The best value in a square around each pixel, one axis after the other; `nothing` counts outside."""
    for _ in range(2):
        view = F.pad(view.T, (0, 0, radius, radius), value=nothing)
        # Windows of twice the length from two of the former ones, until they have the square's side.
        length = 1
        while length <= 2 * radius:
            step = min(length, 2 * radius + 1 - length)
            view, length = best(view[:-step], view[step:]), length + step
    return view


def blur_mask(rgb: Float[Tensor, "3 H W"]) -> Bool[Tensor, "H W"]:
    """True where the picture has little detail: |Laplacian|, Gaussian sigma 1, Otsu's split (paper section 3)."""
    grey = np.tensordot(np.array(LUMA, dtype=np.float32), rgb.cpu().numpy(), axes=1)
    laplacian = sum(_filtered(grey, axis, _SECOND_DIFFERENCE, whole=True) for axis in (0, 1))
    detail = np.abs(laplacian)
    for axis in (0, 1):
        detail = _filtered(detail, axis, _GAUSSIAN, whole=False)
    # Otsu's method needs two values; a picture of one colour is all blurry.
    if float(np.ptp(detail)) < 1e-6:
        return torch.ones(rgb.shape[1:], dtype=torch.bool, device=rgb.device)
    return torch.from_numpy(detail <= _otsu(detail)).to(rgb.device)


def _filtered(
    image: Float[np.ndarray, "H W"], axis: int, taps: Float[np.ndarray, "n"], *, whole: bool
) -> Float[np.ndarray, "H W"]:
    """The image convolved with an odd number of symmetric taps along an axis, in double precision.

    Args:
        image: the image.
        axis: 0 for down, 1 for across.
        taps: the filter.
        whole: whether the image is mirrored at its last pixels' centres, or else at their outer edges.
    """
    image, length, reach = np.moveaxis(image, axis, 0), image.shape[axis], len(taps) // 2
    padded = np.pad(image, ((reach, reach), (0, 0)), mode="reflect" if whole else "symmetric").astype(np.float64)
    filtered = sum(tap * padded[i : i + length] for i, tap in enumerate(taps))
    return np.moveaxis(np.asarray(filtered, dtype=image.dtype), 0, axis)


def _otsu(values: Float[np.ndarray, "H W"]) -> float:
    """The threshold at which the variance between both sides is largest (Otsu 1979), from 256 bins."""
    counts, edges = np.histogram(values, 256)
    centres, counts = (edges[1:] + edges[:-1]) / 2, counts.astype(np.float32)
    below, above = counts.cumsum(), counts[::-1].cumsum()[::-1]
    mean_below = (counts * centres).cumsum() / below
    mean_above = (counts * centres)[::-1].cumsum()[::-1] / above
    between = below[:-1] * above[1:] * (mean_below[:-1] - mean_above[1:]) ** 2
    return float(centres[between.argmax()])
