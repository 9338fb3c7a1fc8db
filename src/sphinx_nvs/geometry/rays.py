"""Viewing rays and their Plücker coordinates.

Through the centre p = (x + 0.5, y + 0.5, 1) of a pixel runs the ray o + s d, d = R K^-1 p / |R K^-1 p|. Its
Plücker coordinates (d, o x d) do not depend on which point of the ray stands for o. As in SEVA they are taken
in the frame of a reference camera, usually the first of the sequence.

Shapes: V views, H W or h w cells of the grid the rays are cast through (any resolution).
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from sphinx_nvs.geometry.cameras import Cameras


def pixel_centres(height: int, width: int, dtype: torch.dtype = torch.float64) -> Float[Tensor, "H W 3"]:
    """Homogeneous pixel centres (x + 0.5, y + 0.5, 1)."""
    y, x = torch.meshgrid(
        torch.arange(height, dtype=dtype) + 0.5, torch.arange(width, dtype=dtype) + 0.5, indexing="ij"
    )
    return torch.stack([x, y, torch.ones_like(x)], dim=-1)


def rays(
    cameras: Cameras, height: int | None = None, width: int | None = None
) -> tuple[Float[Tensor, "V H W 3"], Float[Tensor, "V H W 3"]]:
    """Origins and unit directions in world coordinates, through the centres of a `height` x `width` grid.

    Args:
        cameras: where the rays start.
        height: rows of the grid; None for one row a pixel.
        width: columns of the grid; None for one column a pixel.
    """
    cameras = cameras.resized(height or cameras.height, width or cameras.width)
    through = torch.linalg.inv(cameras.K)[:, None, None] @ pixel_centres(cameras.height, cameras.width)[..., None]
    directions = (cameras.c2w[:, None, None, :3, :3] @ through)[..., 0]
    directions = directions / directions.norm(dim=-1, keepdim=True)
    return cameras.centres[:, None, None].expand_as(directions), directions


def plucker(
    cameras: Cameras,
    height: int | None = None,
    width: int | None = None,
    *,
    reference: Float[Tensor, "4 4"] | None = None,
) -> Float[Tensor, "V 6 h w"]:
    """Plücker coordinates (direction, then moment = origin x direction) of every cell's ray, float32.

    Args:
        cameras: normalised as the network expects (`normalise_cameras`).
        height: rows of the grid, e.g. of the latents; None for the image's.
        width: columns of the grid; None for the image's.
        reference: camera-to-world pose of the frame to express the rays in; None for the first camera.
    """
    reference = cameras.c2w[0] if reference is None else reference.double()
    relative = Cameras(torch.linalg.inv(reference) @ cameras.c2w, cameras.K, cameras.height, cameras.width)
    origins, directions = rays(relative, height, width)
    coordinates = torch.cat([directions, torch.linalg.cross(origins, directions)], dim=-1)
    return coordinates.permute(0, 3, 1, 2).float().contiguous()
