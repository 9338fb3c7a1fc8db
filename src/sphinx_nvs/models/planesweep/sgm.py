"""Semi-global aggregation of a cost volume, and its minimum with sub-plane precision.

Along each of eight directions r (Hirschmüller 2008, "Stereo processing by semi-global matching and mutual
information", equation 13), with m(p - r) the least cost of the pixel before,

    L(p, d) = C(p, d) + min(L(p-r, d), L(p-r, d-1) + P1, L(p-r, d+1) + P1, m(p-r) + P2) - m(p-r),

where P2 falls with the grey-level step from p - r to p. A path restarts at the image border.

Shapes: D planes, H W pixels; 2 R directions in one scan, L steps of a scan, N pixels processed in parallel.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

FAR_PLANES = 2  # another minimum counts as ambiguity if it is further away than this
EDGE_GAIN, MAX_EDGE = 12.0, 6.0


def aggregate(
    cost: Float[Tensor, "D H W"], grey: Float[Tensor, "H W"], small_step: float, big_step: float
) -> Float[Tensor, "D H W"]:
    """Mean of the path costs over eight directions.

    Args:
        cost: matching cost.
        grey: grey values of the view, [0, 1]; depth may jump where they do.
        small_step: P1, the penalty of a step by one plane.
        big_step: P2, the penalty of any larger step on a flat image.
    """
    # Contiguous along the direction of the scan: each step of the loop then reads one block of memory.
    vertical = _scan(cost.transpose(0, 1).contiguous(), grey, (0, 1, -1), small_step, big_step)
    horizontal = _scan(cost.permute(2, 0, 1).contiguous(), grey.T.contiguous(), (0,), small_step, big_step)
    return (vertical.transpose(0, 1) + horizontal.permute(1, 2, 0)) / 8


def _scan(
    cost: Float[Tensor, "L D N"],
    grey: Float[Tensor, "L N"],
    shifts: tuple[int, ...],
    small_step: float,
    big_step: float,
) -> Float[Tensor, "L D N"]:
    """Sum of path costs over lines scanned downwards and upwards, straight or slanted by one pixel."""
    # The loop runs over L only; directions and the N pixels of a line are batched.
    length, num_planes, width = cost.shape
    down_penalty = _penalties(grey, shifts, big_step)
    up_penalty = _penalties(grey.flip(0), shifts, big_step)
    total = torch.zeros_like(cost)
    paths = cost.new_zeros(2, len(shifts), num_planes, width)
    for step in range(length):
        back = length - 1 - step
        here = torch.stack([cost[step], cost[back]])[:, None]
        penalty = torch.stack([down_penalty[step], up_penalty[step]])[:, :, None]
        paths = here + _cheapest(_shifted(paths, shifts), penalty, small_step)
        # One loop serves both directions: path 0 goes down from the top while path 1 comes up from the bottom.
        total[step] += paths[0].sum(0)
        total[back] += paths[1].sum(0)
    return total


def _shifted(paths: Float[Tensor, "2 R D N"], shifts: tuple[int, ...]) -> Float[Tensor, "2 R D N"]:
    """The path costs at the pixel each direction comes from; 0 beyond the border."""
    if shifts == (0,):
        return paths
    width, padded = paths.shape[-1], F.pad(paths, (1, 1))
    moved = [padded[:, k, :, 1 - shift : 1 - shift + width] for k, shift in enumerate(shifts)]
    return torch.stack(moved, 1)


def _penalties(grey: Float[Tensor, "L N"], shifts: tuple[int, ...], big_step: float) -> Float[Tensor, "L R N"]:
    """P2 of the step onto each pixel from its predecessor; smaller across grey-level edges."""
    width = grey.shape[1]
    before = F.pad(torch.cat([grey[:1], grey[:-1]])[None], (1, 1), mode="replicate")[0]
    origin = torch.stack([before[:, 1 - shift : 1 - shift + width] for shift in shifts], 1)
    return big_step / (1 + EDGE_GAIN * (grey[:, None] - origin).abs()).clamp_max(MAX_EDGE)


def _cheapest(
    before: Float[Tensor, "2 R D N"], penalty: Float[Tensor, "2 R 1 N"], small_step: float
) -> Float[Tensor, "2 R D N"]:
    """The least cost of reaching each plane from the pixel before, minus that pixel's own least cost."""
    least = before.amin(2, keepdim=True)  # subtracted at the end, so that path costs stay bounded
    best = torch.minimum(before, least + penalty)
    stepped = before + small_step
    torch.minimum(best[:, :, 1:], stepped[:, :, :-1], out=best[:, :, 1:])
    torch.minimum(best[:, :, :-1], stepped[:, :, 1:], out=best[:, :, :-1])
    return best - least


def best_inverse_depth(
    cost: Float[Tensor, "D H W"], planes: Float[Tensor, " D"]
) -> tuple[Float[Tensor, "H W"], Float[Tensor, "H W"]]:
    """The best inverse depth, refined by a parabola through three costs, and its distinctness in [0, 1].

    Args:
        cost: aggregated cost; D >= 3.
        planes: evenly spaced inverse depths.
    """
    least, index = cost.min(0)
    # A parabola needs a neighbour on each side; at the first and last plane there is none, so no offset.
    centre = index.clamp(1, len(planes) - 2)
    before, here, after = (cost.gather(0, (centre + k)[None])[0] for k in (-1, 0, 1))
    offset = ((before - after) / (2 * (before - 2 * here + after)).clamp_min(1e-6)).clamp(-0.5, 0.5)
    offset = torch.where(index == centre, offset, 0)
    distance = (torch.arange(len(planes), device=cost.device).view(-1, 1, 1) - index).abs()
    rival = torch.where(distance > FAR_PLANES, cost, torch.inf).amin(0)
    step = planes[1] - planes[0]
    # Without any plane far enough away the rival is infinite: infinity over infinity stands for "no rival".
    distinctness = ((rival - least) / (rival + 0.05)).nan_to_num(1.0).clamp(0, 1)
    return planes[0] + (index + offset) * step, distinctness
