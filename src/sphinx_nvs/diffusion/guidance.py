"""Classifier-free guidance with a scale for each view.

    D = D_u + w_v (D_c - D_u)

Views that coincide with a known one need no guidance, so the multi-view rules lower w_v there; the temporal rule
also raises w_v with the number of frames to the nearest known one.
References: Classifier-Free Diffusion Guidance (Ho and Salimans, 2022); Stable Virtual Camera (SEVA; Zhou et
al., 2025), whose guiders 0, 1 and 2 are `constant_scale`, `multiview_scale` and `temporal_scale`.
Shapes: V views, C latent channels, h w cells.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

MAX_ROTATION_DEG = 10.0
MAX_DISTANCE = 1e-5


def guide(
    unconditional: Float[Tensor, "V C h w"], conditional: Float[Tensor, "V C h w"], scale: Float[Tensor, "V"]
) -> Float[Tensor, "V C h w"]:
    """Interpolates from the unconditional to the conditional estimate by `scale`; 1 is no guidance."""
    return unconditional + scale[:, None, None, None] * (conditional - unconditional)


def constant_scale(num_views: int, scale: float) -> Float[Tensor, "V"]:
    """The same scale for every view."""
    return torch.full((num_views,), scale)


def multiview_scale(
    c2w: Float[Tensor, "V 4 4"],
    K: Float[Tensor, "V 3 3"],
    is_known: Bool[Tensor, "V"],
    *,
    scale: float,
    scale_min: float,
) -> Float[Tensor, "V"]:
    """`scale_min` for views that coincide with a known view (known views do), `scale` for all others.

    Args:
        c2w: camera-to-world poses, in the units the network receives (SEVA's normalised scene).
        K: intrinsics in any unit; a view coincides only if they are equal.
        is_known: which views condition the network.
        scale: guidance of new views.
        scale_min: guidance of known ones.
    """
    lowered = torch.full((len(c2w),), scale_min)
    return torch.where(coincides(c2w, K, is_known).to(lowered.device), lowered, torch.full_like(lowered, scale))


def temporal_scale(
    c2w: Float[Tensor, "V 4 4"],
    K: Float[Tensor, "V 3 3"],
    is_known: Bool[Tensor, "V"],
    *,
    scale: float,
    scale_min: float,
) -> Float[Tensor, "V"]:
    """As `multiview_scale`, but rising linearly to `scale` with the frames to the nearest known view.

    The view farthest along the path gets `scale`; with no known view, or only known ones, all get the same.
    """
    if not is_known.any():
        return constant_scale(len(c2w), scale)
    index = torch.arange(len(c2w), device=is_known.device)
    distance = (index[:, None] - index[is_known]).abs().amin(dim=1).float().cpu()
    ramp = scale_min + (scale - scale_min) * distance / distance.max().clamp_min(1)
    return torch.where(coincides(c2w, K, is_known).cpu(), torch.full_like(ramp, scale_min), ramp)


def coincides(c2w: Float[Tensor, "V 4 4"], K: Float[Tensor, "V 3 3"], is_known: Bool[Tensor, "V"]) -> Bool[Tensor, "V"]:
    """Whether a view coincides with a known one: equal K, and a pose within 1e-5 and 10 degrees."""
    turned = rotations_deg(c2w, c2w[is_known]) < MAX_ROTATION_DEG
    moved = (c2w[:, None, :3, 3] - c2w[is_known][None, :, :3, 3]).norm(dim=-1) < MAX_DISTANCE
    same_lens = (K[:, None] == K[is_known][None]).flatten(2).all(dim=-1)
    return (turned & moved & same_lens).any(dim=1)


def rotations_deg(a: Float[Tensor, "V 4 4"], b: Float[Tensor, "U 4 4"]) -> Float[Tensor, "V U"]:
    """Angle in degrees, 0 to 180, of the rotation from each pose of `a` to each of `b`."""
    trace = torch.einsum("vij,uij->vu", a[:, :3, :3], b[:, :3, :3])
    # Clamped: rounding can push the cosine of a rotation by 0 degrees past 1, where acos is NaN.
    return ((trace - 1) / 2).clamp(-1, 1).acos().rad2deg()
