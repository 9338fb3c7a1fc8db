"""Poses written by another convention than their layout's: valid rotations, and every frame wrong.

Matches between photos tell: where they fit the poses only once axes are changed or matrices are inverted or
transposed, the file means that. A scene is never changed by it: a warning says so.

Shapes: one photo at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial

from jaxtyping import Float
from torch import Tensor

from sphinx_nvs.geometry import se3
from sphinx_nvs.scene.capture import Capture
from sphinx_nvs.scene.matching import best_reading, grey_of
from sphinx_nvs.scene.orientation import sighting
from sphinx_nvs.scene.transforms import flip_yz

_AS_GIVEN = "as given"


def _transposed(c2w: Float[Tensor, "4 4"]) -> Float[Tensor, "4 4"]:
    """The pose whose rotation is transposed in a file with OpenGL axes."""
    opengl = flip_yz(c2w)
    return flip_yz(se3.pose_from(opengl[:3, :3].T, opengl[:3, 3]))


_MEANT: Mapping[str, Callable[[Tensor], Tensor]] = {
    _AS_GIVEN: lambda c2w: c2w,
    "with y and z axes of the cameras reversed (OpenCV and OpenGL axes are mixed up)": flip_yz,
    "inverted, as world-to-camera with OpenGL axes": lambda c2w: flip_yz(se3.inverse(flip_yz(c2w))),
    "inverted, as world-to-camera with OpenCV axes": se3.inverse,
    "with their rotations transposed": _transposed,
}


def convention_warnings(capture: Capture) -> list[str]:
    """A sentence if matches between the photos fit the poses only as another convention reads them; else nothing.

    Args:
        capture: any capture; some of its photos are decoded.

    Raises:
        InputError: a photo cannot be read.
    """
    views = [view for view in capture.views if view.image is not None]
    if len(views) < 2:
        return []
    seen = [replace(sighting(view), c2w=capture.world.outside(view.c2w)) for view in views]
    readings = {name: [replace(each, c2w=meant(each.c2w)) for each in seen] for name, meant in _MEANT.items()}
    best = best_reading(readings, [partial(grey_of, view.image) for view in views if view.image is not None])
    if best is None or best == _AS_GIVEN:
        return []
    return [f"matches between the photos fit the poses only {best}: correct the file"]
