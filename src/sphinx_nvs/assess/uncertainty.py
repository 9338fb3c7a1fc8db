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

from dataclasses import dataclass

import numpy as np
import scipy  # Its parts and scikit-image's come with their first use, which a start need not wait for.
import skimage
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from sphinx_nvs.assess.distance import context_distance
from sphinx_nvs.errors import InputError
from sphinx_nvs.geometry.cameras import Cameras
from sphinx_nvs.models.base import Render

LUMA = (0.299, 0.587, 0.114)
BLUR_SIDES = ("off", "blurry", "sharp")


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
    size = 2 * radius + 1
    views = [
        scipy.ndimage.grey_opening(scipy.ndimage.grey_closing(view, size=size, mode="nearest"), size=size, mode="nearest")
        for view in uncertainty.cpu().numpy()
    ]
    return torch.from_numpy(np.stack(views)).to(uncertainty)


def blur_mask(rgb: Float[Tensor, "3 H W"]) -> Bool[Tensor, "H W"]:
    """True where the picture has little detail: |Laplacian|, Gaussian sigma 1, Otsu's split (paper section 3)."""
    grey = np.tensordot(np.array(LUMA, dtype=np.float32), rgb.cpu().numpy(), axes=1)
    detail = scipy.ndimage.gaussian_filter(np.abs(scipy.ndimage.laplace(grey, mode="mirror")), 1.0)
    # Otsu's method needs two values; a picture of one colour is all blurry.
    if float(np.ptp(detail)) < 1e-6:
        return torch.ones(rgb.shape[1:], dtype=torch.bool, device=rgb.device)
    return torch.from_numpy(detail <= skimage.filters.threshold_otsu(detail)).to(rgb.device)
