"""A part of the matches that no mapper ever sees: poses that are right fit them as well as the others.

Of every pair of photos each `EVERY`-th match is kept back before pairs are verified.

Shapes: N matches.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from jaxtyping import Float

from sphinx_nvs.posing.colmap_library import colmap, num_threads
from sphinx_nvs.posing.features import images_by_id

EVERY = 8
_LEAST_MATCHES = 24
_STILL_PX = 1.0

Points = Float[np.ndarray, "_ 2"]


@dataclass(frozen=True, kw_only=True)
class PairMatches:
    """What is known of a pair of photos.

    Args:
        names: of the working copies.
        inliers: verified matches that the mapper sees.
        share: of the mapper's matches, those that were verified.
        panoramic: whether one homography explains them: a plane, or a camera that only turns.
        here_seen: verified points in the first photo, pixels.
        there_seen: verified points in the second photo, pixels.
        here: held-out points in the first photo, pixels.
        there: held-out points in the second photo, pixels.
        still: share of the verified matches that did not move by `_STILL_PX`.
    """

    names: tuple[str, str]
    inliers: int
    share: float
    panoramic: bool
    here_seen: Points = field(repr=False)
    there_seen: Points = field(repr=False)
    here: Points = field(repr=False)
    there: Points = field(repr=False)
    still: float = 0.0


def split_matches(matches: Path, mapping: Path, *, error_px: float, seed: int, tick: Callable[[], None]) -> None:
    """Writes the mapper's database: without the held-out matches, and with every pair verified.

    Args:
        matches: the database of all matches.
        mapping: the database to write.
        error_px: most pixels between a match and its epipolar line.
        seed: of every random choice.
        tick: called now and then.
    """
    part = mapping.with_suffix(".part")
    shutil.copy(matches, part)
    library = colmap()
    with library.Database.open(part) as opened:
        opened.clear_two_view_geometries()
        for pair, found in zip(*opened.read_all_matches(), strict=True):
            kept = _seen(found)
            if len(kept) < len(found):
                a, b = library.pair_id_to_image_pair(pair)
                opened.delete_matches(a, b)
                opened.write_matches(a, b, kept)
    tick()
    options = library.TwoViewGeometryOptions()
    options.ransac.random_seed, options.ransac.max_error = seed, error_px
    verifier = library.GeometricVerifierOptions()
    verifier.num_threads = num_threads()
    library.geometric_verification(part, verifier_options=verifier, two_view_geometry_options=options)
    part.replace(mapping)


def _is_held(count: int) -> np.ndarray:
    """Which of a pair's matches are held out: none of too few."""
    if count < _LEAST_MATCHES:
        return np.zeros(count, dtype=bool)
    return np.arange(count) % EVERY == EVERY - 1


def _seen(matches: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(matches[~_is_held(len(matches))])


def pair_matches(matches: Path, mapping: Path) -> list[PairMatches]:
    """Every pair that was verified, with its held-out matches."""
    library = colmap()
    found = []
    with library.Database.open(matches) as all_of_them, library.Database.open(mapping) as seen:
        names = images_by_id(seen)
        points = {number: all_of_them.read_keypoints(number)[:, :2] for number in names}
        for pair, geometry in zip(*seen.read_two_view_geometries(), strict=True):
            a, b = library.pair_id_to_image_pair(pair)
            raw = all_of_them.read_matches(a, b)
            inliers = geometry.inlier_matches
            if len(inliers) == 0:
                continue
            held = raw[_is_held(len(raw))]
            moved = np.linalg.norm(points[a][inliers[:, 0]] - points[b][inliers[:, 1]], axis=1)
            kinds = library.TwoViewGeometryConfiguration
            found.append(
                PairMatches(
                    names=(names[a], names[b]),
                    inliers=len(inliers),
                    share=len(inliers) / max(1, len(_seen(raw))),
                    panoramic=geometry.config in (kinds.PLANAR, kinds.PANORAMIC, kinds.PLANAR_OR_PANORAMIC),
                    here_seen=points[a][inliers[:, 0]],
                    there_seen=points[b][inliers[:, 1]],
                    here=points[a][held[:, 0]],
                    there=points[b][held[:, 1]],
                    still=float((moved < _STILL_PX).mean()),
                )
            )
    return found
