"""The number of anchors of a long path, and the windows of its two passes.

A denoiser takes T views at once. A path of N targets seen from M photos that does not fit is made in two passes: A
anchors spread over the path, then chunks between or around them. With T1, T2 the windows of the two passes,

    interp, interp-gt:   A = max(ceil(r N / (T2 - 2 - M')) + 1, T1 - M),   M' = M for interp-gt with few photos, else 0
    all others:          A = max(T1 - M, 0)

so that between two anchors there is room for the targets, and the first window is used whole. From `MANY_PHOTOS` on, T1
becomes A + M: photos never crowd out anchors; and interp-gt's chunks make room for all photos, T2 + M.
Reference: Stable Virtual Camera (SEVA; Zhou et al., 2025), section on two-pass procedural sampling.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sphinx_nvs.errors import InputError

MANY_PHOTOS = 9
"""From this number of input views on, windows grow with them."""


@dataclass(frozen=True, kw_only=True)
class FirstPass:
    """Anchors of pass 1, and the windows of both passes in views.

    Args:
        num_anchors: A.
        window: T1, photos included.
        chunk_window: T2, of the second pass.
    """

    num_anchors: int
    window: int
    chunk_window: int


def is_interpolating(strategy: str) -> bool:
    """Whether chunks lie between consecutive anchors."""
    return strategy.startswith("interp")


def takes_photos(strategy: str) -> bool:
    """Whether every chunk is conditioned on all photos."""
    return "gt" in strategy


def first_pass(
    strategy: str,
    num_photos: int,
    num_targets: int,
    windows: tuple[int, int],
    *,
    ratio: float | int = 1.0,
    many_photos: int = MANY_PHOTOS,
) -> FirstPass:
    """The number of anchors and the windows, see the module docstring.

    Args:
        strategy: strategy of the second pass.
        num_photos: M, at least 1.
        num_targets: N, at least 1.
        windows: T1 and T2, before photos are counted.
        ratio: r, more than 1 for closer anchors.
        many_photos: from how many photos on windows grow.

    Raises:
        InputError: a chunk has no room for a target beside two anchors and the photos.
    """
    first, second = windows
    many = num_photos >= many_photos
    num_anchors = max(first - num_photos, 0)
    if is_interpolating(strategy):
        with_photos = takes_photos(strategy) and not many
        room = second - 2 - (num_photos if with_photos else 0)
        if room < 1:
            least = second - room + 1
            found = f"{second} views have no room for a target beside two anchors"
            beside = f"{found} and {num_photos} photos" if with_photos else found
            hint = f"give at least {least}" + (", or choose interp" if with_photos else "")
            raise InputError(f"window of {strategy}", beside, hint)
        num_anchors = max(math.ceil(num_targets / room * ratio) + 1, num_anchors)
        second += num_photos if many and takes_photos(strategy) else 0
    return FirstPass(num_anchors=num_anchors, window=num_anchors + num_photos if many else first, chunk_window=second)


def anchor_order(target_order: Sequence[float | int], num_anchors: int) -> list[float]:
    """Where the anchors stand along the path: evenly from the first target to the last."""
    return [float(place) for place in np.linspace(min(target_order), max(target_order), num_anchors)]
