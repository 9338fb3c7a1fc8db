"""The embedded pair's last word: neighbouring frames of a path are brought to agree.

`ReferenceDecoder` makes each target view by itself, so that its errors are its own: between neighbours they flicker.
Here every frame sees the frames before and after it through its inverse depth, and a small network mixes the three
pixel by pixel. What two frames got right agrees and stays, what only one imagined is outvoted, and what errors are left
change less from frame to frame. A plain mean would do that, too, but costs the detail of three samplings that never
quite meet; the network is trained to keep it (`training.agreement`).

A pixel q of inverse depth w lands in a neighbour at A q + w b, whose depth there is compared with what was expected:

    alike = exp(-((w' / w_there - 1) / SAME_DEPTH)^2 - (m / REACH)^2)      0 outside, and where there is no neighbour

with m the pixels that its place moves if w is wrong by SAME_DEPTH. On the path of a moving camera that is little; views
far apart are no neighbours, and stay as they are.

Shapes: V target views in the order of the path, H W pixels; the 2 are the view before and the view after.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from sphinx_nvs.geometry.cameras import Cameras
from sphinx_nvs.models.embedded.decoder_inputs import exactly
from sphinx_nvs.models.embedded.reference_decoder import BLOCK, Pyramid
from sphinx_nvs.models.planesweep.splatting import homography, pixel_grid, place_per_inverse_depth

SAME_DEPTH = 0.1
"""Relative difference at which two depths are hardly of one surface any more."""

REACH = 4.0
"""Pixels that a place may move, if depth is as wrong as that, before what is seen there is hardly believed."""

TRUSTED = 0.5
"""Alpha times confidence from which the render's own depth is taken, which is finer than the search's."""

CALM, SAME_COLOUR = 1.0, 0.05
"""Added to what the network thinks of a neighbour, against the frame itself, and the difference of colours, over 5x5
pixels, at which that is hardly added any more: what flickers a little is calmed, what does not fit is no ghost."""

WIDTH, NEIGHBOUR_CHANNELS = 48, 32


@dataclass(frozen=True, kw_only=True, eq=False)
class Neighbours:
    """Where the pixels of every view lie in the views before and after it.

    Args:
        index: which views those are; the view itself where there is none.
        exists: whether there is one.
        A: matrices of the homographies, see `planesweep.splatting.homography`.
        b: their translations.
    """

    index: Int64[Tensor, "V 2"]
    exists: Bool[Tensor, "V 2"]
    A: Float[Tensor, "V 2 3 3"]
    b: Float[Tensor, "V 2 3"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Path:
    """Frames along a path, and what is known about them.

    Args:
        frames: decoded, [0, 1].
        rendered: the renders, [0, 1].
        signals: their alpha, confidence and disagreement, [0, 1].
        inverse_depth: inverse depth of what the frames show, above 0; see `depth_of_path`.
        neighbours: which views come before and after each.
    """

    frames: Float[Tensor, "V 3 H W"]
    rendered: Float[Tensor, "V 3 H W"]
    signals: Float[Tensor, "V 3 H W"]
    inverse_depth: Float[Tensor, "V H W"]
    neighbours: Neighbours


def neighbours_of(cameras: Cameras, device: torch.device | str = "cpu") -> Neighbours:
    """The neighbours of every view of a path, in the order of its cameras; on `device`."""
    count = len(cameras)
    index = torch.arange(count)[:, None] + torch.tensor([-1, 1])
    exists = (index >= 0) & (index < count)
    index = torch.where(exists, index, torch.arange(count)[:, None])
    moves = [homography(cameras.K[v], cameras.c2w[v], cameras.K[index[v]], cameras.c2w[index[v]]) for v in range(count)]
    A, b = (torch.stack(parts).float().to(device) for parts in zip(*moves, strict=True))
    return Neighbours(
        index=index.to(device),
        exists=exists.to(device),
        A=A,
        b=b,
    )


def depth_of_path(
    rendered: Float[Tensor, "V H W"], found: Float[Tensor, "V 1 h w"], signals: Float[Tensor, "V 3 H W"]
) -> Float[Tensor, "V H W"]:
    """Inverse depth of decoded views: the render's where that is trusted, elsewhere what the search found."""
    fine = F.interpolate(found, size=rendered.shape[-2:], mode="bilinear", align_corners=False)[:, 0]
    return torch.where(signals[:, 0] * signals[:, 1] > TRUSTED, rendered, fine)


def seen_beside(path: Path, view: int) -> tuple[Float[Tensor, "2 3 H W"], Float[Tensor, "2 1 H W"]]:
    """The frames before and after `view`, seen from it, and how much alike the surfaces are there, [0, 1]."""
    beside, (height, width) = path.neighbours, path.frames.shape[-2:]
    others = beside.index[view]
    inverse = path.inverse_depth[view].flatten()
    with exactly(inverse.device):
        at = beside.A[view] @ pixel_grid(inverse, height, width) + beside.b[view][..., None] * inverse
    depth = at[:, 2].clamp_min(1e-6)
    size = at.new_tensor([width, height])[:, None]
    grid = (2 * at[:, :2] / depth[:, None] / size - 1).clamp(-3, 3)
    place, b = (grid + 1) / 2 * size, beside.b[view][..., None]
    # How far, in pixels, a depth wrong by `SAME_DEPTH` would move the place: where that is much, similar depths prove
    # little.
    moved = SAME_DEPTH * inverse * place_per_inverse_depth(place, depth[:, None], b)
    grid = grid.transpose(1, 2).view(2, height, width, 2)
    seen = F.grid_sample(path.frames[others], grid, mode="bicubic", padding_mode="border", align_corners=False)
    there = F.grid_sample(path.inverse_depth[others][:, None], grid, padding_mode="border", align_corners=False)
    expected = (inverse / depth).view(2, 1, height, width)
    # Depths are compared as ratios, as parallax is: the same surface seen from the neighbour has `expected`.
    off = (expected / there.clamp_min(1e-9) - 1) / SAME_DEPTH
    far = (moved / REACH).view(2, 1, height, width)
    inside = (grid.abs() < 1).all(-1)[:, None] & (at[:, 2] > 0).view(2, 1, height, width)
    return seen.clamp(0, 1), torch.exp(-off.square() - far.square()) * inside * beside.exists[view].view(2, 1, 1, 1)


class Agreement(nn.Module):
    """See the module; works on blocks of `BLOCK` pixels a side, at any size.

    The correction that is added counts as much as neighbours do: it gives back what mixing costs, and a frame without
    any neighbour stays as it is.
    """

    def __init__(self) -> None:
        super().__init__()
        self.of_neighbour = nn.Conv2d(4 * BLOCK**2, NEIGHBOUR_CHANNELS, 3, padding=1)
        self.of_frame = nn.Conv2d(9 * BLOCK**2 + NEIGHBOUR_CHANNELS, WIDTH, 3, padding=1)
        self.reason = Pyramid(WIDTH, WIDTH)
        self.own = nn.Conv2d(WIDTH, 4 * BLOCK**2, 3, padding=1)
        self.each = nn.Conv2d(WIDTH + NEIGHBOUR_CHANNELS, BLOCK**2, 3, padding=1)
        with torch.no_grad():
            # To begin with, nearly the frame itself.
            for layer in (self.own, self.each):
                layer.weight.mul_(0.1)
            bias = torch.zeros(4 * BLOCK**2)
            bias[: BLOCK**2] = 3.0
            self.own.bias = nn.Parameter(bias)

    def forward(self, path: Path, view: int) -> Float[Tensor, "3 H W"]:
        """The frame of `view`, not clamped."""
        seen, alike = seen_beside(path, view)
        frame, rendered = path.frames[view], path.rendered[view]
        parts = F.pixel_unshuffle(torch.cat([2 * (seen - frame), alike], 1), BLOCK)
        features = F.silu(self.of_neighbour(parts))
        known = torch.cat([frame - 0.5, 2 * (rendered - frame), path.signals[view]])[None]
        beside = features.sum(0, keepdim=True)
        reasoned = self.reason(self.of_frame(torch.cat([F.pixel_unshuffle(known, BLOCK), beside], 1)))
        own, correction = F.pixel_shuffle(self.own(F.silu(reasoned)).float(), BLOCK).split([1, 3], 1)
        each = self.each(F.silu(torch.cat([reasoned.expand(2, -1, -1, -1), features], 1)))
        # Evidence times similarity of the surfaces, so that views of other surfaces do not count.
        scores = F.pixel_shuffle(each.float(), BLOCK) + alike.clamp_min(1e-12).log()
        apart = F.avg_pool2d((seen - frame).abs().mean(1, keepdim=True), 5, 1, 2, count_include_pad=False)
        # Where frames agree already, neighbours get more weight: averaging then removes noise and cannot blend two
        # pictures.
        scores = scores + CALM * torch.exp(-((apart / SAME_COLOUR) ** 2))
        mix = torch.cat([own, scores]).softmax(0)
        return (mix * torch.cat([frame[None], seen])).sum(0) + (1 - mix[0]) * correction[0] / 4
