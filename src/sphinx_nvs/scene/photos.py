r"""A photo's file, as a scene's file names it: whatever system wrote the name, and however it spells it.

Tried in this order: the name as it stands, with each known ending, with `/` for a Windows `\`, without regard to case
and to how accents are composed (macOS writes them apart); of a name that was absolute on another machine, its last
parts; and a name that is written as a URL (`file://`, `%20`) as what it stands for.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path, PurePosixPath
from urllib.parse import unquote

import torch
from jaxtyping import Float
from torch import Tensor

from sphinx_nvs import media
from sphinx_nvs.errors import InputError

_DRIVE = re.compile(r"^[A-Za-z]:/")
_FILE_URL = "file://"
_DIGITS = re.compile(r"(\d+)")


def find_photo(folder: Path, name: str) -> Path | None:
    """The file that a name means, None if there is none.

    Args:
        folder: that the name is relative to.
        name: as a file gives it.

    Raises:
        InputError: the name has no ending, and several photos are called like it.
    """
    path = folder / name
    if _is_file(path):
        return path
    if (found := _with_ending(path)) is not None:
        return found
    for parts in _spellings(name):
        if (found := _below(folder, parts)) is not None:
            return found
    plain = unquote(name.removeprefix(_FILE_URL))
    return None if plain == name else find_photo(folder, plain)


def plain_name(name: str) -> str:
    """A name with `/` between its parts and accents composed."""
    return unicodedata.normalize("NFC", name.replace("\\", "/"))


def natural_key(name: str) -> list[tuple[int, int, str]]:
    """Sorts names as people count: `img_2` before `img_10`."""
    parts = _DIGITS.split(plain_name(name))
    return [(0, int(part), part) if part.isdecimal() else (1, 0, part) for part in parts if part]


def photos_in(folder: Path) -> list[Path]:
    """The photos that lie in a folder, by natural order of their names."""
    if not folder.is_dir():
        return []
    found = (path for path in folder.iterdir() if path.suffix.lower() in media.IMAGE_SUFFIXES and path.is_file())
    return sorted((path for path in found if not path.name.startswith(".")), key=lambda path: natural_key(path.name))


def other_photo_folder(folder: Path, looked_in: Sequence[str]) -> Path | None:
    """A folder below that holds photos although they are not looked for there, None if there is none.

    Args:
        folder: the scene's folder.
        looked_in: names of the folders below it where photos are looked for.
    """
    known = {folder / name for name in looked_in}
    below = (path for depth in ("*", "*/*", "*/*/*") for path in sorted(folder.glob(depth)) if path.is_dir())
    return next((path for path in below if path not in known and photos_in(path)), None)


def check_one_pose_a_photo(photos: Sequence[tuple[str, Path | None, Float[Tensor, "4 4"]]], where: str) -> None:
    """Raises InputError if one photo is found for two cameras in different places: their names are ambiguous.

    Args:
        photos: the name, the photo that was found, and camera-to-world of each camera.
        where: names the scene in the error.
    """
    known: dict[Path, tuple[str, Float[Tensor, "4 4"]]] = {}
    for name, image, c2w in photos:
        if image is None:
            continue
        first, pose = known.setdefault(image.resolve(), (name, c2w))
        if not torch.allclose(pose, c2w, rtol=1e-6, atol=1e-9):
            found = f"{first} and {name} are one photo, {image}, with two poses"
            raise InputError(where, found, "give every camera a photo of its own name")


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):
        # Names that no file system can hold.
        return False


def _with_ending(path: Path) -> Path | None:
    """The photo that a name without ending means.

    Raises:
        InputError: there are several, such as a photo and its mask.
    """
    names = (path.parent / f"{path.name}{ending}" for suffix in media.IMAGE_SUFFIXES for ending in _cases(suffix))
    found = list(filter(_is_file, names))
    if len(found) > 1 and not all(found[0].samefile(other) for other in found[1:]):
        message = f"it could be {found[0].name} or {found[1].name}"
        raise InputError(f"photo {path}", message, "name the photo with its ending, or take the other file away")
    return found[0] if found else None


def _cases(suffix: str) -> tuple[str, str]:
    return suffix, suffix.upper()


def _spellings(name: str) -> Iterator[tuple[str, ...]]:
    """Parts of the name below the folder; of absolute names ever fewer of them, at least the last."""
    plain = plain_name(name)
    parts = tuple(part for part in PurePosixPath(_DRIVE.sub("/", plain)).parts if part not in ("/", "."))
    is_absolute = plain.startswith("/") or _DRIVE.match(plain) is not None
    for start in range(len(parts) if is_absolute else min(1, len(parts))):
        yield parts[start:]


def _below(folder: Path, parts: tuple[str, ...]) -> Path | None:
    """The file at these parts, each compared without regard to case."""
    for part in parts[:-1]:
        if part == "..":
            folder = folder / part
            continue
        inner = _listing(folder).get(_folded(part))
        if inner is None or not inner.is_dir():
            return None
        folder = inner
    last = _folded(parts[-1])
    listing = _listing(folder)
    for candidate in (last, *(f"{last}{suffix}" for suffix in media.IMAGE_SUFFIXES)):
        if (found := listing.get(candidate)) is not None and found.is_file():
            return found
    return None


def _listing(folder: Path) -> dict[str, Path]:
    """What lies in a folder, by folded name; read again once the folder has changed."""
    try:
        return _listed(folder, folder.stat().st_mtime_ns)
    except OSError:
        return {}


@lru_cache(maxsize=64)
def _listed(folder: Path, changed_ns: int) -> dict[str, Path]:
    return {_folded(path.name): path for path in sorted(folder.iterdir(), reverse=True)}


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()
