"""All metrics by name: their direction, whether they count in a loss, and their requirements on this machine.

A metric with a map can be computed per region: its map is averaged over a region's pixels of all views, and the mean is
converted into the metric (the root for RMSE, the logarithm for PSNR). Over whole images it is the mean over views, as
the field reports it.

Shapes: V views, H W pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from sphinx_nvs.errors import InputError
from sphinx_nvs.evaluation import optional
from sphinx_nvs.evaluation.image_metrics import BEST_PSNR_DB, psnr, ssim_with_map
from sphinx_nvs.evaluation.perceptual import dists, lpips
from sphinx_nvs.evaluation.structure import flip, ms_ssim, scales_for
from sphinx_nvs.evaluation.weights import weights_path


@dataclass(frozen=True, kw_only=True, eq=False)
class Scores:
    """A metric's values: one per view, and optionally a map that regions average."""

    values: Float[Tensor, "V"]
    maps: Float[Tensor, "V H W"] | None = None


Score = Callable[[Tensor, Tensor], Scores]
"""Takes images and truth, `V 3 H W` in [0, 1]."""


@dataclass(frozen=True, kw_only=True)
class Metric:
    """A metric.

    Args:
        name: name in results and options.
        label: display name with its unit.
        higher_is_better: its direction.
        counts: whether it belongs to the losses relative to full diffusion; False for logarithmic scales.
        score: computes it.
        missing: returns the reason why it cannot be computed on this machine; None if it can.
        from_mean: converts the mean of its map over a region.
    """

    name: str
    label: str
    higher_is_better: bool
    counts: bool
    score: Score
    missing: Callable[[], str | None]
    from_mean: Callable[[float], float] = float

    def loss(self, value: float, reference: float) -> float:
        """Relative loss of a value against the reference; positive is worse."""
        sign = -1 if self.higher_is_better else 1
        return sign * (value - reference) / abs(reference)

    def over(self, scores: Scores, region: Bool[Tensor, "V H W"]) -> float | None:
        """The metric over a region's pixels; None without a map or pixels."""
        if scores.maps is None or not bool(region.any()):
            return None
        return self.from_mean(float(scores.maps[region].mean()))


def _squares(images: Tensor, truth: Tensor) -> Float[Tensor, "V H W"]:
    return (images.double().clamp(0, 1) - truth.double()).square().mean(1).cpu()


def _rmse(images: Tensor, truth: Tensor) -> Scores:
    maps = _squares(images, truth)
    return Scores(values=maps.flatten(1).mean(1).sqrt(), maps=maps)


def _psnr(images: Tensor, truth: Tensor) -> Scores:
    return Scores(values=psnr(images, truth).cpu(), maps=_squares(images, truth))


def _db_from_mean_square(mean: float) -> float:
    return float((-10 * torch.tensor(mean, dtype=torch.float64).log10()).clamp_max(BEST_PSNR_DB))


def _mapped(score: Callable[..., tuple[Tensor, Tensor]]) -> Score:
    def scores(images: Tensor, truth: Tensor) -> Scores:
        values, maps = score(images, truth)
        return Scores(values=values.double(), maps=maps.double())

    return scores


def _plain(score: Callable[..., Tensor]) -> Score:
    return lambda images, truth: Scores(values=score(images, truth).double())


def _nothing_missing() -> str | None:
    return None


def _without_weights(*names: str) -> Callable[[], str | None]:
    def reason() -> str | None:
        return None if all(weights_path(name).is_file() for name in names) else "weights missing"

    return reason


def _without_package(module: str, package: str) -> Callable[[], str | None]:
    return lambda: None if find_spec(module) else f"package {package} missing"


METRICS: tuple[Metric, ...] = (
    Metric(
        name="psnr",
        label="PSNR, dB",
        higher_is_better=True,
        counts=False,
        score=_psnr,
        missing=_nothing_missing,
        from_mean=_db_from_mean_square,
    ),
    Metric(
        name="rmse",
        label="RMSE",
        higher_is_better=False,
        counts=True,
        score=_rmse,
        missing=_nothing_missing,
        from_mean=lambda mean: mean**0.5,
    ),
    Metric(
        name="ssim",
        label="SSIM",
        higher_is_better=True,
        counts=True,
        score=_mapped(ssim_with_map),
        missing=_nothing_missing,
    ),
    Metric(
        name="ms_ssim",
        label="MS-SSIM",
        higher_is_better=True,
        counts=True,
        score=_plain(ms_ssim),
        missing=_without_package("torchmetrics", "torchmetrics"),
    ),
    Metric(
        name="lpips_alex",
        label="LPIPS (AlexNet)",
        higher_is_better=False,
        counts=True,
        score=_mapped(partial(lpips, net="alex")),
        missing=_without_weights("lpips_alex"),
    ),
    Metric(
        name="lpips_vgg",
        label="LPIPS (VGG16)",
        higher_is_better=False,
        counts=True,
        score=_mapped(partial(lpips, net="vgg")),
        missing=_without_weights("lpips_vgg"),
    ),
    Metric(
        name="dists",
        label="DISTS",
        higher_is_better=False,
        counts=True,
        score=_plain(dists),
        missing=_without_weights("dists", "lpips_vgg"),
    ),
    Metric(
        name="flip",
        label="FLIP",
        higher_is_better=False,
        counts=True,
        score=_mapped(flip),
        missing=_without_package("flip_evaluator", "flip-evaluator"),
    ),
    Metric(
        name="dreamsim",
        label="DreamSim",
        higher_is_better=False,
        counts=True,
        score=_plain(optional.dreamsim_distance),
        missing=lambda: optional.why_missing(optional.load_dreamsim),
    ),
    Metric(
        name="musiq",
        label="MUSIQ (no reference)",
        higher_is_better=True,
        counts=True,
        score=lambda images, truth: Scores(values=optional.musiq(images).double()),
        missing=lambda: optional.why_missing(optional.load_musiq),
    ),
)
"""All metrics, in the order of tables."""

_BY_NAME = {metric.name: metric for metric in METRICS}


def metric(name: str) -> Metric:
    """The metric with a name.

    Raises:
        InputError: the name is unknown.
    """
    if name not in _BY_NAME:
        raise InputError("metric", f"there is no {name!r}", f"choose one of {', '.join(_BY_NAME)}")
    return _BY_NAME[name]


def available(names: Collection[str] | None = None) -> list[Metric]:
    """Metrics that this machine can compute.

    Args:
        names: only these; None means all.

    Raises:
        InputError: a name is unknown.
    """
    return [m for m in _chosen(names) if m.missing() is None]


def not_computed(names: Collection[str] | None = None) -> dict[str, str]:
    """Metrics that this machine cannot compute, with reasons, e.g. `not computed: weights missing`.

    Args:
        names: only these; None means all.

    Raises:
        InputError: a name is unknown.
    """
    reasons = {m.name: m.missing() for m in _chosen(names)}
    return {name: f"not computed: {reason}" for name, reason in reasons.items() if reason is not None}


def notes_for(height: int, width: int) -> list[str]:
    """Caveats about metrics of images of this size."""
    scales = scales_for(height, width)
    if scales >= 5:
        return []
    return [f"MS-SSIM has {scales} of its 5 scales at {width}x{height} pixels: not comparable with larger images"]


def _chosen(names: Collection[str] | None) -> list[Metric]:
    if names is None:
        return list(METRICS)
    return [metric(name) for name in names]
