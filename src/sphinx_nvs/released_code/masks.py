"""Uncertainty by the rules of the paper's released code, pixel for pixel, so that its plans can be compared with ours.

One mask serves all views: the union over views of holes, alpha < 0.5, and of *sharp* pixels (the paper speaks of blurry
ones; scenes of the hole-only cluster leave them out), closed 5x5, opened 3x3, and kept or grown wherever a 9x9 window
holds 25 masked pixels. Sharp is what the blur detector does not call blurry: on 8-bit grey (red and blue swapped), the
5-point Laplacian's magnitude, smoothed with sigma 1, stretched to 0..255, inverted and split by Otsu's threshold.

A view's score is its no-reference quality over a benchmark between the first and the last context view, at positions
spread evenly over 0.05..0.95 whatever its camera. The released code scores by MUSIQ; without its weights, our
score stands in.

Reference: Sphinx (arXiv 2511.18672); rules by the project's notes on its released code, checked on recorded tensors.

Shapes: V target views, V_c context views, H W pixels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import scipy  # Its parts come with their first use, which a start need not wait for.
import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from sphinx_nvs.assess.quality import eased_benchmark, scene_descriptor
from sphinx_nvs.models.base import Render
from sphinx_nvs.scene.scene import Scene

HOLE_ALPHA = 0.5
WINDOW, WINDOW_COUNT = 9, 25
FIRST_POSITION, LAST_POSITION = 0.05, 0.95
HOLES_ONLY_CLUSTER = 1
"""The scene cluster whose sharp pixels the released code leaves alone."""

# OpenCV's fixed-point weights of red, green and blue, applied to swapped channels.
_GREY, _GREY_BITS = (3735, 19235, 9798), 15
_REACH = 4  # pixels that the smoothing reaches to each side

MUSIQ, OUR_SCORE = "MUSIQ", "our score"
"""The released code's score, and the score that stands in for it."""

STAND_INS = (
    "the research plan scores views as ours does, in the place of MUSIQ: its weights are not part of this package",
    "the research plan takes every scene for one of cluster 0: the clusters' centres are not part of this package",
)
"""Notes in the report of a plan made with this package alone."""

Score = Callable[[Tensor], Tensor]
"""No-reference quality of images `V 3 H W` in [0, 1]; positive, larger is better."""


@dataclass(frozen=True, kw_only=True)
class ResearchAssessment:
    """The inputs of the released code's planner.

    Args:
        holes: pixels to refine in any view by their alpha alone, cleaned.
        holes_or_sharp: the same with sharp pixels.
        scores: quality of each render over the benchmark at its place.
        score_name: what measured it.
        descriptor: scene descriptor, which selects the cluster.
    """

    holes: Bool[Tensor, "H W"]
    holes_or_sharp: Bool[Tensor, "H W"]
    scores: Float[Tensor, "V"]
    score_name: str
    descriptor: Float[Tensor, "D"]

    def mask(self, cluster: int) -> Bool[Tensor, "H W"]:
        """Pixels to refine in a scene of `cluster`."""
        return self.holes if cluster == HOLES_ONLY_CLUSTER else self.holes_or_sharp


def research_assess(
    scene: Scene, render: Render, scores: Float[Tensor, "V"], *, score_name: str = OUR_SCORE
) -> ResearchAssessment:
    """Assesses a render as the released code does.

    Args:
        scene: the context views, in the order of the path.
        render: render of the target views, in the order of the path.
        scores: scores of the renders, 1 where as good as the benchmark: `research_scores` with MUSIQ, else ours,
            `Assessment.quality`.
        score_name: what measured them, for the plan's reason.
    """
    holes = render.alpha < HOLE_ALPHA
    sharp = torch.stack([~research_blur_mask(view) for view in eight_bit(render.rgb)])
    return ResearchAssessment(
        holes=cleaned(holes.any(0)),
        holes_or_sharp=cleaned((holes | sharp).any(0)),
        scores=scores,
        score_name=score_name,
        descriptor=scene_descriptor(scene.images[:1]),
    )


def research_scores(scene: Scene, render: Render, score: Score) -> Float[Tensor, "V"]:
    """Each render's score over the benchmark at its place between the first and the last context view."""
    context = score(scene.images)
    positions = torch.linspace(FIRST_POSITION, LAST_POSITION, len(render.rgb)).to(context)
    return score(render.rgb) / eased_benchmark(context[:1], context[-1:], positions)


def eight_bit(rgb: Float[Tensor, "V 3 H W"]) -> UInt8[Tensor, "V 3 H W"]:
    """Images in [0, 1] as a PNG file would hold them."""
    return (rgb.clamp(0, 1) * 255).round().to(torch.uint8)


def research_blur_mask(rgb: UInt8[Tensor, "3 H W"]) -> Bool[Tensor, "H W"]:
    """True where the released code's detector calls the picture blurry."""
    inverted = inverted_detail(rgb)
    return (inverted > otsu_threshold(inverted)).to(rgb.device)


def inverted_detail(rgb: UInt8[Tensor, "3 H W"]) -> UInt8[Tensor, "H W"]:
    """255 where there is the least detail, 0 where the most."""
    weights = torch.tensor(_GREY)[:, None, None]
    # OpenCV's fixed-point arithmetic with rounding: a threshold follows, and a grey level more or less moves whole
    # regions.
    grey = ((weights * rgb.cpu().long()).sum(0) + (1 << (_GREY_BITS - 1))) >> _GREY_BITS
    laplacian = np.abs(scipy.ndimage.laplace(grey.numpy(), mode="mirror"))
    return torch.from_numpy(255 - _stretched(_smoothed(laplacian.astype(np.float64))))


def _smoothed(values: Float[np.ndarray, "H W"]) -> Float[np.ndarray, "H W"]:
    """A Gaussian of sigma 1, added up in OpenCV's order: the last bit decides where a level is cut off to 8 bits."""
    taps = np.exp(-0.5 * np.arange(-_REACH, _REACH + 1) ** 2.0)
    taps /= taps.sum()
    height, width = values.shape
    padded = np.pad(values, _REACH, mode="reflect")
    rows = padded[:, :width] * taps[0]
    for i in range(1, len(taps)):
        rows = _fused(padded[:, i : i + width], taps[i], rows)
    columns = rows[_REACH : _REACH + height] * taps[_REACH]
    for i in range(1, _REACH + 1):
        pair = rows[_REACH - i : _REACH - i + height] + rows[_REACH + i : _REACH + i + height]
        columns = columns + taps[_REACH + i] * pair
    return columns


def _stretched(values: Float[np.ndarray, "H W"]) -> UInt8[np.ndarray, "H W"]:
    """To 0..255, cut off to whole levels; 0 where all are equal."""
    low, span = values.min(), np.ptp(values)
    if not span > 0:
        return np.zeros(values.shape, dtype=np.uint8)
    scale = 255.0 * (1.0 / span)
    return _fused(values, scale, np.asarray(-low * scale)).astype(np.uint8)


def _fused(values: np.ndarray, factor: float, summand: np.ndarray) -> Float[np.ndarray, "..."]:
    """The product of values and factor plus the summand, rounded once."""
    # An x87 long double holds the product exactly enough that the sum is rounded once, as a fused multiply-add does.
    wide = np.longdouble
    return (values.astype(wide) * wide(factor) + summand.astype(wide)).astype(np.float64)


def otsu_threshold(values: UInt8[Tensor, "H W"]) -> int:
    """The level that splits the histogram with the largest variance between the parts; the lowest of equals.

    Reference: A threshold selection method from gray-level histograms (Otsu, 1979).
    """
    counts = torch.bincount(values.flatten().long(), minlength=256).double()
    share = counts / counts.sum()
    levels = torch.arange(256, dtype=torch.float64)
    below, mean_below = share.cumsum(0), (share * levels).cumsum(0)
    split = (below > 0) & (below < 1 - 1e-12)
    between = (mean_below[-1] * below - mean_below).square() / (below * (1 - below))
    return int(torch.where(split, between, 0).argmax())


def cleaned(mask: Bool[Tensor, "H W"]) -> Bool[Tensor, "H W"]:
    """Closed, opened, and set by density; what lies outside the picture counts only as not being dense."""
    pixels = mask.cpu().numpy()
    closed = _eroded(_dilated(pixels, 5), 5)
    opened = _dilated(_eroded(closed, 3), 3)
    counts = scipy.ndimage.convolve(opened.astype(np.int64), np.ones((WINDOW, WINDOW), np.int64), mode="constant")
    return torch.from_numpy(counts >= WINDOW_COUNT).to(mask.device)


def area_share(mask: Bool[Tensor, "H W"]) -> float:
    """Share of pixels in the mask, 0..1."""
    return float(mask.double().mean())


def _dilated(mask: np.ndarray, size: int) -> np.ndarray:
    return scipy.ndimage.binary_dilation(mask, np.ones((size, size)))


def _eroded(mask: np.ndarray, size: int) -> np.ndarray:
    return scipy.ndimage.binary_erosion(mask, np.ones((size, size)), border_value=1)
