"""From a render to an assessment: uncertainty per pixel, quality per view, a descriptor per scene.

Shapes: V target views, V_c context views, H W pixels, D descriptor length.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from jaxtyping import Float
from torch import Tensor

from sphinx_nvs.assess.quality import benchmark_quality, image_quality, scene_descriptor
from sphinx_nvs.assess.uncertainty import UncertaintyConfig, uncertainty_map
from sphinx_nvs.geometry.cameras import Cameras
from sphinx_nvs.models.base import Render
from sphinx_nvs.scene.scene import Scene


@dataclass(frozen=True, kw_only=True)
class AssessConfig:
    """What to look at.

    Args:
        uncertainty: signals of the per-pixel map.
        benchmark_power: bend of the quality benchmark between context views (paper: 0.5).
        distrust_weight: share of a view's score that is lost when nothing in it can be trusted, [0, 1].
    """

    uncertainty: UncertaintyConfig = field(default_factory=UncertaintyConfig)
    benchmark_power: float = 0.5
    distrust_weight: float = 0.5


@dataclass(frozen=True, kw_only=True)
class Assessment:
    """What stage 2 found.

    Args:
        uncertainty: how little a pixel of the render can be trusted, [0, 1], cleaned up.
        quality: per view, quality of the render over what the context views promise there; 1 = as good, at least 0.
        descriptor: unit vector that tells kinds of scenes apart.
    """

    uncertainty: Float[Tensor, "V H W"]
    quality: Float[Tensor, "V"]
    descriptor: Float[Tensor, "D"]


def assess(scene: Scene, targets: Cameras, render: Render, config: AssessConfig | None = None) -> Assessment:
    """Assesses the render of `targets` made from `scene`.

    A view's quality is the no-reference quality of its render over the benchmark interpolated between the context views
    (Sphinx, arXiv 2511.18672, adaptive noise schedule), lowered by how much of it cannot be trusted. Sharpness alone
    says nothing of a picture warped to the wrong place: over the captures' 64 views its rank correlation with PSNR is
    0.39, that of the score 0.82 (`python benchmarks/assessment.py`).
    """
    config = config or AssessConfig()
    uncertainty = uncertainty_map(render, scene.cameras, targets, config.uncertainty)
    benchmark = benchmark_quality(image_quality(scene.images), scene.cameras, targets, config.benchmark_power)
    ratio = (image_quality(render.rgb) / benchmark).clamp(0, 1)
    trusted = 1 - config.distrust_weight * uncertainty.flatten(1).mean(1)
    return Assessment(
        uncertainty=uncertainty,
        quality=ratio * trusted,
        descriptor=scene_descriptor(scene.images),
    )
