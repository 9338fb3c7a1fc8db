"""Do matches lie closer to the epipolar lines of slightly different cameras?

Camera positions that are scaled along one axis, a focal length that is off by a tenth, or distortion of photos that are
undistorted already leave most matches within the distance that poses are judged by (`sightings.CLOSE`). The median
distance tells: of right cameras it is a fraction of a pixel, and no slightly different ones have a clearly smaller one.

Shapes: B readings, V photos, N matches.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from sphinx_nvs.scene.matching import Pair
from sphinx_nvs.scene.other_readings import Reading
from sphinx_nvs.scene.sightings import Sighting, distance_of

_MOST_MATCHES = 80
"""Of two photos: more tell nothing new."""

_LEAST_MATCHES, _LEAST_PAIRS = 150, 5
_CLEARLY, _SIMPLER = 0.53, 0.8
"""Of the median distance as given: that of another reading at most, and of one that takes the lens's distortion out."""


def closer_reading(
    pairs: Sequence[Pair], seen: Sequence[Sighting], readings: Sequence[Reading]
) -> tuple[Reading, float] | None:
    """The reading whose epipolar lines matches are closest to, and how many times closer; None if none is clearly.

    Args:
        pairs: with matches.
        seen: the cameras, one a photo.
        readings: slightly different ones of the same photos.
    """
    some = [_thinned(pair) for pair in pairs]
    if sum(map(len, some)) < _LEAST_MATCHES or len(some) < _LEAST_PAIRS:
        return None
    given = float(_medians(some, seen, torch.stack([each.c2w for each in seen])[None])[0])
    medians = _medians_of(readings, some, seen)
    best = min(range(len(readings)), key=lambda place: medians[place])
    limit = _SIMPLER if readings[best].is_straight else _CLEARLY
    return (readings[best], given / max(medians[best], 1e-9)) if medians[best] < limit * given else None


def _thinned(pair: Pair) -> Pair:
    step = -(-len(pair) // _MOST_MATCHES)
    return replace(pair, here=pair.here[::step], there=pair.there[::step])


def _medians_of(readings: Sequence[Reading], pairs: Sequence[Pair], seen: Sequence[Sighting]) -> list[float]:
    """The median distance for each reading, in pinhole coordinates of the cameras as they are given."""
    medians = [0.0] * len(readings)
    posed = [place for place, reading in enumerate(readings) if reading.K is None]
    c2w = torch.stack([readings[place].c2w for place in posed])
    for place, median in zip(posed, _medians(pairs, seen, c2w).tolist(), strict=True):
        medians[place] = median
    for place, reading in enumerate(readings):
        if reading.K is not None:
            cameras = [replace(each, K=K) for each, K in zip(seen, reading.K, strict=True)]
            cameras = [replace(each, distortion=None) for each in cameras] if reading.is_straight else cameras
            scale = float(reading.K[0][0, 0] / seen[0].K[0, 0])
            medians[place] = scale * float(_medians(pairs, cameras, reading.c2w[None])[0])
    return medians


def _medians(pairs: Sequence[Pair], seen: Sequence[Sighting], c2w: Float[Tensor, "B V 4 4"]) -> Float[Tensor, "B"]:
    """The median distance of matches from epipolar lines, for several readings of the poses."""
    distances = []
    for pair in pairs:
        relative = torch.linalg.inv(c2w[:, pair.second]) @ c2w[:, pair.first]
        rays = seen[pair.first].rays(pair.here), seen[pair.second].rays(pair.there)
        distances.append(distance_of(relative, *rays))
    return torch.cat(distances, dim=1).median(dim=1).values
