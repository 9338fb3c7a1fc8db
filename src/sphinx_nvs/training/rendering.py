"""The plane sweep's renderer for many scenes at once, on any device: what `PlaneSweepReconstruction.render` does.

Same equations and constants (see `models.planesweep.reconstruction`), with scenes, targets and context views as leading
axes instead of loops, and without the cases that training does not need: all views share one size and one focal length.

Shapes: B scenes, C context views, T targets, H W pixels, N = H W.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from sphinx_nvs.models.planesweep.pushpull import push_pull
from sphinx_nvs.models.planesweep.reconstruction import CONFIDENT, COVERED, HOLE, SEEN, RenderConfig
from sphinx_nvs.models.planesweep.splatting import (
    COVERAGE_GAIN,
    MAX_EXCESS,
    MAX_MAGNIFICATION,
    MIN_MAGNIFICATION,
    REACH,
    STRONG_HIT,
    pixel_grid,
)


class Renders(NamedTuple):
    """As `models.base.Render`, per scene and target; `covered` tells which scenes show anything at all."""

    rgb: Float[Tensor, "B T 3 H W"]
    alpha: Float[Tensor, "B T H W"]
    depth: Float[Tensor, "B T H W"]
    confidence: Float[Tensor, "B T H W"]
    disagreement: Float[Tensor, "B T H W"]
    covered: Bool[Tensor, "B"]


class _Layers(NamedTuple):
    """See `splatting.Layer`."""

    inverse_depth: Float[Tensor, "*B H W"]
    confidence: Float[Tensor, "*B H W"]
    alpha: Float[Tensor, "*B H W"]


@torch.no_grad()
def render_scenes(
    images: Float[Tensor, "B C 3 H W"],
    inverse_depth: Float[Tensor, "B C H W"],
    confidence: Float[Tensor, "B C H W"],
    c2w: Float[Tensor, "B V 4 4"],
    K: Float[Tensor, "B V 3 3"],
    config: RenderConfig | None = None,
) -> Renders:
    """Renders every target of every scene.

    Args:
        images: context pictures in [0, 1].
        inverse_depth: 1 / z-depth of every context pixel, above 0.
        confidence: how sure that is, [0, 1].
        c2w: poses of the context views, then of the targets.
        K: their intrinsics in pixels.
        config: rendering parameters; `backend` has no meaning here.
    """
    config = config or RenderConfig()
    num_context = images.shape[1]
    nearness = _nearness(c2w, num_context, config.nearness).to(images)[..., None, None]
    layers = _splat(inverse_depth, confidence, _homographies(c2w, K, num_context), config)
    merged = _merge(layers, nearness, config.merge_softness)
    weight = torch.where(merged.alpha > 0, 0.05 + 0.95 * merged.confidence, 0)
    # Filled in units of the scene's median, so that one fallback serves all scenes.
    unit = inverse_depth.flatten(1).median(1).values.view(-1, 1, 1, 1)
    filled = unit * _filled((merged.inverse_depth / unit)[:, :, None], weight)[:, :, 0]
    backwards = _homographies(c2w, K, num_context, backwards=True)
    rgb, disagreement = _colour(images, inverse_depth, filled, backwards, nearness, config.occlusion_softness)
    covered = (merged.alpha > 0).flatten(1).any(1)
    return Renders(rgb, merged.alpha, 1 / filled, merged.confidence, disagreement, covered)


def _homographies(
    c2w: Float[Tensor, "B V 4 4"], K: Float[Tensor, "B V 3 3"], num_context: int, backwards: bool = False
) -> tuple[Float[Tensor, "B T C 3 3"], Float[Tensor, "B T C 3 1"]]:
    """(A, b) from every context view to every target, or `backwards`; see `splatting.homography`."""
    c2w, K = c2w.double(), K.double()
    w2c, K_inv = torch.linalg.inv(c2w), torch.linalg.inv(K)
    context, target = slice(num_context), slice(num_context, None)
    if backwards:
        relative = w2c[:, None, context] @ c2w[:, target, None]
        into, out_of = K[:, None, context], K_inv[:, target, None]
    else:
        relative = w2c[:, target, None] @ c2w[:, None, context]
        into, out_of = K[:, target, None], K_inv[:, None, context]
    return (into @ relative[..., :3, :3] @ out_of).float(), (into @ relative[..., :3, 3:]).float()


def _nearness(c2w: Float[Tensor, "B V 4 4"], num_context: int, strength: float) -> Float[Tensor, "B T C"]:
    """Weight of each context view by its distance from the target; sums to 1."""
    centres = c2w[..., :3, 3].double()
    distance = (centres[:, num_context:, None] - centres[:, None, :num_context]).norm(dim=-1)
    return torch.softmax(-strength * distance / distance.amax(-1, keepdim=True).clamp_min(1e-12), -1)


def _splat(
    inverse_depth: Float[Tensor, "B C H W"],
    confidence: Float[Tensor, "B C H W"],
    moves: tuple[Float[Tensor, "B T C 3 3"], Float[Tensor, "B T C 3 1"]],
    config: RenderConfig,
) -> _Layers:
    """Every context view splatted into every target; see `splatting.splat_torch`."""
    A, b = moves
    num_scenes, num_targets, num_context = A.shape[:3]
    height, width = inverse_depth.shape[-2:]
    w = inverse_depth.flatten(2)[:, None]
    p = A @ pixel_grid(inverse_depth, height, width) + b * w[..., None, :]
    scale = p[..., 2, :].clamp_min(1e-6)
    u, v = p[..., 0, :] / scale, p[..., 1, :] / scale
    seen = (p[..., 2, :] > 1e-6) & (u > -2) & (u < width + 2) & (v > -2) & (v < height + 2)
    u, v = torch.where(seen, u, -9.0), torch.where(seen, v, -9.0)
    w = w / scale
    magnification = (1 / scale).clamp(MIN_MAGNIFICATION, MAX_MAGNIFICATION)
    precision = 1 / (config.kernel_px * magnification).square()
    trust = confidence.flatten(2)[:, None].expand_as(u)
    pairs, bins = num_scenes * num_targets * num_context, height * width + 1
    first = (bins * torch.arange(pairs, device=u.device)).view(num_scenes, num_targets, num_context, 1)

    def hit(step: int) -> tuple[Tensor, Tensor]:
        x, y = u.floor() + (step % 3 - 1), v.floor() + (step // 3 - 1)
        r2 = (x + 0.5 - u).square() * precision + (y + 0.5 - v).square() * precision
        inside = (x >= 0) & (x < width) & (y >= 0) & (y < height) & (r2 < REACH)
        return (torch.where(inside, y * width + x, bins - 1).long() + first).flatten(), r2

    front = torch.zeros(pairs * bins, device=u.device)
    for step in range(9):
        pixel, r2 = hit(step)
        front.scatter_reduce_(0, pixel, torch.where(r2 < STRONG_HIT, w, 0).flatten(), "amax")
    mass, depth, sure = (torch.zeros(pairs * bins, device=u.device) for _ in range(3))
    for step in range(9):
        pixel, r2 = hit(step)
        excess = (front.index_select(0, pixel).view_as(w) / w - 1).clamp(0, MAX_EXCESS)
        weight = torch.exp(-0.5 * r2 - excess / config.depth_softness)
        for total, values in ((mass, weight), (depth, weight * w), (sure, weight * trust)):
            total.index_add_(0, pixel, values.flatten())

    def picture(flat: Tensor) -> Tensor:
        return flat.view(num_scenes, num_targets, num_context, bins)[..., :-1].unflatten(-1, (height, width))

    norm = mass.clamp_min(1e-6)
    return _Layers(picture(depth / norm), picture(sure / norm), picture(1 - torch.exp(-COVERAGE_GAIN * mass)))


def _merge(layers: _Layers, nearness: Float[Tensor, "B T C 1 1"], softness: float) -> _Layers:
    """One layer a target from those of all context views; see `reconstruction._merge`."""
    w, is_surface = layers.inverse_depth, layers.alpha > COVERED
    front = torch.where(is_surface & (layers.confidence > CONFIDENT), w, 0).amax(2, keepdim=True)
    front = torch.where(front > 0, front, torch.where(is_surface, w, 0).amax(2, keepdim=True))
    excess = (front / w.clamp_min(1e-12) - 1).clamp(0, 10)
    weight = layers.alpha * (0.03 + layers.confidence) * nearness * torch.exp(-excess / softness)
    mass = weight.sum(2)
    norm, has_surface = mass.clamp_min(1e-8), mass >= HOLE
    alpha = (1 - (1 - layers.alpha).prod(2)).clamp(0, 1)
    merged = ((weight * w).sum(2) / norm, (weight * layers.confidence).sum(2) / norm, alpha)
    return _Layers(*(torch.where(has_surface, part, 0) for part in merged))


def _filled(values: Float[Tensor, "B T K H W"], weight: Float[Tensor, "B T H W"]) -> Float[Tensor, "B T K H W"]:
    """`push_pull` of every target; 1 where a target has no weight at all."""
    flat = push_pull(values.flatten(0, 1), weight.flatten(0, 1)[:, None], values.new_ones(values.shape[2]))
    return flat.view_as(values)


def _colour(
    images: Float[Tensor, "B C 3 H W"],
    inverse_depth: Float[Tensor, "B C H W"],
    target_inverse_depth: Float[Tensor, "B T H W"],
    moves: tuple[Float[Tensor, "B T C 3 3"], Float[Tensor, "B T C 3 1"]],
    nearness: Float[Tensor, "B T C 1 1"],
    softness: float,
) -> tuple[Float[Tensor, "B T 3 H W"], Float[Tensor, "B T H W"]]:
    """Colour of the filled surfaces and the context views' disagreement; see `warping` and `reconstruction._blend`."""
    A, b = moves
    height, width = images.shape[-2:]
    lead = A.shape[:3]
    w = target_inverse_depth.flatten(2)[:, :, None, None]
    p = A @ pixel_grid(images, height, width) + b * w
    size = torch.tensor([[width], [height]], device=images.device, dtype=images.dtype)
    place = p[..., :2, :] / p[..., 2:, :].clamp_min(1e-6) * (2 / size) - 1
    grid = place.transpose(-1, -2).reshape(-1, height, width, 2).clamp(-3, 3)

    def sampled(maps: Tensor, mode: str) -> Tensor:
        each = maps[:, None].expand(*lead, *maps.shape[2:]).flatten(0, 2)
        found = F.grid_sample(each, grid, mode=mode, padding_mode="border", align_corners=False)
        return found.unflatten(0, lead)

    rgb = sampled(images, "bicubic").clamp(0, 1)
    depth = (p[..., 2, :] / w[..., 0, :]).unflatten(-1, (height, width))
    in_view = ((grid.abs() < 1).all(-1).unflatten(0, lead) & (depth > 0)).to(images)
    excess = (depth * sampled(inverse_depth[:, :, None], "nearest")[:, :, :, 0] - 1).clamp(0, MAX_EXCESS)
    visible = in_view * torch.exp(-excess / softness)
    weight = (visible + 1e-4 * in_view + 1e-6) * nearness
    blend = ((weight / weight.sum(2, keepdim=True))[:, :, :, None] * rgb).sum(2)
    share = visible / visible.sum(2, keepdim=True).clamp_min(SEEN)
    mean = (share[:, :, :, None] * rgb).sum(2, keepdim=True)
    spread = 2 * (share * (rgb - mean).abs().mean(3)).sum(2)
    disagreement = torch.where(visible.amax(2) > SEEN, spread, 0).clamp(0, 1)
    # Shifted so that the fallback of 1 stands for the scene's mean colour.
    shift = 1 - images.mean((1, 3, 4)).view(-1, 1, 3, 1, 1)
    trust = (visible.sum(2) / SEEN).clamp(0, 1)
    return _filled(blend + shift, trust) - shift, disagreement
