"""Selection of the context views that each view is matched against, and the parallax between two views."""

from __future__ import annotations

import torch
from jaxtyping import Bool
from torch import Tensor

from sphinx_nvs.errors import InputError, spans
from sphinx_nvs.geometry.cameras import Cameras
from sphinx_nvs.geometry.views import pose_distances
from sphinx_nvs.models.planesweep.splatting import homography

SAME_PLACE = 1e-6  # relative to the largest coordinate: closer centres give no parallax


def _distinct_centres(cameras: Cameras) -> Bool[Tensor, "V V"]:
    """Whether two views have different optical centres, beyond rounding of their coordinates."""
    distance = torch.cdist(cameras.centres, cameras.centres, compute_mode="donot_use_mm_for_euclid_dist")
    return distance > SAME_PLACE * cameras.centres.abs().max()


def check_parallax(cameras: Cameras) -> None:
    """Raises InputError unless there are at least two views, not all at the same place."""
    if len(cameras) < 2:
        raise InputError(
            "context views", f"{len(cameras)} given", "plane sweep needs 2 or more views from different places"
        )
    if not _distinct_centres(cameras).any():
        views = spans(range(len(cameras)))
        raise InputError(
            f"context views {views}",
            "their cameras are all at the same place, so nothing has parallax",
            "add a view from another place, or check the translations of the poses",
        )


def choose_sources(cameras: Cameras, count: int) -> list[list[int]]:
    """Selects for each view the `count` views nearest in position and direction, nearest first.

    Args:
        cameras: all context views; `check_parallax` must have passed.
        count: number of sources per view, at most.
    """
    usable = _distinct_centres(cameras)
    distance = torch.where(usable, pose_distances(cameras, cameras), torch.inf)
    order = distance.argsort(dim=1, stable=True)
    return [[int(j) for j in row[:count] if usable[view, j]] for view, row in enumerate(order)]


def parallax(reference: Cameras, source: Cameras, low: float, high: float) -> float:
    """Median distance in source pixels that reference pixels move between inverse depths `low` and `high`."""
    A, b = homography(reference.K[0], reference.c2w[0], source.K[0], source.c2w[0])
    # A grid of pixels instead of the centre: a camera that moves forward has no parallax there.
    grid = torch.cartesian_prod(torch.linspace(0.1, 0.9, 5), torch.linspace(0.1, 0.9, 5)).to(A)
    x, y = grid[:, 0] * reference.width, grid[:, 1] * reference.height
    ray = A @ torch.stack([x, y, torch.ones_like(x)])
    near, far = ray + high * b[:, None], ray + low * b[:, None]
    path = near[:2] / near[2].clamp_min(1e-6) - far[:2] / far[2].clamp_min(1e-6)
    return float(path.norm(dim=0).median())
