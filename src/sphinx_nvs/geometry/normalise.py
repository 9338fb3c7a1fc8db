"""SEVA's two normalisations: of a request's cameras, and of a captured world.

Cameras are centred on themselves and scaled by the first one's distance:

    o' = s (o - mean of the valid reference centres),   s = camera_scale / |o_first - mean|

(s = camera_scale if that is 0). A reference camera is valid when its distance to the coordinate-wise median
is at most ten times the 97 % quantile of those distances (and 1e6).

A world is turned upright by its cameras, centred and scaled by them, then centred on its points and turned into their
principal axes:

    p' = R (s (U p - m) - q),   s = 1 / median |U o - m|

with U the smallest rotation that takes the cameras' mean up to -y, m and q coordinate-wise medians of U o and of the
points s (U p - m), and the rows of R the eigenvectors of those points' covariance, largest first.
Zhou et al., "Stable Virtual Camera", 2025.

Shapes: V views, P points.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from sphinx_nvs.errors import InputError
from sphinx_nvs.geometry import se3
from sphinx_nvs.geometry.cameras import Cameras

_QUANTILE = 0.97
_OUTLIER_FACTOR = 10.0
_FARTHEST = 1e6
_SAME_PLACE = 1e-5


def robust_centre(centres: Float[Tensor, "V 3"]) -> Float[Tensor, "3"]:
    """Mean of the camera centres without far outliers."""
    distances = (centres - centres.median(dim=0).values).norm(dim=-1)
    limit = (_OUTLIER_FACTOR * distances.quantile(_QUANTILE)).clamp_max(_FARTHEST)
    return centres[distances <= limit].mean(dim=0)


def normalise_cameras(
    cameras: Cameras, *, reference: Cameras | None = None, camera_scale: float | int = 2.0
) -> Cameras:
    """The cameras as SEVA's network expects them; rotations and intrinsics stay.

    Args:
        cameras: of one chunk, in the order they enter the network.
        reference: all input and target cameras, which define the centre; None for `cameras` themselves.
        camera_scale: distance of the first camera from the centre afterwards.
    """
    reference = cameras if reference is None else reference
    c2w = cameras.c2w.clone()
    c2w[:, :3, 3] -= robust_centre(reference.centres)
    distance = c2w[0, :3, 3].norm()
    c2w[:, :3, 3] *= camera_scale / (float(distance) if distance >= _SAME_PLACE else 1.0)
    return Cameras(c2w, cameras.K, cameras.height, cameras.width)


def world_similarity(cameras: Cameras, points: Float[Tensor, "P 3"]) -> Float[Tensor, "4 4"]:
    """The similarity that brings a captured world to a canonical place, size and orientation.

    Each principal axis of the points is only known up to its sign.

    Args:
        cameras: of the capture.
        points: of the reconstruction, world units, at least 3.

    Raises:
        InputError: too few points, or all cameras in one place.
    """
    if len(points) < 3:
        raise InputError("points", f"there are {len(points)}", "give at least 3")
    upright = _turn_up(-cameras.c2w[:, :3, 1].sum(0))
    centres = cameras.centres @ upright.T
    middle = _median(centres)
    distance = float(_median((centres - middle).norm(dim=-1)[:, None])[0])
    if distance < _SAME_PLACE:
        raise InputError("cameras", "most of them are in one place", "give cameras that move")
    scaled = (points.double() @ upright.T - middle) / distance
    axes = _principal_axes(scaled)
    similarity = torch.eye(4, dtype=torch.float64)
    similarity[:3, :3] = axes @ upright / distance
    similarity[:3, 3] = -axes @ (middle / distance + _median(scaled))
    return similarity


def normalise_world(
    cameras: Cameras, points: Float[Tensor, "P 3"]
) -> tuple[Cameras, Float[Tensor, "P 3"], Float[Tensor, "4 4"]]:
    """The cameras and points moved by `world_similarity`, and that similarity."""
    similarity = world_similarity(cameras, points)
    scale = torch.linalg.det(similarity[:3, :3]) ** (1 / 3)
    c2w = similarity @ cameras.c2w
    c2w[:, :3, :3] /= scale
    moved = points.double() @ similarity[:3, :3].T + similarity[:3, 3]
    return Cameras(c2w, cameras.K, cameras.height, cameras.width), moved, similarity


def _median(values: Float[Tensor, "V C"]) -> Float[Tensor, "C"]:
    """Coordinate-wise; of an even number the mean of the two in the middle."""
    return values.quantile(0.5, dim=0)


def _turn_up(up: Float[Tensor, "3"]) -> Float[Tensor, "3 3"]:
    """The smallest rotation that takes `up` to -y, up in camera axes; half a turn about x if they are opposite."""
    wanted = torch.tensor([0.0, -1.0, 0.0], dtype=torch.float64)
    up = up / up.norm()
    axis = torch.linalg.cross(up, wanted)
    if float(axis.norm()) < _SAME_PLACE:
        axis = torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64)
    return se3.rotation_about(axis, torch.atan2(torch.linalg.cross(up, wanted).norm(), up @ wanted))


def _principal_axes(points: Float[Tensor, "P 3"]) -> Float[Tensor, "3 3"]:
    """Rows: the axes of largest to smallest spread, right-handed."""
    vectors = torch.linalg.eigh(points.T.cov()).eigenvectors.flip(1)
    vectors[:, 0] *= torch.linalg.det(vectors).sign()
    return vectors.T
