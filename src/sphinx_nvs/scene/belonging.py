"""Can target cameras belong to a scene? Cameras that see nothing of what its photos show belong to another one.

Where the scene is is not known before it is reconstructed, so points are laid along the photos' rays at depths from a
tenth to ten times the distance that the cameras suggest. A target that sees none of them, or is very far from all of
them, cannot show the scene.

Shapes: T targets, C contexts, P points.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from sphinx_nvs.errors import InputError
from sphinx_nvs.geometry.cameras import Cameras
from sphinx_nvs.geometry.focus import focus_distance

_DEPTHS = (0.1, 0.3, 1.0, 3.0, 10.0)
_SIDE = 7
_FARTHEST = 30.0
"""Times the scene's own size: targets further away show it as a spot, if at all."""


def seeing(targets: Cameras, contexts: Cameras) -> Bool[Tensor, "T"]:
    """Which targets see something that the contexts may show."""
    points = _points(contexts)
    size = _size(contexts)
    local = torch.einsum("tij,pj->tpi", targets.w2c[:, :3, :3], points) + targets.w2c[:, None, :3, 3]
    z = local[..., 2].clamp_min(1e-9 * size)
    pixels = torch.einsum("tij,tpj->tpi", targets.K, local / z[..., None])
    inside = (pixels[..., 0] >= 0) & (pixels[..., 0] <= targets.width)
    inside &= (pixels[..., 1] >= 0) & (pixels[..., 1] <= targets.height) & (local[..., 2] > 1e-6 * size)
    near = torch.cdist(targets.centres, contexts.centres).min(dim=1).values <= _FARTHEST * size
    return inside.any(dim=1) & near


def _size(contexts: Cameras) -> float:
    """A length of the scene: how far its cameras are apart, or it is from them."""
    return max(focus_distance(contexts), float(torch.cdist(contexts.centres, contexts.centres).max()))


def _points(contexts: Cameras) -> Float[Tensor, "P 3"]:
    s = (torch.arange(_SIDE, dtype=torch.float64) + 0.5) / _SIDE
    v, u = torch.meshgrid(s * contexts.height, s * contexts.width, indexing="ij")
    pixels = torch.stack([u, v, torch.ones_like(u)], dim=-1).reshape(-1, 3)
    rays = torch.einsum("cij,pj->cpi", contexts.c2w[:, :3, :3] @ torch.linalg.inv(contexts.K), pixels)
    depths = focus_distance(contexts) * rays.new_tensor(_DEPTHS)
    points = contexts.centres[:, None, None] + depths[:, None, None] * rays[:, None]
    return points.reshape(-1, 3)


def check_belonging(targets: Cameras, contexts: Cameras, where: str, *, is_named: str = "") -> None:
    """Raises InputError if no target sees anything of the scene.

    Args:
        targets: in the coordinates of `contexts`.
        contexts: the scene's cameras.
        where: names the targets in the error.
        is_named: what their coordinates were taken for, e.g. `"read in the scene's own coordinates, "`.
    """
    if bool(seeing(targets, contexts).any()):
        return
    raise InputError(
        where,
        f"{is_named}its cameras look away from everything that the scene's photos show, or are far from it",
        "give cameras in the coordinates of the scene's own file; poses are camera-to-world",
    )
