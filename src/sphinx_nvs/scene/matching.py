"""Do photos fit their poses? Matches between pairs of photos, judged by the cameras.

A match (x1, x2) of two photos in pinhole coordinates fits their cameras if it lies near the epipolar line and the two
rays meet in front of both cameras:

    |x2^T E x1| / |(E x1)_12, (E^T x2)_12| small,   E = [t]x R,   both depths > 0

Shapes: N matches.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from sphinx_nvs import media
from sphinx_nvs.errors import InputError
from sphinx_nvs.geometry import se3
from sphinx_nvs.scene.distortion import Bend

PAIRS = 4
"""Pairs of photos that are matched."""

_SIDE = 640
_KEYPOINTS = 800
_RATIO = 0.85
_LEAST_ANGLE = 1e-3
_NEAR_LINE = 0.004
"""Of pinhole coordinates: about 2 pixels of a photo of `_SIDE`."""

_LEAST_FITTING = 12
_CLEARLY = 1.5


@dataclass(frozen=True, kw_only=True)
class Sighting:
    """One photo's camera under one reading of it.

    Args:
        c2w: camera-to-world, OpenCV axes.
        K: intrinsics in pixels of the photo as it is read.
        height: of the photo as it is read, pixels.
        width: of the photo as it is read, pixels.
        distortion: of the lens.
        orientation: EXIF's number by which the stored photo is turned in this reading; 1 for not at all.
    """

    c2w: Float[Tensor, "4 4"]
    K: Float[Tensor, "3 3"]
    height: int
    width: int
    distortion: Bend | None
    orientation: int = media.UPRIGHT

    def rays(self, shares: Float[Tensor, "N 2"]) -> Float[Tensor, "N 2"]:
        """Pinhole coordinates of points in the stored photo, given as shares of its width and height."""
        at = turned(shares, self.orientation) * shares.new_tensor([self.width, self.height])
        bent = (at - self.K[:2, 2]) / torch.stack([self.K[0, 0], self.K[1, 1]])
        if not self.distortion:
            return bent
        straight = bent
        for _ in range(8):
            straight = straight + bent - self.distortion.apply(straight)
        return straight


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


def best_reading(readings: Mapping[str, Sequence[Sighting]], photos: Sequence[Photo]) -> str | None:
    """Which of several readings of the same photos their matches agree with; None if the photos do not tell.

    Args:
        readings: by name, one sighting a photo in the order of `photos`.
        photos: the stored photos, any number.
    """
    names = list(readings)
    fitting = dict.fromkeys(names, 0)
    known: dict[int, Features] = {}
    for first, second in _pairs([sighting.c2w for sighting in readings[names[0]]]):
        for index in (first, second):
            if index not in known:
                known[index] = features_of(photos[index]())
        here, there = matched(known[first], known[second])
        for name in names:
            fitting[name] += int(fits(readings[name][first], readings[name][second], here, there).sum())
    order = sorted(names, key=lambda name: -fitting[name])
    best, next_best = fitting[order[0]], fitting[order[1]]
    return order[0] if best >= _LEAST_FITTING and best >= _CLEARLY * next_best else None


def _pairs(poses: Sequence[Float[Tensor, "4 4"]]) -> list[tuple[int, int]]:
    """Pairs of photos that see the same things from different places, spread over the capture."""
    c2w = torch.stack(list(poses))
    distance = torch.cdist(c2w[:, :3, 3], c2w[:, :3, 3])
    angle = se3.rotation_angle(c2w[:, None], c2w[None])
    extent = float(distance.max())
    if extent == 0:
        return []
    cost = distance / extent + angle
    cost[distance < 1e-3 * extent] = torch.inf
    nearest = [(int(row.argmin()), index) for index, row in enumerate(cost) if torch.isfinite(row).any()]
    pairs = sorted({(min(a, b), max(a, b)) for a, b in nearest})
    step = max(1, len(pairs) // PAIRS)
    return pairs[::step][:PAIRS]


Photo = Callable[[], Float[np.ndarray, "H W"]]
"""Reads a stored photo as grey levels in [0, 1]."""


@dataclass(frozen=True, kw_only=True)
class Features:
    """Keypoints of a photo, as shares of its width and height, and their descriptors."""

    at: Float[Tensor, "N 2"]
    descriptors: Bool[np.ndarray, "N B"]


def features_of(grey: Float[np.ndarray, "H W"]) -> Features:
    """ORB keypoints; none where a photo has too little texture."""
    from skimage.feature import ORB

    orb = ORB(n_keypoints=_KEYPOINTS, fast_threshold=0.03)
    try:
        orb.detect_and_extract(grey)
    except (RuntimeError, ValueError, IndexError):
        # scikit-image raises these where it finds no corner.
        return Features(at=torch.zeros(0, 2, dtype=torch.float64), descriptors=np.zeros((0, 256), dtype=bool))
    assert orb.keypoints is not None
    assert orb.descriptors is not None
    height, width = grey.shape
    xy = torch.from_numpy(np.ascontiguousarray(orb.keypoints[:, ::-1])).double() + 0.5
    return Features(at=xy / xy.new_tensor([width, height]), descriptors=orb.descriptors)


def matched(first: Features, second: Features) -> tuple[Float[Tensor, "N 2"], Float[Tensor, "N 2"]]:
    """Points of two photos that show the same thing."""
    from skimage.feature import match_descriptors

    if len(first.at) < 2 or len(second.at) < 2:
        return first.at[:0], second.at[:0]
    pairs = match_descriptors(first.descriptors, second.descriptors, cross_check=True, max_ratio=_RATIO)
    pairs = torch.from_numpy(pairs)
    return first.at[pairs[:, 0]], second.at[pairs[:, 1]]


def fits(
    first: Sighting, second: Sighting, here: Float[Tensor, "N 2"], there: Float[Tensor, "N 2"]
) -> Bool[Tensor, "N"]:
    """Which matches fit two cameras.

    Args:
        first: of the photo with the points `here`.
        second: of the photo with the points `there`.
        here: shares of width and height in the stored photo.
        there: as `here`.
    """
    x1, x2 = (_homogeneous(s.rays(at)) for s, at in ((first, here), (second, there)))
    relative = torch.linalg.inv(second.c2w) @ first.c2w
    R, t = relative[:3, :3], relative[:3, 3]
    d1 = x1 @ R.T
    normals = torch.linalg.cross(t.expand_as(d1), d1)
    distance = (normals * x2).sum(-1).abs() / normals[:, :2].norm(dim=-1).clamp_min(1e-12)
    # z1 d1 + t = z2 x2, both sides crossed with x2 and with d1.
    across = torch.linalg.cross(d1, x2)
    weight = (across * across).sum(-1)
    z1 = (torch.linalg.cross(x2, t.expand_as(x2)) * across).sum(-1)
    z2 = (torch.linalg.cross(d1, t.expand_as(d1)) * across).sum(-1)
    has_parallax = weight > (_LEAST_ANGLE**2) * (d1 * d1).sum(-1) * (x2 * x2).sum(-1)
    return (distance < _NEAR_LINE) & (z1 > 0) & (z2 > 0) & has_parallax


def _homogeneous(points: Float[Tensor, "N 2"]) -> Float[Tensor, "N 3"]:
    return torch.cat([points, torch.ones_like(points[:, :1])], dim=1)


def grey_of(image: Path | Tensor) -> Float[np.ndarray, "H W"]:
    """A stored photo as grey levels, scaled down to the size that matching works at.

    Raises:
        InputError: it cannot be read.
    """
    rgb = image if isinstance(image, Tensor) else media.read_image(image, oriented=False)
    if rgb.shape[0] != 3:
        raise InputError("photo", f"it has {rgb.shape[0]} channels", "give a colour photo")
    height, width = rgb.shape[-2:]
    scale = min(1.0, _SIDE / max(height, width))
    small = media.resize(rgb[None], max(1, round(height * scale)), max(1, round(width * scale)))[0]
    return small.mean(dim=0).numpy()
