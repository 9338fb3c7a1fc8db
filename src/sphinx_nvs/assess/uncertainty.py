"""Per-pixel uncertainty of a render from what the regressor says of itself and from the picture.

    u = 1 - alpha (f + (1 - f) confidence) exp(-disagreement / d)

with a floor f that keeps a merely weak match above a hole. Optionally blurry (or sharp) regions are added, as the paper
does: |Laplacian|, smoothed, split by Otsu's threshold. The paper refines the blurry side, its released code the sharp
side; both are offered and neither is on by default, because a regressor that warps photos errs on texture and is never
blurrier than its sources.

Shapes: V views, H W pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float
from scipy import ndimage
from skimage.filters import threshold_otsu
from torch import Tensor

from sphinx_nvs.errors import InputError
from sphinx_nvs.models.base import Render

LUMA = (0.299, 0.587, 0.114)


@dataclass(frozen=True, kw_only=True)
class UncertaintyConfig:
    """Signals and their switches.

    Args:
        use_alpha: holes count.
        use_confidence: weak matching counts.
        use_disagreement: context views that show different colours count.
        confidence_floor: certainty left to a covered pixel with confidence 0, [0, 1].
        disagreement_scale: colour difference at which certainty falls to 1/e.
        blur: which side of the blur split counts as uncertain, `off`, `blurry` (paper) or `sharp` (released code).
        clean_radius: pixels; gaps and islands of the uncertain region smaller than this disappear.
    """

    use_alpha: bool = True
    use_confidence: bool = True
    use_disagreement: bool = True
    confidence_floor: float = 0.35
    disagreement_scale: float = 0.25
    blur: Literal["off", "blurry", "sharp"] = "off"
    clean_radius: int = 2

    def __post_init__(self) -> None:
        if not 0 <= self.confidence_floor <= 1:
            raise InputError("confidence_floor", f"it is {self.confidence_floor:g}", "give a number in 0..1")
        if self.disagreement_scale <= 0:
            raise InputError("disagreement_scale", f"it is {self.disagreement_scale:g}", "give a number above 0")
        if self.clean_radius < 0:
            raise InputError("clean_radius", f"it is {self.clean_radius}", "give 0 or more pixels")


def uncertainty_map(render: Render, config: UncertaintyConfig | None = None) -> Float[Tensor, "V H W"]:
    """How little each pixel can be trusted, [0, 1]."""
    config = config or UncertaintyConfig()
    certainty = torch.ones_like(render.alpha)
    if config.use_alpha:
        certainty = certainty * render.alpha
    if config.use_confidence:
        certainty = certainty * (config.confidence_floor + (1 - config.confidence_floor) * render.confidence)
    if config.use_disagreement:
        certainty = certainty * torch.exp(-render.disagreement / config.disagreement_scale)
    if config.blur != "off":
        blurry = torch.stack([blur_mask(view) for view in render.rgb])
        uncertain = blurry if config.blur == "blurry" else ~blurry
        certainty = torch.where(uncertain, torch.zeros_like(certainty), certainty)
    return _cleaned((1 - certainty).clamp(0, 1), config.clean_radius)


def _cleaned(uncertainty: Float[Tensor, "V H W"], radius: int) -> Float[Tensor, "V H W"]:
    """Grey closing, then opening, per view: what is smaller than the radius is filled or removed."""
    if radius == 0:
        return uncertainty
    size = 2 * radius + 1
    views = [
        ndimage.grey_opening(ndimage.grey_closing(view, size=size, mode="nearest"), size=size, mode="nearest")
        for view in uncertainty.cpu().numpy()
    ]
    return torch.from_numpy(np.stack(views)).to(uncertainty)


def blur_mask(rgb: Float[Tensor, "3 H W"]) -> Bool[Tensor, "H W"]:
    """True where the picture has little detail: |Laplacian|, Gaussian sigma 1, Otsu's split (paper section 3)."""
    grey = np.tensordot(np.array(LUMA, dtype=np.float32), rgb.cpu().numpy(), axes=1)
    detail = ndimage.gaussian_filter(np.abs(ndimage.laplace(grey, mode="mirror")), 1.0)
    if float(np.ptp(detail)) < 1e-6:
        return torch.ones(rgb.shape[1:], dtype=torch.bool, device=rgb.device)
    return torch.from_numpy(detail <= threshold_otsu(detail)).to(rgb.device)
