"""Which photos of a model hold together: a mapper may join parts that only seem to fit.

Two photos are linked if they see enough points in common that a third photo sees, too: those fix the scale between
them. Parts without a link between them lie to each other as the mapper guessed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from itertools import combinations
from typing import Any

LEAST_SHARED = 12
"""Points in common that make a link."""

MOST_ERROR_PX = 2.0
_LEAST_TRACK = 3


def keep_connected(model: Any) -> bool:
    """Takes the cameras from photos that are not linked to the largest part; two photos are left as they are.

    Returns:
        Whether any photo lost its camera; the model is then to be adjusted again.
    """
    registered = [number for number, image in model.images.items() if image.has_pose]
    if len(registered) < _LEAST_TRACK:
        return False
    kept = largest_part(registered, shared_points(model))
    for number in set(registered) - kept:
        model.deregister_frame(model.images[number].frame_id)
    model.update_point_3d_errors()
    return len(kept) < len(registered)


def shared_points(model: Any) -> dict[tuple[int, int], int]:
    """Number of well-fitting points of at least three photos that each pair of photos shares."""
    shared: Counter[tuple[int, int]] = Counter()
    for point in model.points3D.values():
        images = sorted({element.image_id for element in point.track.elements})
        if len(images) >= _LEAST_TRACK and point.error <= MOST_ERROR_PX:
            shared.update(combinations(images, 2))
    return dict(shared)


def largest_part(photos: list[int], shared: Mapping[tuple[int, int], int]) -> set[int]:
    """The most photos that are linked with each other, over any number of links."""
    part_of = {photo: {photo} for photo in photos}
    for (a, b), count in shared.items():
        if count >= LEAST_SHARED and part_of[a] is not part_of[b]:
            joined = part_of[a] | part_of[b]
            for photo in joined:
                part_of[photo] = joined
    return max(part_of.values(), key=len)
