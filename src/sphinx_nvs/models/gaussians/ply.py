"""Gaussian clouds as PLY files in the layout of 3D Gaussian splatting's own viewer.

Binary little-endian float32 vertices: x y z, nx ny nz (0), f_dc_0..2, f_rest_* (per colour channel all
coefficients of degree >= 1), opacity (logit), scale_0..2 (log), rot_0..3 (w x y z).

Shapes: N Gaussians, S spherical-harmonic coefficients.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from sphinx_nvs import media
from sphinx_nvs.errors import InputError, OutputError
from sphinx_nvs.geometry.se3 import rotation_from_quaternion
from sphinx_nvs.models.gaussians.cloud import Gaussians, covariances_from_scales, principal_axes

HIGHEST_DEGREE = 3  # viewers of this layout read no higher one
LEAST_SCALE = 1e-9
LEAST_OPACITY = 1e-6
TYPES = {
    "char": "i1", "uchar": "u1", "short": "i2", "ushort": "u2", "int": "i4", "uint": "u4",
    "float": "f4", "double": "f8", "float32": "f4", "float64": "f8", "uint8": "u1", "int32": "i4",
}  # fmt: skip


def write_ply(path: str | Path, gaussians: Gaussians, *, overwrite: bool = False) -> None:
    """Writes the cloud atomically: the file appears whole or not at all. Features are not stored.

    Args:
        path: the file to write.
        gaussians: the cloud; spherical harmonics above degree 3 are left out.
        overwrite: whether an existing file may be replaced.

    Raises:
        OutputError: the file exists, or cannot be written.
    """
    path = Path(path)
    if path.exists() and not overwrite:
        raise OutputError(str(path), "it exists", "name another file or allow overwriting")
    columns = _columns(gaussians)
    header = [
        "ply", "format binary_little_endian 1.0", f"element vertex {len(gaussians)}",
        *(f"property float {name}" for name in columns), "end_header", "",
    ]  # fmt: skip
    table = torch.cat(list(columns.values()), 1).float().cpu().numpy().astype("<f4")
    media.write_bytes(path, "\n".join(header).encode("ascii") + table.tobytes())


def _columns(gaussians: Gaussians) -> dict[str, Float[Tensor, "N 1"]]:
    """Every property by name, in the order of the layout."""
    scales, quaternions = principal_axes(gaussians.covariances)
    sh = gaussians.sh[..., : (HIGHEST_DEGREE + 1) ** 2]
    zeros = torch.zeros_like(gaussians.means)
    groups = [
        (["x", "y", "z"], gaussians.means),
        (["nx", "ny", "nz"], zeros),
        ([f"f_dc_{k}" for k in range(3)], sh[..., 0]),
        ([f"f_rest_{k}" for k in range(3 * (sh.shape[-1] - 1))], sh[..., 1:].flatten(1)),
        (["opacity"], torch.logit(gaussians.opacities, LEAST_OPACITY)[:, None]),
        ([f"scale_{k}" for k in range(3)], scales.clamp_min(LEAST_SCALE).log()),
        ([f"rot_{k}" for k in range(4)], quaternions),
    ]
    return {name: table[:, k : k + 1] for names, table in groups for k, name in enumerate(names)}


def read_ply(path: str | Path) -> Gaussians:
    """Reads a cloud in this layout, degree 0 to 3; extra properties are ignored.

    Raises:
        InputError: the file cannot be read, is not a binary little-endian PLY, is truncated, or lacks a property.
    """
    path = Path(path)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(str(path), f"it cannot be read ({error.strerror})", "name a PLY file") from error
    table = _table(data, path)
    sh = torch.cat([_group(table, "f_dc_", path)[..., None], _rest(table, path)], -1)
    rotations = rotation_from_quaternion(_group(table, "rot_", path, 4))
    return Gaussians(
        means=torch.stack([_property(table, name, path) for name in "xyz"], -1),
        covariances=covariances_from_scales(_group(table, "scale_", path).exp(), rotations),
        opacities=_property(table, "opacity", path).sigmoid(),
        sh=sh,
    )


def _table(data: bytes, path: Path) -> np.ndarray:
    """The vertices as a structured array."""
    head, end, body = data.partition(b"end_header\n")
    lines = head.decode("ascii", "replace").split("\n")
    if not end or lines[0].strip() != "ply" or "format binary_little_endian 1.0" not in lines:
        raise InputError(str(path), "it is not a binary little-endian PLY", "export it again in that format")
    words = [line.split() for line in lines]
    elements = [w for w in words if w[:1] == ["element"]]
    if not elements or len(elements[0]) != 3 or elements[0][1] != "vertex" or not elements[0][2].isdigit():
        raise InputError(str(path), "its first element is not `vertex <count>`", "give a Gaussian splatting PLY")
    first = words.index(elements[0])
    stop = words.index(elements[1]) if len(elements) > 1 else len(words)
    fields = [(w[2], "<" + TYPES[w[1]]) for w in words[first:stop] if w[:1] == ["property"] and w[1] in TYPES]
    layout, count = np.dtype(fields), int(elements[0][2])
    if len(body) < count * layout.itemsize:
        found = f"{len(body)} bytes of data instead of {count * layout.itemsize}"
        raise InputError(str(path), found, "the file is cut short: copy or export it again")
    return np.frombuffer(body, layout, count)


def _property(table: np.ndarray, name: str, path: Path) -> Float[Tensor, " N"]:
    """One column."""
    if name not in (table.dtype.names or ()):
        raise InputError(str(path), f"it has no property {name}", "give a Gaussian splatting PLY")
    return torch.from_numpy(table[name].astype(np.float32))


def _group(table: np.ndarray, prefix: str, path: Path, count: int = 3) -> Float[Tensor, "N k"]:
    """Columns prefix0, prefix1, ..."""
    return torch.stack([_property(table, f"{prefix}{k}", path) for k in range(count)], -1)


def _rest(table: np.ndarray, path: Path) -> Float[Tensor, "N 3 R"]:
    """Coefficients of degree 1 and above; R is 0 if there are none."""
    count = sum(name.startswith("f_rest_") for name in table.dtype.names or ())
    if count % 3:
        raise InputError(str(path), f"it has {count} f_rest properties", "give three times as many per degree")
    if not count:
        return torch.zeros(len(table), 3, 0)
    return _group(table, "f_rest_", path, count).view(len(table), 3, count // 3)
