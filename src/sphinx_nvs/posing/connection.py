"""Which photos of a model hold together: a mapper may join parts that only seem to fit.

Two photos are linked strongly if they see enough points in common that a third photo sees, too: those fix the scale
between them. They are linked weakly if their verified matches fit the poses; several such links between two parts fix
it as well. Parts without either lie to each other as the mapper guessed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from typing import Any

from sphinx_nvs.posing.epipolar import epipolar_px
from sphinx_nvs.posing.held_out import PairMatches

LEAST_SHARED = 12
"""Points in common that make a strong link."""

LEAST_WEAK = 3
"""Weak links between two parts that join them."""

MOST_ERROR_PX = 2.0
_LEAST_TRACK = 3
_LEAST_FITTING = 0.8


def keep_connected(model: Any, pairs: Sequence[PairMatches], error: float) -> bool:
    """Takes the cameras from photos that are not linked to the largest part; two photos are left as they are.

    Args:
        model: a reconstruction, which is changed.
        pairs: verified pairs.
        error: most pixels between a match and its epipolar line.

    Returns:
        Whether any photo lost its camera; the model is then to be adjusted again.
    """
    registered = [number for number, image in model.images.items() if image.has_pose]
    if len(registered) < _LEAST_TRACK:
        return False
    strong = [pair for pair, count in shared_points(model).items() if count >= LEAST_SHARED]
    kept = largest_part(registered, strong, fitting_pairs(model, pairs, error))
    for number in set(registered) - kept:
        model.deregister_frame(model.images[number].frame_id)
    model.update_point_3d_errors()
    return len(kept) < len(registered)


def shared_points(model: Any) -> Mapping[tuple[int, int], int]:
    """Number of well-fitting points of at least three photos that each pair of photos shares."""
    shared: Counter[tuple[int, int]] = Counter()
    for point in model.points3D.values():
        images = sorted({element.image_id for element in point.track.elements})
        if len(images) >= _LEAST_TRACK and point.error <= MOST_ERROR_PX:
            shared.update(combinations(images, 2))
    return shared


def fitting_pairs(model: Any, pairs: Sequence[PairMatches], error: float) -> list[tuple[int, int]]:
    """Pairs of photos whose verified matches fit the poses."""
    images = {image.name: image for image in model.images.values() if image.has_pose}
    found = []
    for pair in pairs:
        if all(name in images for name in pair.names):
            first, second = (images[name] for name in pair.names)
            fits = epipolar_px(model, first, second, pair.here_seen, pair.there_seen) < error
            if fits.mean() >= _LEAST_FITTING:
                found.append((first.image_id, second.image_id))
    return found


def largest_part(photos: Sequence[int], strong: Iterable[tuple[int, int]], weak: Sequence[tuple[int, int]]) -> set[int]:
    """The most photos that hold together.

    Args:
        photos: all of them.
        strong: links of which one joins two parts.
        weak: links of which it takes `LEAST_WEAK`.
    """
    part_of = {photo: {photo} for photo in photos}
    for a, b in strong:
        _join(part_of, a, b)
    while (link := _most_linked(part_of, weak)) is not None:
        _join(part_of, *link)
    return max(part_of.values(), key=len)


def _join(part_of: dict[int, set[int]], a: int, b: int) -> None:
    joined = part_of[a] | part_of[b]
    for photo in joined:
        part_of[photo] = joined


def _most_linked(part_of: Mapping[int, set[int]], weak: Sequence[tuple[int, int]]) -> tuple[int, int] | None:
    """A photo of each of two parts that have weak links enough."""
    between = Counter((min(part_of[a]), min(part_of[b])) for a, b in weak if part_of[a] is not part_of[b])
    both: Counter[tuple[int, int]] = Counter()
    for (a, b), count in between.items():
        both[min(a, b), max(a, b)] += count
    best = both.most_common(1)
    return best[0][0] if best and best[0][1] >= LEAST_WEAK else None
