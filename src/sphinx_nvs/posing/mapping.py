"""Cameras and points from verified matches: mappers in turn, until one places every photo.

The incremental mapper is the most exact. Where it finds no pair to begin with, or stops, it begins with less parallax;
then the global mapper (GLOMAP) places all photos at once. Lens distortion is left to the adjustment at the end, for it
makes the beginning fragile.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from sphinx_nvs.posing.colmap_library import colmap

_ANGLES_DEG = (16.0, 4.0)
_FEWEST = 3


def models(database: Path, folder: Path, *, num_photos: int, seed: int, tick: Callable[[], None]) -> Iterator[Any]:
    """The largest model of each mapper in turn; the caller stops once one is good.

    Args:
        database: with verified pairs.
        folder: of the working copies.
        num_photos: of the set; two photos keep the focal length they begin with.
        seed: of every random choice.
        tick: called after each photo that is placed.
    """
    for angle in _ANGLES_DEG:
        yield from _largest(_incremental(database, folder, angle, num_photos, seed, tick))
    if num_photos >= _FEWEST:
        yield from _largest(_global(database, folder, seed))
        tick()


def _largest(found: Sequence[Any]) -> Iterator[Any]:
    if found:
        yield max(found, key=lambda model: (model.num_reg_images(), model.num_points3D()))


def _incremental(
    database: Path, folder: Path, angle: float, num_photos: int, seed: int, tick: Callable[[], None]
) -> list[Any]:
    library = colmap()
    library.set_random_seed(seed)
    options = library.IncrementalPipelineOptions()
    options.random_seed, options.num_threads = seed, 1
    options.min_model_size = min(num_photos, _FEWEST)
    options.max_num_models = 4
    options.mapper.init_min_tri_angle = angle
    options.mapper.init_min_num_inliers = 50
    options.ba_refine_extra_params = options.mapper.abs_pose_refine_extra_params = False
    if num_photos < _FEWEST:
        options.ba_refine_focal_length = options.mapper.abs_pose_refine_focal_length = False
        # Two photos have no longer tracks.
        options.triangulation.ignore_two_view_tracks = False
    with tempfile.TemporaryDirectory() as out:
        found = library.incremental_mapping(
            database, folder, out, options, initial_image_pair_callback=tick, next_image_callback=tick
        )
    return list(found.values())


def _global(database: Path, folder: Path, seed: int) -> list[Any]:
    library = colmap()
    library.set_random_seed(seed)
    options = library.GlobalPipelineOptions()
    options.random_seed, options.num_threads = seed, 1
    options.mapper.global_positioning.use_gpu = options.mapper.bundle_adjustment.ceres.use_gpu = False
    options.mapper.bundle_adjustment.refine_extra_params = False
    with tempfile.TemporaryDirectory() as out:
        return list(library.global_mapping(database, folder, out, options).values())
