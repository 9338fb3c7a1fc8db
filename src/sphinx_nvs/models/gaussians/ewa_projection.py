"""Projection of 3D Gaussians to the image: elliptical weighted average splatting.

A mean lands at (u, v) = K x_cam / z. Its covariance becomes (Zwicker et al. 2001, "EWA splatting",
equation 31; Kerbl et al. 2023)

    S' = J R S R^T J^T + blur I,   J = [f_x / z, 0, -f_x t_x / z^2; 0, f_y / z, -f_y t_y / z^2],

with R the camera's rotation and x_cam / z clamped in J to 1.3 times the half field of view.

Shapes: N Gaussians.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from sphinx_nvs.geometry.cameras import Cameras
from sphinx_nvs.models.gaussians.cloud import Gaussians

FIELD_OF_VIEW_MARGIN = 1.3
SMALLEST_DEPTH = 1e-9  # keeps culled Gaussians finite
BOX_MARGIN_PX = 0.01  # against rounding; compositing tests pixels outside the support again


@dataclass(frozen=True)
class Projected:
    """Gaussians on one camera's screen; all N of them, unculled.

    Args:
        means2d: (u, v) in pixels, first pixel's centre at 0.5.
        cov2d: (xx, xy, yy) of S', square pixels.
        z: z-depth in world units.
        is_valid: in front of the near plane, with an invertible S'.
    """

    means2d: Float[Tensor, "N 2"]
    cov2d: Float[Tensor, "N 3"]
    z: Float[Tensor, " N"]
    is_valid: Tensor

    @property
    def determinant(self) -> Float[Tensor, " N"]:
        """Determinant of S'."""
        xx, xy, yy = self.cov2d.unbind(-1)
        return xx * yy - xy * xy

    @property
    def conic(self) -> Float[Tensor, "N 3"]:
        """(xx, xy, yy) of the inverse of S'; undefined where `is_valid` is False."""
        xx, xy, yy = self.cov2d.unbind(-1)
        return torch.stack([yy, -xy, xx], -1) / self.determinant[:, None]

    @property
    def radius(self) -> Float[Tensor, " N"]:
        """Three standard deviations along the longer axis, rounded up to pixels, as 3DGS bounds a splat."""
        xx, _, yy = self.cov2d.unbind(-1)
        middle = (xx + yy) / 2
        # 3DGS' own floor of 0.1, so that radii agree with its rasteriser's.
        longest = middle + (middle * middle - self.determinant).clamp_min(0.1).sqrt()
        return torch.ceil(3 * longest.sqrt())


def project(gaussians: Gaussians, camera: Cameras, near: float, blur: float) -> Projected:
    """Projects all Gaussians into one camera, in the dtype of the means.

    Args:
        gaussians: the cloud.
        camera: a single camera.
        near: Gaussians at or before this z-depth are culled, world units.
        blur: low-pass term added to the diagonal of S', square pixels.
    """
    means = gaussians.means
    w2c = camera.w2c[0].to(means)
    K = camera.K[0].to(means)
    R, focal = w2c[:3, :3], K[[0, 1], [0, 1]]
    x = means @ R.T + w2c[:3, 3]
    z = x[:, 2]
    is_front = z > near
    safe = torch.where(z.abs() < SMALLEST_DEPTH, SMALLEST_DEPTH, z)
    # Slopes beyond the screen are clamped: far off-axis the linearisation J would stretch Gaussians across the image.
    slope = x[:, :2] / safe[:, None]
    limit = FIELD_OF_VIEW_MARGIN * torch.tensor([camera.width, camera.height]).to(means) / (2 * focal)
    clamped = torch.maximum(torch.minimum(slope, limit), -limit)
    # Rows of J R, without building J.
    rows = (focal / safe[:, None])[..., None] * (R[:2] - clamped[..., None] * R[2])
    carried = rows @ gaussians.covariances
    xx, xy, yy = ((carried[:, i] * rows[:, j]).sum(-1) for i, j in ((0, 0), (0, 1), (1, 1)))
    cov2d = torch.stack([xx + blur, xy, yy + blur], -1)
    means2d = slope * focal + K[:2, 2]
    projected = Projected(means2d, cov2d, z, is_front)
    return Projected(means2d, cov2d, z, is_front & (projected.determinant > 0))


def support_boxes(
    projected: Projected, opacities: Float[Tensor, " N"], camera: Cameras, min_alpha: float
) -> Int[Tensor, "N 4"]:
    """First and last pixel (x0, x1, y0, y1) in which opacity exp(-r^2 / 2) can reach `min_alpha`.

    Empty (x0 > x1) for Gaussians that are invalid, too faint, or off the screen; with `min_alpha` 0 a valid
    Gaussian covers the screen.
    """
    size = torch.tensor([camera.width, camera.height], device=opacities.device)
    visible = projected.is_valid & (opacities >= min_alpha) & (opacities > 0)
    if min_alpha > 0:
        r2 = 2 * torch.log(opacities.clamp_min(min_alpha) / min_alpha)
        reach = (r2[:, None] * projected.cov2d[:, [0, 2]].clamp_min(0)).sqrt() + BOX_MARGIN_PX
    else:
        reach = torch.full_like(projected.means2d, float(size.sum())) + projected.means2d.abs()
    means2d = torch.where(visible[:, None], projected.means2d, 0)
    # Clamped before the cast: a far-off Gaussian must not overflow an integer.
    first = (means2d - reach - 0.5).ceil().maximum(torch.zeros_like(means2d)).minimum(size.to(means2d))
    last = (means2d + reach - 0.5).floor().minimum(size - 1).maximum(torch.full_like(means2d, -1))
    empty = ~visible | (first > last).any(-1)
    boxes = torch.stack([first[:, 0], last[:, 0], first[:, 1], last[:, 1]], -1).long()
    return torch.where(empty[:, None], boxes.new_tensor([0, -1, 0, -1]), boxes)
