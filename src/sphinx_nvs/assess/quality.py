"""No-reference quality of views, and the benchmark that the context views set between them.

The embedded metric is sharpness: the mean log of local contrast, mapped to (0, 1). It measures blur, smear and missing
detail, the usual faults of renders; MUSIQ, as in the paper, measures more and needs weights from outside.

Shapes: V views, V_c context views, H W pixels, D descriptor length.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from sphinx_nvs.geometry.cameras import Cameras

# Gradients below one grey level of 8 bits are quantisation, not detail.
NOISE_FLOOR = 1 / 255


def image_quality(images: Float[Tensor, "V 3 H W"]) -> Float[Tensor, "V"]:
    """Sharpness of each image, in (0, 1): mean over pixels of how far gradients stand above the noise floor, in nats.

    Args:
        images: sRGB in [0, 1].
    """
    grey = images.mean(1)
    dx = F.pad(grey[:, :, 1:] - grey[:, :, :-1], (0, 1))
    dy = F.pad(grey[:, 1:] - grey[:, :-1], (0, 0, 0, 1))
    energy = (dx.square() + dy.square()).sqrt()
    nats = torch.log1p(energy / NOISE_FLOOR).flatten(1).mean(1)
    return nats / (1 + nats)


def benchmark_quality(
    context_quality: Float[Tensor, "V_c"], context: Cameras, targets: Cameras, power: float = 0.5
) -> Float[Tensor, "V"]:
    """The quality a perfect render of each target would have, judged by its two nearest context views.

    Positions between the two are by distance of camera centres; see `eased_benchmark`.
    """
    distance = torch.cdist(targets.centres, context.centres)
    near, index = distance.topk(min(2, len(context)), largest=False)
    first, second = index[:, 0], index[:, -1]
    t = (near[:, 0] / near.sum(1).clamp_min(1e-12)).to(context_quality)
    return eased_benchmark(context_quality[first], context_quality[second], t, power)


def eased_benchmark(
    c0: Float[Tensor, "#V"], c1: Float[Tensor, "#V"], t: Float[Tensor, "#V"], power: float = 0.5
) -> Float[Tensor, "V"]:
    """The paper's curve between context views of quality c0 and c1, at position t (0 at the first, 1 at the second).

    c0 + (c1 - c0) t^power when rising, c0 + (c1 - c0)(1 - (1 - t)^power) when falling.
    """
    ease = torch.where(c1 >= c0, t**power, 1 - (1 - t) ** power)
    return c0 + (c1 - c0) * ease


def scene_descriptor(images: Float[Tensor, "V_c 3 H W"]) -> Float[Tensor, "48"]:
    """Colours of a 4x4 grid, centred, averaged over views, unit length."""
    grid = F.adaptive_avg_pool2d(images, 4).mean(0).flatten()
    # The offset keeps a scene of one colour from having no direction at all.
    return F.normalize(grid - grid.mean() + 1e-6, dim=0)
