"""Agreement of each depth candidate of a pixel with the other views.

The features of view u are warped into view v by every candidate depth d and correlated:

    c_v(p, d) = mean_{u != v} <f_v(p), f_u(pi(d K^-1 p))> / sqrt(C),      pi = project . E_u^-1 E_v

Quirks of the original that its weights were trained with: pixel coordinates start at 0 at the first centre (no half
pixel), samples are aligned at corners, the other view is projected with this view's intrinsics, and samples outside
are 0.
Reference: MVSplat (Chen et al., 2024), section 3.1.

Shapes: V views, D candidates, C channels, h w cells, N = h w.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

LEAST_DEPTH = 1e-3
CANDIDATES_AT_ONCE = 16  # bounds the memory of warped features


def disparity_candidates(near: Float[Tensor, " V"], far: Float[Tensor, " V"], count: int) -> Float[Tensor, "V D"]:
    """Inverse depths from 1/far to 1/near, evenly spaced."""
    share = torch.linspace(0, 1, count).to(near)
    return 1 / far[:, None] + share * (1 / near - 1 / far)[:, None]


def cost_volume(
    features: Float[Tensor, "V C h w"],
    c2w: Float[Tensor, "V 4 4"],
    K_norm: Float[Tensor, "V 3 3"],
    disparities: Float[Tensor, "V D"],
) -> Float[Tensor, "V D h w"]:
    """Mean correlation of every view, pixel and candidate.

    Args:
        features: matching features of all views.
        c2w: camera-to-world poses.
        K_norm: intrinsics divided by width and height.
        disparities: inverse depth candidates of each view.
    """
    V, channels, h, w = features.shape
    scaled = features / math.sqrt(channels)
    K = K_norm * K_norm.new_tensor([w, h, 1.0]).view(3, 1)
    rays = torch.linalg.inv(K) @ _cells(h, w).to(K)
    w2c = torch.linalg.inv(c2w)
    volumes = []
    for own in range(V):
        others = [(own + step) % V for step in range(1, V)]
        chunks = []
        for part in disparities[own].split(CANDIDATES_AT_ONCE):
            scores = [
                _correlation(scaled[own], features[other], K[own], w2c[other] @ c2w[own], rays[own], 1 / part)
                for other in others
            ]
            chunks.append(torch.stack(scores).mean(0))
        volumes.append(torch.cat(chunks))
    return torch.stack(volumes)


def _cells(h: int, w: int) -> Float[Tensor, "3 N"]:
    """(x, y, 1) of every cell, with x and y starting at 0."""
    y, x = torch.meshgrid(torch.arange(h), torch.arange(w), indexing="ij")
    return torch.stack([x.flatten(), y.flatten(), torch.ones(h * w)])


def _correlation(
    own: Float[Tensor, "C h w"],
    other: Float[Tensor, "C h w"],
    K: Float[Tensor, "3 3"],
    pose: Float[Tensor, "4 4"],
    rays: Float[Tensor, "3 N"],
    depths: Float[Tensor, " D"],
) -> Float[Tensor, "D h w"]:
    """<own, warped other> at every depth; `pose` maps own camera coordinates to the other's."""
    h, w = own.shape[-2:]
    points = (pose[:3, :3] @ rays)[:, None] * depths[:, None] + pose[:3, 3, None, None]
    x, y, z = (K @ points.flatten(1)).view(3, len(depths), h, w)
    z = z.clamp_min(LEAST_DEPTH)
    grid = torch.stack([2 * (x / z) / (w - 1) - 1, 2 * (y / z) / (h - 1) - 1], -1)
    # One tall image: all depths are sampled in one call, without copies of the features.
    warped = F.grid_sample(
        other[None], grid.reshape(1, -1, w, 2).to(other), mode="bilinear", padding_mode="zeros", align_corners=True
    )
    # Not einsum, which would split this into many tiny matrix products, one per cell.
    return (own[:, None] * warped.view(-1, len(depths), h, w)).sum(0)
