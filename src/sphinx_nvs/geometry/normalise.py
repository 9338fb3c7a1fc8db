"""SEVA's normalisation of a request's cameras.

Cameras are centred on themselves and scaled by the first one's distance:

    o' = s (o - mean of the valid reference centres),   s = camera_scale / |o_first - mean|

(s = camera_scale if that is 0). A reference camera is valid when its distance to the coordinate-wise median
is at most ten times the 97 % quantile of those distances (and 1e6).

Zhou et al., "Stable Virtual Camera", 2025.

Shapes: V views.
"""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

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
        cameras: cameras of one chunk, in the order they enter the network.
        reference: all input and target cameras, which define the centre; None for `cameras` themselves.
        camera_scale: distance of the first camera from the centre afterwards.
    """
    reference = cameras if reference is None else reference
    c2w = cameras.c2w.clone()
    c2w[:, :3, 3] -= robust_centre(reference.centres)
    distance = c2w[0, :3, 3].norm()
    c2w[:, :3, 3] *= camera_scale / (float(distance) if distance >= _SAME_PLACE else 1.0)
    return Cameras(c2w, cameras.K, cameras.height, cameras.width)
