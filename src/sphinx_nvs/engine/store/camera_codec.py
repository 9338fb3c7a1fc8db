"""Target cameras of a job as bytes: exact, and a tenth of their size as JSON.

A row holds up to a thousand cameras of 25 float64. As JSON these are 0.5 MB that a request of a hundred bytes causes;
here they are the numbers' bytes, the first bytes of all numbers before the second ones (smooth paths share the high
ones), through zlib.

    version (1 byte) | zlib( V x 12 pose numbers, V x 9 intrinsics, byte-plane by byte-plane )
"""

from __future__ import annotations

import zlib

import numpy as np

from sphinx_nvs.engine.types.jobs import Matrix

_VERSION = b"\x01"
_WIDTH = 8
_LAST_ROW = (0.0, 0.0, 0.0, 1.0)


def pack_cameras(c2w: tuple[Matrix, ...], K: tuple[Matrix, ...]) -> bytes:
    """Returns the bytes of V poses, 4x4 with the last row 0 0 0 1, and of V intrinsics, 3x3."""
    poses = np.asarray([pose[:3] for pose in c2w], "<f8").reshape(-1)
    numbers = np.concatenate([poses, np.asarray(K, "<f8").reshape(-1)])
    planes = numbers.view(np.uint8).reshape(-1, _WIDTH).T
    return _VERSION + zlib.compress(np.ascontiguousarray(planes).tobytes(), 6)


def unpack_cameras(data: bytes, count: int) -> tuple[tuple[Matrix, ...], tuple[Matrix, ...]]:
    """Returns poses and intrinsics of `count` cameras.

    Raises:
        ValueError: these are no bytes of `pack_cameras`.
    """
    if data[:1] != _VERSION:
        raise ValueError(f"cameras of version {data[:1]!r}")
    planes = np.frombuffer(zlib.decompress(data[1:]), np.uint8).reshape(_WIDTH, -1)
    numbers = np.ascontiguousarray(planes.T).view("<f8").reshape(-1)
    poses, intrinsics = numbers[: 12 * count].reshape(count, 3, 4), numbers[12 * count :].reshape(count, 3, 3)
    c2w = tuple((*(tuple(row) for row in pose), _LAST_ROW) for pose in poses.tolist())
    return c2w, tuple(tuple(tuple(row) for row in K) for K in intrinsics.tolist())
