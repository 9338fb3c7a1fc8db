"""What is known of a camera before its photos are matched: its name and focal length, by EXIF.

EXIF gives the focal length as that of a 35 mm film camera with the same angle of view across the diagonal, so that

    f_pixels = f_35 . diagonal_pixels / 43.27 mm

Without it, a phone's main camera is assumed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from sphinx_nvs.errors import InputError

ASSUMED = 0.7
"""Focal length of an unknown camera, as a share of the photo's long side: 26 mm on film, a phone's main camera."""

_FILM_DIAGONAL_MM = 43.27
_LEAST_MM, _MOST_MM = 4, 2000
_EXIF_BLOCK, _FOCAL_35MM, _MAKE, _MODEL = 0x8769, 0xA405, 0x010F, 0x0110


@dataclass(frozen=True, kw_only=True)
class CameraPrior:
    """A camera as EXIF describes it.

    Args:
        model: make and model, empty if unknown.
        focal: focal length as a share of the photo's diagonal; None if unknown.
    """

    model: str = ""
    focal: float | None = None

    def pixels(self, width: int, height: int) -> float:
        """The focal length to begin with, in pixels of a photo of this size."""
        if self.focal is None:
            return ASSUMED * max(width, height)
        return self.focal * math.hypot(width, height)


def check_focal(focal_mm: float | None) -> None:
    """Raises InputError for a focal length, in mm on 35 mm film, that no lens has."""
    if focal_mm is not None and not _LEAST_MM <= focal_mm <= _MOST_MM:
        hint = f"give that of 35 mm film, {_LEAST_MM} to {_MOST_MM}; phones have about 26"
        raise InputError("focal_mm", f"it is {focal_mm:g}", hint)


def camera_prior(photo: Path, focal_mm: float | None = None) -> CameraPrior:
    """Reads the EXIF of a photo; an unreadable one says nothing.

    Args:
        photo: an image file.
        focal_mm: focal length on 35 mm film, which takes precedence over EXIF's.
    """
    try:
        with Image.open(photo) as image:
            exif = image.getexif()
            found = exif.get_ifd(_EXIF_BLOCK).get(_FOCAL_35MM) if focal_mm is None else focal_mm
            names = [str(exif.get(tag, "")).strip(" \0") for tag in (_MAKE, _MODEL)]
    except (OSError, UnidentifiedImageError, ValueError, SyntaxError):
        return CameraPrior(focal=_share(focal_mm))
    return CameraPrior(model=" ".join(name for name in names if name), focal=_share(found))


def _share(focal_35mm: object) -> float | None:
    """A 35 mm equivalent as a share of the diagonal; None for what no lens has (EXIF writes 0 for unknown)."""
    try:
        millimetres = float(str(focal_35mm))
    except ValueError:
        return None
    return millimetres / _FILM_DIAGONAL_MM if _LEAST_MM <= millimetres <= _MOST_MM else None
