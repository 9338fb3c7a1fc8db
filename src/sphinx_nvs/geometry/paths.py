"""Camera paths for a scene of unknown units, by the name that a user types.

Shapes: V context views.
"""

from __future__ import annotations

from sphinx_nvs.geometry.cameras import Cameras
from sphinx_nvs.geometry.focus import FOCUS_UNITS, focus_distance
from sphinx_nvs.geometry.interpolation import interpolate_path
from sphinx_nvs.geometry.spiral import spiral_through
from sphinx_nvs.geometry.trajectories import PRESETS, preset_path

INTERPOLATE = "interpolate"
SPIRAL_THROUGH = "spiral-through"
PATH_NAMES: tuple[str, ...] = (INTERPOLATE, SPIRAL_THROUGH, *PRESETS)
"""Every name that `scene_path` knows."""


def scene_path(name: str, contexts: Cameras, num_frames: int, *, median_depth: float | int | None = None) -> Cameras:
    """A path through or from the context views, in steps that suit the scene.

    A preset starts exactly at the first context view and has its target straight ahead, at the distance of the
    scene (`focus_distance`); a move is a tenth of that distance. `spiral-through` circles the mean pose of all
    context views, as far as they stray from it.

    Args:
        name: one of `PATH_NAMES`; `dolly-zoom-in` and `dolly-zoom-out` are understood too.
        contexts: in the order that `interpolate` visits them.
        num_frames: length of the path.
        median_depth: median depth of the scene in world units, if a regressor has measured it.

    Raises:
        InputError: an unknown name, too few frames, or a single view to interpolate or to circle through.
    """
    if name == INTERPOLATE:
        return interpolate_path(contexts, num_frames)
    if name == SPIRAL_THROUGH:
        return spiral_through(contexts, num_frames, focus=focus_distance(contexts, median_depth=median_depth))
    scale = focus_distance(contexts, median_depth=median_depth) / FOCUS_UNITS
    return preset_path(name.replace("dolly-zoom", "dolly zoom"), contexts[0], num_frames, scale=scale)
