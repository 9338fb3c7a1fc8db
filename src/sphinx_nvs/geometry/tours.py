"""The order in which a path visits cameras, so that it does not turn back and forth where photos come in any order.

The shortest open tour by pose distance is exact up to `_EXACT` cameras (Held and Karp's dynamic programme) and beyond
that the nearest neighbour's, improved by turning pieces of it round (2-opt).

Shapes: V cameras.
"""

from __future__ import annotations

from itertools import combinations, pairwise

from jaxtyping import Float
from torch import Tensor

from sphinx_nvs.geometry.cameras import Cameras
from sphinx_nvs.geometry.views import pose_distances

_EXACT = 9
_WORTH_IT = 0.8
"""Cameras stay in their order unless the tour is shorter than this share of it."""


def along_tour(cameras: Cameras) -> Cameras:
    """The cameras in the order of the shortest tour, or as they are if that is hardly longer.

    The tour begins at the end that comes first in the given order.
    """
    order = tour(pose_distances(cameras, cameras))
    return cameras if order == list(range(len(cameras))) else cameras[order]


def tour(distances: Float[Tensor, "V V"]) -> list[int]:
    """The order of a tour, see `along_tour`.

    Args:
        distances: distance between every two places.
    """
    count = len(distances)
    given = list(range(count))
    if count < 3:
        return given
    between = distances.tolist()
    found = _exact(between) if count <= _EXACT else _improved(_nearest_first(between), between)
    if _length(found, between) >= _WORTH_IT * _length(given, between):
        return given
    return found if found[0] < found[-1] else found[::-1]


def _length(order: list[int], between: list[list[float]]) -> float:
    return sum(between[a][b] for a, b in pairwise(order))


def _exact(between: list[list[float]]) -> list[int]:
    """The shortest order; best[(visited, last)] is the length of the shortest way there and the place before."""
    count = len(between)
    best = {(1 << i, i): (0.0, -1) for i in range(count)}
    for size in range(2, count + 1):
        for chosen in combinations(range(count), size):
            visited = sum(1 << i for i in chosen)
            for last in chosen:
                before = visited & ~(1 << last)
                best[visited, last] = min((best[before, i][0] + between[i][last], i) for i in chosen if i != last)
    visited = (1 << count) - 1
    last = min(range(count), key=lambda i: best[visited, i][0])
    order = []
    while last >= 0:
        order.append(last)
        visited, last = visited & ~(1 << last), best[visited, last][1]
    return order


def _nearest_first(between: list[list[float]]) -> list[int]:
    """From one of the two places that are furthest apart always on to the nearest."""
    count = len(between)
    start = max(range(count), key=lambda i: max(between[i]))
    order, left = [start], set(range(count)) - {start}
    while left:
        order.append(min(left, key=lambda i: between[order[-1]][i]))
        left.remove(order[-1])
    return order


def _improved(order: list[int], between: list[list[float]]) -> list[int]:
    """Pieces are turned round as long as that shortens the tour."""
    count, is_better = len(order), True
    while is_better:
        is_better = False
        for i in range(count - 1):
            for j in range(i + 1, count):
                before = between[order[i - 1]][order[i]] if i else 0.0
                after = between[order[j]][order[j + 1]] if j + 1 < count else 0.0
                turned_before = between[order[i - 1]][order[j]] if i else 0.0
                turned_after = between[order[i]][order[j + 1]] if j + 1 < count else 0.0
                if turned_before + turned_after < before + after - 1e-12:
                    order[i : j + 1] = order[i : j + 1][::-1]
                    is_better = True
    return order
