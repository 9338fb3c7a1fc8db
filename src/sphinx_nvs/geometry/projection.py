"""Between pixels with depth and points in the world.

    (u, v, 1) z = K R^T (X - o),   z is the depth along the optical axis

Shapes: V views, N points, H W pixels.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from sphinx_nvs.geometry.cameras import Cameras
from sphinx_nvs.geometry.rays import pixel_centres


def project(cameras: Cameras, points: Float[Tensor, "V N 3"]) -> tuple[Float[Tensor, "V N 2"], Float[Tensor, "V N"]]:
    """Pixel positions (u right, v down, from the image corner) and z-depths of world points.

    A depth that is not positive means that the point is not in front; its pixel position has no meaning then.

    Args:
        cameras: one per row of `points`.
        points: in world units.
    """
    in_camera = torch.einsum("vij,vnj->vni", cameras.w2c[:, :3, :3], points.double() - cameras.centres[:, None])
    pixels = torch.einsum("vij,vnj->vni", cameras.K, in_camera)
    return pixels[..., :2] / pixels[..., 2:], in_camera[..., 2]


def unproject(cameras: Cameras, depth: Float[Tensor, "V H W"]) -> Float[Tensor, "V H W 3"]:
    """World points of every pixel centre at its z-depth.

    Args:
        cameras: cameras of the depth maps' size.
        depth: along the optical axis, world units.
    """
    height, width = depth.shape[-2:]
    scaled = cameras.resized(height, width)
    through = torch.linalg.inv(scaled.K)[:, None, None] @ pixel_centres(height, width)[..., None]
    in_camera = through * depth.double()[..., None, None]
    return (scaled.c2w[:, None, None, :3, :3] @ in_camera)[..., 0] + scaled.centres[:, None, None]
