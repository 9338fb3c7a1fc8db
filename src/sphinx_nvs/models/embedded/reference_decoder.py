"""The embedded pair's second decoder: what refinement imagined, made of what the photos show.

A small latent diffusion knows roughly what belongs into a hole, but not its detail; the context photos hold the detail,
but not the place. So a target view is decoded in three stages beside its render and the photos:

1. *Survey*, once for all views. Every photo is searched for among the others, by the search of the next stage with the
   photo itself as the picture: so each gets a surface, also where no other photo sees it, that the network has learned
   and not only matched. By these surfaces, and the regressor's where it is sure, the targets are drawn anew.
2. *Search*. Every pixel is tried at D inverse depths: the photos, warped there, are compared with the refined picture
   (plane-sweep stereo, with the picture in the place of the missing photo; Yao et al. 2018, MVSNet) and with the view
   drawn anew. A small network turns the costs into one inverse depth for each pixel.
3. *Fuse*. The photos are warped there at full size, weighed view by view, and mixed pixel by pixel with render, refined
   picture and the view drawn anew; a correction is added. Of each photo is known how far its place would move if the
   depth were wrong by one plane: a near photo shows the right detail at a wrong depth, and the right reflection.

Search works on maps whose short side is about `SEARCH_SIDE`, whatever the frame's size. Each target view is decoded by
itself, so that its frame does not depend on what is decoded beside it. The search is the larger part of the work at 128
pixels; what it found for one picture may be fused with another one of the same view, see `Found`.

Shapes: V target views, C context photos, H W pixels, h w places of the search, D planes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from sphinx_nvs.geometry.cameras import Cameras
from sphinx_nvs.models.embedded.autoencoder import ResidualBlock
from sphinx_nvs.models.embedded.decoder_inputs import NUM_PLANES, DecoderInputs, Found, exactly, places, redraw
from sphinx_nvs.models.planesweep.splatting import pixel_grid, place_per_inverse_depth

SEARCH_SIDE = 48
FEATURES, GROUPS = 8, 4
COSTS, COST_CHANNELS = 17, 4
VIEW_CHANNELS = 16
BLOCK = 4
"""The fusing network works on blocks of this many pixels a side."""

NEARNESS = 4.5
"""A photo's weight falls with this power of 1 + pixels that a plane moves it: what the training scenes, where little
shines, do not teach. A near photo shows the right reflection, and the right exposure."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Decoded:
    """A decoded view and how it came about.

    Args:
        frames: not clamped.
        plane_logits: how likely each plane is.
        inverse_depth: what the search decided on.
        warped: the photos seen through that, weighed.
        in_view: 1 where at least one photo shows that place.
    """

    frames: Float[Tensor, "V 3 H W"]
    plane_logits: Float[Tensor, "V D h w"]
    inverse_depth: Float[Tensor, "V h w"]
    warped: Float[Tensor, "V 3 H W"]
    in_view: Float[Tensor, "V H W"]


def search_stride(height: int, width: int) -> int:
    """Pixels a place of the search, a power of two up to 8: it divides every side that the denoiser takes."""
    stride = 1
    while stride < 8 and min(height, width) >= 2 * stride * SEARCH_SIDE:
        stride *= 2
    return stride


class Pyramid(nn.Module):
    """Residual blocks at several scales, each half as fine as the one before, there and back."""

    def __init__(self, *widths: int) -> None:
        super().__init__()
        steps = list(pairwise(widths))
        self.enter = nn.ModuleList(ResidualBlock(width) for width in widths)
        self.down = nn.ModuleList(nn.Conv2d(fine, coarse, 2, stride=2) for fine, coarse in steps)
        self.up = nn.ModuleList(nn.Conv2d(coarse, 4 * fine, 1) for fine, coarse in steps)
        self.leave = nn.ModuleList(ResidualBlock(width) for width in widths)

    def forward(self, x: Float[Tensor, "B F h w"]) -> Float[Tensor, "B F h w"]:
        """Maps of any sides to maps of the same width."""
        skips = []
        for level, block in enumerate(self.enter):
            x = block(x)
            if level < len(self.down):
                skips.append(x)
                # Odd sides: the last row and column go down twice as wide, and are cut off again on the way back.
                x = self.down[level](F.pad(x, (0, x.shape[-1] % 2, 0, x.shape[-2] % 2), mode="replicate"))
        for level in reversed(range(len(self.leave))):
            x = self.leave[level](x)
            if level > 0:
                skip = skips[level - 1]
                x = skip + F.pixel_shuffle(self.up[level - 1](x), 2)[..., : skip.shape[-2], : skip.shape[-1]]
        return x


def _features(channels: int, out: int) -> nn.Sequential:
    """Three small convolutions."""
    return nn.Sequential(
        nn.Conv2d(channels, 24, 3, padding=1),
        nn.SiLU(),
        nn.Conv2d(24, 24, 3, padding=1),
        nn.SiLU(),
        nn.Conv2d(24, out, 3, padding=1),
    )


class ReferenceDecoder(nn.Module):
    """See the module; trained by `training.decoder`."""

    def __init__(self) -> None:
        super().__init__()
        self.of_photo = _features(3, FEATURES)
        self.of_target = _features(9, FEATURES + 16)
        self.cost_in = nn.Linear(COSTS, 16)
        self.cost_out = nn.Linear(16, COST_CHANNELS)
        self.gather = nn.Conv2d(COST_CHANNELS * NUM_PLANES + FEATURES + 16, 96, 4, stride=2, padding=1)
        self.reason = Pyramid(96, 128, 128)
        self.decide = nn.Conv2d(96, 4 * NUM_PLANES, 1)
        self.view_in = nn.Conv2d(7 * BLOCK**2 + 2, 48, 3, padding=1)
        self.view_out = nn.Conv2d(48, BLOCK**2 + VIEW_CHANNELS, 3, padding=1)
        self.fuse_in = nn.Conv2d(18 * BLOCK**2 + 1 + VIEW_CHANNELS, 64, 3, padding=1)
        self.fuse = Pyramid(64, 96, 96)
        self.fuse_out = nn.Conv2d(64, 7 * BLOCK**2, 3, padding=1)
        with torch.no_grad():
            # To begin with, mostly the render.
            self.fuse_out.weight.mul_(0.1)
            bias = torch.zeros(7 * BLOCK**2)
            bias[: BLOCK**2] = 2.0
            self.fuse_out.bias = nn.Parameter(bias)

    def forward(self, picture: Float[Tensor, "V 3 H W"], inputs: DecoderInputs) -> Decoded:
        """Decodes the target views of `inputs` from their refined pictures."""
        logits = self.search(picture, inputs)
        # Detached: depth is learnt from its own loss. Through the warp, gradients would pull it to whatever colour lies
        # nearby.
        found = decided(logits.detach(), inputs.planes)
        frames, warped, in_view = self._fused(picture, inputs, found)
        return Decoded(
            frames=frames,
            plane_logits=logits,
            inverse_depth=found.inverse_depth[:, 0],
            warped=warped,
            in_view=in_view[:, 0],
        )

    def survey(self, inputs: DecoderInputs) -> Found:
        """The first stage alone: the photos' surfaces; those of a single photo are anywhere, and not sure at all."""
        count, (height, width) = len(inputs.photos), inputs.photos.shape[-2:]
        stride = search_stride(height, width)
        if count == 1:
            # With one photo there is nothing to match: the farthest plane, with a sureness of 0.
            nowhere = inputs.planes[:1].view(1, 1, 1, 1).expand(1, 1, height // stride, width // stride)
            return Found(inverse_depth=nowhere, sureness=torch.zeros_like(nowhere))
        return decided(torch.cat([self.search_photo(inputs, photo) for photo in range(count)]), inputs.planes)

    def search_photo(self, inputs: DecoderInputs, photo: int) -> Float[Tensor, "1 D h w"]:
        """`search` for one of the photos beside the others."""
        return self.search(inputs.photos[photo : photo + 1], inputs.of_photo(photo))

    def surveyed(self, inputs: DecoderInputs, context: Cameras, targets: Cameras) -> DecoderInputs:
        """The inputs with its targets redrawn."""
        return replace(inputs, redrawn=redraw(inputs, context, targets, self.survey(inputs)))

    def find(self, picture: Float[Tensor, "V 3 H W"], inputs: DecoderInputs) -> Found:
        """The second stage alone."""
        return decided(self.search(picture, inputs), inputs.planes)

    def compose(
        self, picture: Float[Tensor, "V 3 H W"], inputs: DecoderInputs, found: Found
    ) -> Float[Tensor, "V 3 H W"]:
        """The third stage alone: frames, not clamped."""
        return self._fused(picture, inputs, found)[0]

    def _fused(
        self, picture: Float[Tensor, "V 3 H W"], inputs: DecoderInputs, found: Found
    ) -> tuple[Float[Tensor, "V 3 H W"], Float[Tensor, "V 3 H W"], Float[Tensor, "V 1 H W"]]:
        """Frames; the photos seen through the depth found; where any shows the place."""
        sureness = found.sureness
        warped, in_view, features = self._warped(picture, inputs, found.inverse_depth, sureness)
        rendered, redrawn = inputs.rendered, inputs.drawn
        known = [inputs.signals, 2 * (redrawn.rgb - rendered), redrawn.signals]
        # Differences from the render, doubled: they are small, and the networks see them at the scale of the other
        # channels.
        beside = torch.cat([rendered - 0.5, 2 * (picture - rendered), 2 * (warped - rendered), *known], 1)
        sureness = resized(sureness, _size(features))
        fused = self.fuse(self.fuse_in(torch.cat([F.pixel_unshuffle(beside, BLOCK), sureness, features], 1)))
        mix, correction = F.pixel_shuffle(self.fuse_out(fused).float(), BLOCK).split([4, 3], 1)
        sources = torch.stack([rendered, picture, warped, redrawn.rgb], 1)
        # A mixture of four pictures plus a small correction: where a source is right, its detail is kept exactly.
        frames = (mix.softmax(1)[:, :, None] * sources).sum(1) + correction / 4
        return frames, warped, in_view

    def search(self, picture: Float[Tensor, "V 3 H W"], inputs: DecoderInputs) -> Float[Tensor, "V D h w"]:
        """How likely the surface lies on each plane: logits."""
        height, width = picture.shape[-2:]
        stride = search_stride(height, width)
        h, w = height // stride, width // stride
        drawn = inputs.drawn
        photos, seen, rendered, signals = (
            F.avg_pool2d(t, stride) for t in (inputs.photos, picture, drawn.rgb, drawn.signals)
        )
        target = self.of_target(torch.cat([seen - 0.5, rendered - 0.5, signals], 1)).float()
        features = torch.cat([self.of_photo(photos - 0.5).float(), photos], 1)
        costs = self._costs(features, target[:, :FEATURES], seen, rendered, signals, inputs, stride)
        # As matrices of costs by places: turned round, as a linear layer wants them, this takes half as long again.
        # In float32 in training, too: the second one's gradient in bfloat16 killed the process on a CPU with AMX (a
        # division by zero in PyTorch 2.13's matrix product, from so many places to so few costs).
        with exactly(costs.device):
            hidden = F.silu(torch.addmm(self.cost_in.bias[:, None], self.cost_in.weight, costs.view(COSTS, -1)))
            costs = torch.addmm(self.cost_out.bias[:, None], self.cost_out.weight, hidden)
        costs = costs.view(COST_CHANNELS, len(picture), NUM_PLANES, h, w).transpose(0, 1)
        stacked = torch.cat([costs.flatten(1, 2), target], 1)
        reasoned = F.pixel_shuffle(self.decide(self.reason(self.gather(stacked))).float(), 2)
        return reasoned + costs[:, 0]

    def _costs(
        self,
        features: Float[Tensor, "C F h w"],
        target: Float[Tensor, "V G h w"],
        seen: Float[Tensor, "V 3 h w"],
        rendered: Float[Tensor, "V 3 h w"],
        signals: Float[Tensor, "V 3 h w"],
        inputs: DecoderInputs,
        stride: int,
    ) -> Float[Tensor, "K V D h w"]:
        """What speaks for and against each plane, over all photos that show it, in any order of photos."""
        (views, _, h, w), count, planes = seen.shape, len(features), inputs.planes
        grid, inside = places(inputs, planes.view(1, 1, -1, 1), h, w, stride)
        sampled = F.grid_sample(features, grid.flatten(1, 3).unsqueeze(2), padding_mode="border", align_corners=False)
        sampled = sampled.view(count, -1, views, NUM_PLANES, h, w)
        inside = inside.view(count, 1, views, NUM_PLANES, h, w)

        def beside(maps: Tensor) -> Tensor:
            return maps.transpose(0, 1)[None, :, :, None]

        products = sampled[:, :FEATURES] * beside(target)
        agreement = products.view(count, GROUPS, FEATURES // GROUPS, *products.shape[2:]).sum(2)
        colours = sampled[:, FEATURES:]
        differences = [(colours - beside(other)).abs().mean(1, keepdim=True) for other in (seen, rendered)]
        each = torch.cat([agreement, *differences], 1)
        number = inside.sum(0)
        # 1e4 takes photos that do not show the place out of maxima and minima; every real score is far smaller.
        shown, divisor, out = (number > 0).float(), number.clamp_min(1), 1e4 * (1 - inside)
        # Means, extremes and spreads over photos: the number and the order of photos must not matter.
        mean = (each * inside).sum(0) / divisor
        best = (agreement - out).amax(0) * shown
        least = torch.where(number > 0, (each[:, GROUPS:] + out).amin(0), torch.ones_like(number))
        centre = (colours * inside).sum(0) / divisor
        spread = (((colours - centre) ** 2 * inside).sum(0) / divisor).mean(0, keepdim=True).add(1e-6).sqrt()
        own = F.avg_pool2d(inputs.drawn.inverse_depth[:, None], stride)
        distance = (own - planes.view(1, -1, 1, 1)).abs() / (1.5 * (planes[1] - planes[0]))
        # A tent around the render's own depth, one and a half planes wide: the search may stay with it, weighed by
        # confidence.
        near = (1 - distance).clamp_min(0)[None]
        return torch.cat([mean, best, least, number / count, shown, spread, near, near * signals[:, 1:2][None]])

    def _warped(
        self,
        picture: Float[Tensor, "V 3 H W"],
        inputs: DecoderInputs,
        inverse_depth: Float[Tensor, "V 1 h w"],
        sureness: Float[Tensor, "V 1 h w"],
    ) -> tuple[Float[Tensor, "V 3 H W"], Float[Tensor, "V 1 H W"], Float[Tensor, "V F hb wb"]]:
        """The photos seen through the depth found, weighed; where any shows the place; features of the weighing."""
        (views, _, height, width), count = picture.shape, len(inputs.photos)
        fine = F.interpolate(inverse_depth, size=(height, width), mode="bilinear", align_corners=False)
        grid, inside = places(inputs, fine.view(1, views, 1, -1), height, width, 1)
        grid = grid.reshape(count, views * height, width, 2)
        # Bicubic: bilinear sampling would blur every warped photo.
        photos = F.grid_sample(inputs.photos, grid, mode="bicubic", padding_mode="border", align_corners=False)
        photos = photos.clamp(0, 1).view(count, 3, views, height, width).permute(2, 0, 1, 3, 4)
        inside = inside.view(count, views, 1, height, width).transpose(0, 1)
        parts = torch.cat([photos - inputs.rendered[:, None], photos - picture[:, None], inside], 2).flatten(0, 1)
        blocks = F.pixel_unshuffle(parts, BLOCK)
        sure = resized(sureness, _size(blocks)).repeat_interleave(count, 0)
        movement = block_movement(inputs, resized(inverse_depth, _size(blocks)))
        judged = self.view_out(F.silu(self.view_in(torch.cat([blocks, sure, movement], 1)))).float()
        scores, features = judged.split([BLOCK**2, VIEW_CHANNELS], 1)
        scores = F.pixel_shuffle(scores - NEARNESS * movement, BLOCK).view(views, count, 1, height, width)
        weights = (scores - 1e4 * (1 - inside)).softmax(1)
        in_view = inside.amax(1)
        warped = torch.where(in_view > 0, (weights * photos).sum(1), inputs.rendered)
        of_block = F.avg_pool2d(weights.flatten(0, 1), BLOCK).view(views, count, 1, *features.shape[-2:])
        return warped, in_view, (features.view(views, count, *features.shape[1:]) * of_block).sum(1)


def decided(logits: Float[Tensor, "V D h w"], planes: Float[Tensor, "D"]) -> Found:
    """What logits say."""
    probability = logits.softmax(1)
    best = probability.argmax(1, keepdim=True)
    index = torch.arange(len(planes), device=planes.device).view(1, -1, 1, 1)
    # Around the likeliest plane only: the mean of two distant peaks would be a depth where there is nothing.
    near = probability * ((index - best).abs() <= 2)
    sureness = near.sum(1, keepdim=True)
    inverse_depth = (near * planes.view(1, -1, 1, 1)).sum(1, keepdim=True) / sureness.clamp_min(1e-6)
    return Found(inverse_depth=inverse_depth, sureness=sureness)


def resized(maps: Float[Tensor, "V 1 h w"], size: tuple[int, int]) -> Tensor:
    """Maps of another size, bilinearly."""
    return F.interpolate(maps, size=size, mode="bilinear", align_corners=False)


def _size(maps: Tensor) -> tuple[int, int]:
    return maps.shape[-2], maps.shape[-1]


def block_movement(inputs: DecoderInputs, inverse_depth: Float[Tensor, "V 1 hb wb"]) -> Float[Tensor, "VC 1 hb wb"]:
    """How far each photo's place moves from one plane to the next, at blocks' centres: log(1 + pixels)."""
    views, _, height, width = inverse_depth.shape
    through = pixel_grid(inverse_depth, height, width) * inverse_depth.new_tensor([[BLOCK], [BLOCK], [1]])
    with exactly(through.device):
        at = inputs.A @ through + inputs.b[..., None] * inverse_depth.view(views, 1, 1, -1)
    depth, b = at[:, :, 2:].clamp_min(0.05), inputs.b[..., None]
    size = at.new_tensor([inputs.photos.shape[-1], inputs.photos.shape[-2]]).view(2, 1)
    # Bounded to a frame's size around the photo: behind or beside the camera, places run away, and so would their
    # movement.
    place = torch.maximum(torch.minimum(at[:, :, :2] / depth, 2 * size), -size)
    moved = (inputs.planes[1] - inputs.planes[0]) * place_per_inverse_depth(place, depth, b)
    return moved.log1p().clamp_max(4).view(-1, 1, height, width)
