"""Options of `sphinx-nvs poses`; imports no torch, so that help is fast."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

POSES = """\
Finds the cameras of plain photos or of a video, and writes a scene that every command reads.

PHOTOS is a folder of photos of things that stand still, taken from different places, or a video of them. Photos that
do not determine cameras are refused, with what to photograph instead. An interrupted run continues. Examples:

  sphinx-nvs poses holiday/statue --out statue
  sphinx-nvs poses clip.mp4 --out room --json

render and plan take plain photos and videos themselves; they keep the cameras in the cache.
"""


@dataclass(frozen=True, kw_only=True)
class Poses:
    """Options of `sphinx-nvs poses`."""

    photos: Annotated[Positional[Path], arg(metavar="PHOTOS|VIDEO")]
    """Folder of photos, or a video."""

    out: Annotated[Path, arg(metavar="DIR")]
    """The scene's folder."""

    focal_mm: Annotated[float | None, arg(metavar="MM", help_behavior_hint="(default: by EXIF, or found)")] = None
    """Focal length of the camera as that of 35 mm film, for photos that lost their EXIF; phones have about 26."""

    seed: Annotated[int, arg(metavar="SEED")] = 0
    """Seed of every random choice; the same seed gives the same cameras, bit for bit."""

    overwrite: Annotated[bool, arg(help_behavior_hint="")] = False
    """Replace an earlier scene."""

    json: Annotated[bool, arg(help_behavior_hint="")] = False
    """Print the report as one JSON object, the last line of standard output."""
