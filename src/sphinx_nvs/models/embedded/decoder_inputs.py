"""Inputs of the reference decoder: photos and render, the warps between them, and the views rendered again.

Target views and photos are both compared with other photos: a target with what the regressor rendered, a photo
(`DecoderInputs.of_photo`) with its own colours. Places follow from homographies: a pixel q of inverse depth w lies in
another view at A q + w b.

Shapes: V target views, C context photos, H W pixels, h w places of the search, D planes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from sphinx_nvs.errors import InputError
from sphinx_nvs.geometry.cameras import Cameras
from sphinx_nvs.models.base import Render
from sphinx_nvs.models.planesweep.reconstruction import PlaneSweepReconstruction
from sphinx_nvs.models.planesweep.splatting import homography, pixel_grid
from sphinx_nvs.scene.scene import Scene

NUM_PLANES = 32

TRUSTED = 0.5
"""Confidence from which the regressor's own surface of a photo, which is finer, stands instead of the survey's."""

OUT_OF_REACH = 1e3
"""Times the nearest plane: an inverse depth that supports no plane."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Redrawn:
    """Target views as a plane sweep draws them from the photos' surveyed surfaces.

    Args:
        rgb: [0, 1].
        signals: alpha, confidence and disagreement, [0, 1].
        inverse_depth: above 0.
    """

    rgb: Float[Tensor, "V 3 H W"]
    signals: Float[Tensor, "V 3 H W"]
    inverse_depth: Float[Tensor, "V H W"]

    def surfaces(self, stride: int) -> Found:
        """The surfaces drawn, as a search on places of `stride` pixels gives them; as sure as they are seen."""
        sureness = self.signals[:, 0] * self.signals[:, 1]
        pooled = F.avg_pool2d(torch.stack([self.inverse_depth, sureness], 1), stride)
        return Found(inverse_depth=pooled[:, :1], sureness=pooled[:, 1:])

    def of(self, *views: int) -> Redrawn:
        """The same for some of the target views."""
        return Redrawn(**{name: value[list(views)] for name, value in vars(self).items()})


@dataclass(frozen=True, kw_only=True, eq=False)
class DecoderInputs:
    """Everything that the reference decoder reads besides the latents.

    Args:
        photos: the context views, [0, 1].
        A: matrices of the homographies from targets to photos; see `planesweep.splatting.homography`.
        b: their translations.
        rendered: the render, [0, 1].
        signals: its alpha, confidence and disagreement, [0, 1].
        inverse_depth: inverse depth of the render, above 0.
        planes: inverse depths to try, ascending.
        A_between: matrices of the homographies from photos to photos.
        b_between: their translations.
        photo_inverse_depth: the regressor's, above 0; far beyond the planes where it has none.
        photo_confidence: how sure it is of that, [0, 1].
        redrawn: the targets by the photos' surveyed surfaces, see `redraw`; None stands for the render.
    """

    photos: Float[Tensor, "C 3 H W"]
    A: Float[Tensor, "V C 3 3"]
    b: Float[Tensor, "V C 3"]
    rendered: Float[Tensor, "V 3 H W"]
    signals: Float[Tensor, "V 3 H W"]
    inverse_depth: Float[Tensor, "V H W"]
    planes: Float[Tensor, "D"]
    A_between: Float[Tensor, "C C 3 3"]
    b_between: Float[Tensor, "C C 3"]
    photo_inverse_depth: Float[Tensor, "C H W"]
    photo_confidence: Float[Tensor, "C H W"]
    redrawn: Redrawn | None = None

    def of(self, *views: int) -> DecoderInputs:
        """The same for some of the target views."""
        chosen = list(views)
        return replace(
            self,
            A=self.A[chosen],
            b=self.b[chosen],
            rendered=self.rendered[chosen],
            signals=self.signals[chosen],
            inverse_depth=self.inverse_depth[chosen],
            redrawn=None if self.redrawn is None else self.redrawn.of(*views),
        )

    @property
    def drawn(self) -> Redrawn:
        """What the search starts from: the targets redrawn, or else the render."""
        if self.redrawn is not None:
            return self.redrawn
        return Redrawn(rgb=self.rendered, signals=self.signals, inverse_depth=self.inverse_depth)

    def of_photo(self, photo: int) -> DecoderInputs:
        """The photo as a target beside the others: a render whose colours are right."""
        one, others = [photo], [other for other in range(len(self.photos)) if other != photo]
        confidence = self.photo_confidence[one]
        return DecoderInputs(
            photos=self.photos[others],
            A=self.A_between[one][:, others],
            b=self.b_between[one][:, others],
            rendered=self.photos[one],
            signals=torch.stack([torch.ones_like(confidence), confidence, torch.zeros_like(confidence)], 1),
            inverse_depth=self.photo_inverse_depth[one],
            planes=self.planes,
            A_between=self.A_between[others][:, others],
            b_between=self.b_between[others][:, others],
            photo_inverse_depth=self.photo_inverse_depth[others],
            photo_confidence=self.photo_confidence[others],
        )

    def without_depth(self) -> DecoderInputs:
        """The same without any depth."""
        nothing = OUT_OF_REACH * float(self.planes[-1])
        redrawn = self.redrawn
        if redrawn is not None:
            redrawn = replace(redrawn, inverse_depth=torch.full_like(redrawn.inverse_depth, nothing))
        return replace(
            self,
            redrawn=redrawn,
            inverse_depth=torch.full_like(self.inverse_depth, nothing),
            photo_inverse_depth=torch.full_like(self.photo_inverse_depth, nothing),
            photo_confidence=torch.zeros_like(self.photo_confidence),
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class Found:
    """What a search decided on.

    Args:
        inverse_depth: inverse depth of the likeliest plane, as the mean over two planes each way.
        sureness: how likely those are, [0, 1].
    """

    inverse_depth: Float[Tensor, "V 1 h w"]
    sureness: Float[Tensor, "V 1 h w"]


def decoder_inputs(
    photos: Float[Tensor, "C 3 H W"], context: Cameras, targets: Cameras, render: Render
) -> DecoderInputs:
    """All decoder inputs for these targets."""
    inverse_depth = 1 / render.depth.float().clamp_min(1e-6)
    A, b = _homographies(targets, context, photos.device)
    A_between, b_between = _homographies(context, context, photos.device)
    planes = planes_for(inverse_depth)
    known = _photo_depth(photos, render, OUT_OF_REACH * float(planes[-1]))
    return DecoderInputs(
        photos=photos,
        A=A,
        b=b,
        rendered=render.rgb,
        signals=torch.stack([render.alpha, render.confidence, render.disagreement], 1),
        inverse_depth=inverse_depth,
        planes=planes,
        A_between=A_between,
        b_between=b_between,
        photo_inverse_depth=known[:, 0],
        photo_confidence=known[:, 1],
    )


def _photo_depth(photos: Float[Tensor, "C 3 H W"], render: Render, nothing: float) -> Float[Tensor, "C 2 H W"]:
    """Inverse depth of the photos and how sure that is, as the regressor knows them; `nothing` where it does not."""
    maps = photos.new_zeros(len(photos), 2, 1, 1)
    if render.context_inverse_depth is not None and render.context_confidence is not None:
        maps = torch.stack([render.context_inverse_depth.float(), render.context_confidence.float()], 1)
    maps = F.interpolate(maps, size=photos.shape[-2:], mode="bilinear", align_corners=False)
    return torch.stack([torch.where(maps[:, 0] > 0, maps[:, 0], nothing), maps[:, 1]], 1)


def _homographies(
    targets: Cameras, context: Cameras, device: torch.device
) -> tuple[Float[Tensor, "V C 3 3"], Float[Tensor, "V C 3"]]:
    """The homographies from all targets to all context views."""
    moves = [homography(K, c2w, context.K, context.c2w) for K, c2w in zip(targets.K, targets.c2w, strict=True)]
    A, b = (torch.stack(parts).float().to(device) for parts in zip(*moves, strict=True))
    return A, b


@torch.no_grad()
def redraw(inputs: DecoderInputs, context: Cameras, targets: Cameras, survey: Found) -> Redrawn | None:
    """The targets as the plane sweep's renderer draws them by surveyed surfaces, and by its own where it trusts those.

    None where nothing of them lands in any target.
    """
    inverse_depth, sureness = (
        F.interpolate(maps.float(), size=inputs.photos.shape[-2:], mode="bilinear", align_corners=False)[:, 0]
        for maps in (survey.inverse_depth, survey.sureness)
    )
    own, confidence = inputs.photo_inverse_depth, inputs.photo_confidence
    trusted = confidence > TRUSTED
    reconstruction = PlaneSweepReconstruction(
        Scene(name="surveyed", images=inputs.photos, cameras=context),
        torch.where(trusted, own, inverse_depth).clamp_min(1e-6),
        torch.where(trusted, torch.maximum(confidence, sureness), sureness).clamp(0, 1),
    )
    try:
        with exactly(inputs.photos.device):
            render = reconstruction.render(targets)
    except InputError:
        return None
    signals = torch.stack([render.alpha, render.confidence, render.disagreement], 1)
    return Redrawn(rgb=render.rgb, signals=signals, inverse_depth=1 / render.depth.clamp_min(1e-6))


def exactly(device: torch.device) -> torch.autocast:
    """Single precision in training, too: in bfloat16 a place is up to a pixel beside itself at 128 pixels."""
    return torch.autocast(device.type, enabled=False)


def planes_for(inverse_depth: Float[Tensor, "V H W"]) -> Float[Tensor, "D"]:
    """Evenly spaced inverse depths around those of a render: somewhat further and nearer than nearly all of it."""
    # `torch.quantile` refuses more than 16 million numbers, and a hundred thousand say as much.
    thinned = inverse_depth.flatten()[:: math.ceil(inverse_depth.numel() / 100_000)]
    # Quantiles, not extremes: a single stray splat in front of the camera would spread the planes too thinly.
    low, high = torch.quantile(thinned, thinned.new_tensor([0.02, 0.98])).tolist()
    return torch.linspace(0.6 * low, 1.4 * high, NUM_PLANES, device=inverse_depth.device)


def places(
    inputs: DecoderInputs, inverse_depth: Tensor, height: int, width: int, stride: int
) -> tuple[Float[Tensor, "C V P N 2"], Float[Tensor, "C V P N"]]:
    """Where the targets' pixels, on a grid of every `stride`th, lie in the photos at `inverse_depth`, and if inside.

    `inverse_depth` is (1, 1, P, 1) or (1, V, P, N); places are in [-1, 1] as `grid_sample` wants them.
    """
    through = pixel_grid(inputs.planes, height, width) * inputs.planes.new_tensor([[stride], [stride], [1]])
    A, b = inputs.A.transpose(0, 1), inputs.b.transpose(0, 1)
    with exactly(through.device):
        rays = (A @ through)[:, :, :, None]
    at = rays + b[..., None, None] * inverse_depth[:, :, None]
    size = at.new_tensor([inputs.photos.shape[-1], inputs.photos.shape[-2]]).view(2, 1, 1)
    depth = at[:, :, 2]
    # Clamped well outside of the photo: places behind or beside the camera run away, and all that matters is that they
    # are outside.
    grid = (2 * at[:, :, :2] / depth[:, :, None].clamp_min(1e-6) / size - 1).clamp(-3, 3).permute(0, 1, 3, 4, 2)
    return grid, ((grid.abs() < 1).all(-1) & (depth > 0)).to(at)
