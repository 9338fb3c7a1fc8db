"""One photo's camera under one reading of it, and which matches fit the cameras of two.

A match (x1, x2) of two photos in pinhole coordinates fits their cameras if it lies near the epipolar line and the two
rays meet in front of both cameras:

    |x2^T E x1| / |(E x1)_12| small,   E = [t]x R,   both depths > 0

Rays that point the same way, as at things that are very far or between photos of one place, say nothing of t.

Shapes: N matches, B poses.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from sphinx_nvs import media
from sphinx_nvs.scene.distortion import Bend
from sphinx_nvs.scene.matching import LEAST_MATCHES, Pair

CLOSE = 0.004
"""Of pinhole coordinates: about 2 pixels of a photo that is 640 pixels wide."""

_LEAST_SINE = 1e-3
_UNIT = 1000.0
"""Pixels that the focal length has while an essential matrix is estimated."""


@dataclass(frozen=True, kw_only=True)
class Sighting:
    """One photo's camera under one reading of it.

    Args:
        c2w: camera-to-world, OpenCV axes.
        K: intrinsics in pixels of the photo as it is read.
        height: height of the photo as it is read, pixels.
        width: width of the photo as it is read, pixels.
        distortion: the lens's.
        orientation: EXIF's number by which the stored photo is turned in this reading; 1 for not at all.
    """

    c2w: Float[Tensor, "4 4"]
    K: Float[Tensor, "3 3"]
    height: int
    width: int
    distortion: Bend | None
    orientation: int = media.UPRIGHT

    def rays(self, shares: Float[Tensor, "N 2"]) -> Float[Tensor, "N 3"]:
        """Directions (x, y, 1) of points in the stored photo, given as shares of its width and height."""
        at = turned(shares, self.orientation) * shares.new_tensor([self.width, self.height])
        bent = (at - self.K[:2, 2]) / torch.stack([self.K[0, 0], self.K[1, 1]])
        straight = bent
        if self.distortion:
            for _ in range(8):
                straight = straight + bent - self.distortion.apply(straight)
        return torch.cat([straight, torch.ones_like(straight[:, :1])], dim=1)


_TURNS: dict[int, Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]] = {
    1: lambda u, v: (u, v),
    2: lambda u, v: (1 - u, v),
    3: lambda u, v: (1 - u, 1 - v),
    4: lambda u, v: (u, 1 - v),
    5: lambda u, v: (v, u),
    6: lambda u, v: (1 - v, u),
    7: lambda u, v: (1 - v, 1 - u),
    8: lambda u, v: (v, 1 - u),
}
"""Where a viewer shows a point of the stored photo, by EXIF's orientation."""


def turned(shares: Float[Tensor, "N 2"], orientation: int) -> Float[Tensor, "N 2"]:
    """Shares of width and height in the stored photo to those in the photo as a viewer shows it."""
    return torch.stack(_TURNS[orientation](shares[:, 0], shares[:, 1]), dim=1)


@dataclass(frozen=True, kw_only=True)
class Fit:
    """Which matches fit two cameras, and for which the cameras have no parallax."""

    fits: Bool[Tensor, "*B N"]
    is_parallel: Bool[Tensor, "*B N"]


def fit_of(
    second_from_first: Float[Tensor, "*B 4 4"],
    x1: Float[Tensor, "N 3"],
    x2: Float[Tensor, "N 3"],
    close: float = CLOSE,
) -> Fit:
    """How matches fit two cameras.

    Args:
        second_from_first: pose of the first camera in the second one, OpenCV axes.
        x1: directions in the first camera, see `Sighting.rays`.
        x2: directions in the second camera.
        close: largest distance from the epipolar line, in pinhole coordinates.
    """
    met = _meeting(second_from_first, x1, x2)
    return Fit(
        fits=(met.distance < close) & met.is_in_front & (met.sine > _LEAST_SINE),
        is_parallel=(met.sine < CLOSE) & met.is_alike,
    )


def misfit_of(
    second_from_first: Float[Tensor, "*B 4 4"], x1: Float[Tensor, "N 3"], x2: Float[Tensor, "N 3"], far: float
) -> Float[Tensor, "*B"]:
    """How badly matches fit two cameras: the mean distance from epipolar lines over `far`, each match from 0 to 1.

    Args:
        second_from_first: see `fit_of`, as the directions.
        x1: directions in the first camera.
        x2: directions in the second camera.
        far: distance in pinhole coordinates from which a match counts 1, as it does where rays meet behind a camera.
    """
    met = _meeting(second_from_first, x1, x2)
    return torch.where(met.is_in_front, (met.distance / far).clamp_max(1.0), 1.0).mean(dim=-1)


def distance_of(
    second_from_first: Float[Tensor, "*B 4 4"], x1: Float[Tensor, "N 3"], x2: Float[Tensor, "N 3"]
) -> Float[Tensor, "*B N"]:
    """How far matches lie from epipolar lines, in pinhole coordinates; 1 where rays meet behind a camera.

    Args:
        second_from_first: see `fit_of`, as the directions.
        x1: directions in the first camera.
        x2: directions in the second camera.
    """
    met = _meeting(second_from_first, x1, x2)
    return torch.where(met.is_in_front, met.distance, 1.0)


@dataclass(frozen=True, kw_only=True)
class _Meeting:
    """Where the rays of matches meet.

    Args:
        distance: from the epipolar line, in pinhole coordinates.
        is_in_front: whether rays meet in front of both cameras.
        sine: of the angle between the rays.
        is_alike: whether rays point to the same side.
    """

    distance: Float[Tensor, "*B N"]
    is_in_front: Bool[Tensor, "*B N"]
    sine: Float[Tensor, "*B N"]
    is_alike: Bool[Tensor, "*B N"]


def _meeting(
    second_from_first: Float[Tensor, "*B 4 4"], x1: Float[Tensor, "N 3"], x2: Float[Tensor, "N 3"]
) -> _Meeting:
    d1 = x1 @ second_from_first[..., :3, :3].transpose(-1, -2)
    t = second_from_first[..., None, :3, 3].expand_as(d1)
    x2 = x2.expand_as(d1)
    normals = torch.linalg.cross(t, d1)
    distance = (normals * x2).sum(-1).abs() / normals[..., :2].norm(dim=-1).clamp_min(1e-12)
    # z1 d1 + t = z2 x2, both sides crossed with x2 and with d1.
    across = torch.linalg.cross(d1, x2)
    z1 = (torch.linalg.cross(x2, t) * across).sum(-1)
    z2 = (torch.linalg.cross(d1, t) * across).sum(-1)
    sine = across.norm(dim=-1) / (d1.norm(dim=-1) * x2.norm(dim=-1))
    return _Meeting(distance=distance, is_in_front=(z1 > 0) & (z2 > 0), sine=sine, is_alike=(d1 * x2).sum(-1) > 0)


def fits_of(pairs: Sequence[Pair], seen: Sequence[Sighting], close: float = CLOSE) -> Iterator[Fit]:
    """How the matches of each pair fit the cameras of its photos.

    Args:
        pairs: pairs of photos.
        seen: the cameras, one a photo.
        close: see `fit_of`.
    """
    for pair in pairs:
        first, second = seen[pair.first], seen[pair.second]
        relative = torch.linalg.inv(second.c2w) @ first.c2w
        yield fit_of(relative, first.rays(pair.here), second.rays(pair.there), close)


def calibrated(pairs: Sequence[Pair], seen: Sequence[Sighting]) -> Iterator[Pair]:
    """The matches that some relative pose explains together with the intrinsics, of pairs that have plenty of these.

    Repeated things, such as windows of a facade, fool a fundamental matrix more easily than an essential one.

    Args:
        pairs: pairs of photos.
        seen: the cameras, one a photo; their poses do not matter.
    """
    import pycolmap

    options = pycolmap.RANSACOptions()
    options.max_error, options.max_num_trials, options.random_seed = CLOSE / 2 * _UNIT, 2000, 0
    camera = pycolmap.Camera(model="SIMPLE_PINHOLE", width=1, height=1, params=[_UNIT, 0.0, 0.0])
    for pair in pairs:
        rays = seen[pair.first].rays(pair.here), seen[pair.second].rays(pair.there)
        first_px, second_px = ((_UNIT * at[:, :2]).numpy() for at in rays)
        found = pycolmap.estimate_essential_matrix(first_px, second_px, camera, camera, options)
        kept = torch.zeros(0) if found is None else torch.from_numpy(np.asarray(found["inlier_mask"], dtype=bool))
        if int(kept.sum()) >= LEAST_MATCHES:
            yield replace(pair, here=pair.here[kept], there=pair.there[kept])
