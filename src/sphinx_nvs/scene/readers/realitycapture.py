"""RealityCapture: registration exported as CSV ("Internal/External camera parameters"), photos beside.

Columns `#name, x, y, alt, heading, pitch, roll, f, px, py, k1 .. k4, t1, t2`. Lengths f, px, py are millimetres of a
36 mm wide sensor along the longer side; px, py count from the image's centre. With angles in degrees

    R = R_z(-heading) R_x(pitch) R_y(roll)

is camera-to-world with OpenGL axes: at zero the camera looks down and its top points north. Coordinates are x, y, alt.
"""

from __future__ import annotations

import csv
import io
import math
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from sphinx_nvs import media
from sphinx_nvs.errors import InputError
from sphinx_nvs.geometry import se3
from sphinx_nvs.scene.capture import Capture
from sphinx_nvs.scene.distortion import Distortion
from sphinx_nvs.scene.intrinsics import intrinsics_matrix
from sphinx_nvs.scene.photos import find_photo
from sphinx_nvs.scene.readers.entries import Entry, by_name, capture_of, lost_notes
from sphinx_nvs.scene.textfile import files_ending, head_of, read_text
from sphinx_nvs.scene.transforms import flip_yz

_NEEDED = ("#name", "x", "y", "alt", "heading", "pitch", "roll", "f")
_FOLDERS = ("images", "photos", "input", ".")
_SENSOR_MM = 36.0


def is_realitycapture(path: Path) -> bool:
    """Whether a CSV file is such an export."""
    head = next(iter(head_of(path).splitlines()), "")
    return {"#name", "heading", "pitch", "roll"} <= {field.strip() for field in head.split(_separator(head))}


def _separator(head: str) -> str:
    """What stands between columns: spreadsheets of many countries save semicolons, and "Unicode text" with tabs."""
    return next((mark for mark in (";", "\t") if mark in head), ",")


def registration_file(folder: Path) -> Path | None:
    """The one such file of a folder, None if there is none."""
    found = [path for path in files_ending(folder, ".csv") if is_realitycapture(path)]
    if len(found) > 1:
        raise InputError(f"folder {folder}", f"it holds {len(found)} camera files ({found[0].name}, ...)", "name one")
    return found[0] if found else None


def read_realitycapture(path: Path) -> Capture:
    """Reads the file and the photos in `images`, `photos` or `input` beside it, or beside it directly.

    Raises:
        InputError: a line cannot be understood, or no photo is found.
    """
    text = read_text(path)
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=_separator(next(iter(text.splitlines()), "")))
    reader.fieldnames = [name.strip() for name in reader.fieldnames or ()]
    rows = [(reader.line_num, row) for row in reader]
    missing = [key for key in _NEEDED if key not in (reader.fieldnames or ())]
    if missing:
        raise InputError(f"file {path}", f"it has no column {missing[0]}", "export internal/external camera parameters")
    entries, lost = [], 0
    for line, row in rows:
        name = row["#name"] or ""
        image = next((p for folder in _FOLDERS if (p := find_photo(path.parent / folder, name)) is not None), None)
        if image is None:
            lost += 1
        else:
            entries.append(_entry(name, row, image, f"{path}, line {line}"))
    notes = lost_notes(lost, len(entries), path.parent, _FOLDERS)
    return capture_of(
        by_name(entries), path=path, name=path.parent.resolve().name, layout="RealityCapture CSV", notes=notes
    )


def _entry(name: str, row: dict[str, str], image: Path, where: str) -> Entry:
    x, y, alt, heading, pitch, roll, f = (_number(row, key, where) for key in _NEEDED[1:])
    height, width = media.image_size(image)
    scale = max(height, width) / _SENSOR_MM
    px, py = (_number(row, key, where) if row.get(key) else 0.0 for key in ("px", "py"))
    if f <= 0:
        raise InputError(where, f"f is {f:g}", "give a focal length above 0 mm")
    keys = {"k1": "k1", "k2": "k2", "k3": "k3", "k4": "k4", "p1": "t1", "p2": "t2"}
    bends = {key: _number(row, column, where) if row.get(column) else 0.0 for key, column in keys.items()}
    c2w = flip_yz(se3.pose_from(_rotation(heading, pitch, roll), torch.tensor([x, y, alt], dtype=torch.float64)))
    K = intrinsics_matrix(f * scale, f * scale, width / 2 + px * scale, height / 2 + py * scale)
    return Entry(name=name, c2w=c2w, K=K, size=(height, width), image=image, lens=Distortion(**bends) or None)


def _number(row: dict[str, str], key: str, where: str) -> float:
    text = row.get(key) or ""
    try:
        # With semicolons or tabs between columns, the comma is the decimal point.
        value = float(text.replace(",", "."))
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise InputError(where, f"{key} is {text[:40]!r}", "give a finite number")
    return value


def _rotation(heading: float, pitch: float, roll: float) -> Float[Tensor, "3 3"]:
    axes = torch.eye(3, dtype=torch.float64)
    turns = zip((axes[2], axes[0], axes[1]), (-heading, pitch, roll), strict=True)
    z, x, y = (se3.rotation_about(axis, axis.new_tensor(math.radians(angle))) for axis, angle in turns)
    return z @ x @ y
