"""Rendering of per-view inverse depth: geometry by forward splats, colour by backward warps.

1. Every context view is splatted into the target (`splatting`): depth, coverage and confidence each.
2. The layers are merged near the front-most confident surface; depth is filled through the holes.
3. At that depth every context view is sampled with an occlusion test (`warping`); near views weigh more.
4. Pixels that no context view sees get a smooth continuation of their surroundings (`pushpull`).

Targets with more pixels per radian than the context get their geometry at the context's resolution
and colour at full size; context images denser than the target are shrunk first, against aliasing.

Shapes: V context views of h x w pixels, H W target pixels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from functools import cached_property

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from sphinx_nvs.errors import InputError, spans
from sphinx_nvs.geometry.cameras import Cameras
from sphinx_nvs.geometry.projection import unproject
from sphinx_nvs.models.base import Render
from sphinx_nvs.models.gaussians import Gaussians, sh_from_rgb
from sphinx_nvs.models.planesweep import rendering_kernels
from sphinx_nvs.models.planesweep.pushpull import push_pull
from sphinx_nvs.models.planesweep.splatting import Layer, homography, project, splat_torch
from sphinx_nvs.models.planesweep.warping import Warp, warp_to_target
from sphinx_nvs.nn.row_bands import in_bands, interleaved
from sphinx_nvs.scene.scene import Scene

BACKENDS = ("auto", "torch", "numba")

COVERED = 0.15  # coverage from which a context view's layer is considered to have a surface
CONFIDENT = 0.2  # confidence from which a surface may occlude another one
HOLE = 1e-4  # merged weight below which a pixel counts as uncovered
SEEN = 0.5  # summed visibility from which a pixel keeps its own colour
GAUSSIAN_PX = 0.6  # standard deviation of an exported Gaussian, in context pixels
MAX_ZOOM = 1.5  # geometry is rendered with at most this many target pixels per context pixel


@dataclass(frozen=True, kw_only=True)
class RenderConfig:
    """How layers are combined into an image.

    Args:
        kernel_px: standard deviation of a splat, in pixels at magnification 1.
        depth_softness: relative depth range within which one context view's hits are averaged.
        merge_softness: relative depth range within which layers of several context views are averaged.
        occlusion_softness: relative depth excess at which a context view's colour weight falls to 1/e.
        nearness: how strongly near context views are preferred: their weight is exp(-nearness d / max d).
        backend: `torch` on any device, `numba` for compiled kernels on the CPU; `auto` takes those where it can.
    """

    kernel_px: float = 0.55
    depth_softness: float = 0.02
    merge_softness: float = 0.04
    occlusion_softness: float = 0.1
    nearness: float = 4.0
    backend: str = "auto"

    def __post_init__(self) -> None:
        for name in ("kernel_px", "depth_softness", "merge_softness", "occlusion_softness"):
            if not getattr(self, name) > 0:
                raise InputError(f"RenderConfig.{name}", f"{getattr(self, name)}", "give a value above 0")
        if self.nearness < 0:
            raise InputError("RenderConfig.nearness", f"{self.nearness}", "give 0 or more")
        if self.backend not in BACKENDS:
            raise InputError("RenderConfig.backend", f"{self.backend!r}", "give auto, torch or numba")


@dataclass(frozen=True)
class Geometry:
    """One target's merged surface; inverse depth is filled, confidence and alpha are not."""

    inverse_depth: Float[Tensor, "H W"]
    alpha: Float[Tensor, "H W"]
    confidence: Float[Tensor, "H W"]
    is_covered: bool


@dataclass(frozen=True)
class PlaneSweepReconstruction:
    """Context views with a depth for every pixel; can be rendered from any camera.

    Args:
        scene: the context views.
        inverse_depth: 1 / z-depth of every context pixel, finite and > 0.
        confidence: confidence of that depth, [0, 1].
        config: rendering parameters.

    Raises:
        InputError: a size differs from the scene's, a depth is not finite and positive, or a confidence is outside
            [0, 1].
    """

    scene: Scene
    inverse_depth: Float[Tensor, "V h w"]
    confidence: Float[Tensor, "V h w"]
    config: RenderConfig = field(default_factory=RenderConfig)

    def __post_init__(self) -> None:
        shape = (len(self.scene.images), *self.scene.images.shape[-2:])
        for name in ("inverse_depth", "confidence"):
            value = getattr(self, name)
            if value.shape != shape:
                raise InputError(name, f"its shape is {tuple(value.shape)}", f"give {shape} as the scene has")
            if not torch.isfinite(value).all():
                raise InputError(name, "a value is NaN or infinite", "give finite values")
            object.__setattr__(self, name, value.to(self.scene.images))
        if not (self.inverse_depth > 0).all():
            raise InputError("inverse_depth", f"its least value is {self.inverse_depth.min():g}", "give values above 0")
        if self.confidence.min() < 0 or self.confidence.max() > 1:
            raise InputError("confidence", "a value is outside [0, 1]", "clamp it")

    @cached_property
    def usual_inverse_depth(self) -> Float[Tensor, ""]:
        """The median of all photos' inverse depths."""
        return self.inverse_depth.median()

    @cached_property
    def interleaved(self) -> Float[Tensor, "V h w 4"]:
        """The photos with their colours beside one another, as compiled kernels read them; a channel is unused."""
        return interleaved(self.scene.images)

    @torch.no_grad()
    def render(self, cameras: Cameras) -> Render:
        """Renders every camera; the image size may differ from the context's.

        Raises:
            InputError: no context pixel projects into any of the targets.
        """
        dense = _downsampled(self, cameras)
        geometry = [_geometry(dense, cameras[i]) for i in range(len(cameras))]
        if not any(g.is_covered for g in geometry):
            views = spans(range(len(cameras)))
            raise InputError(
                f"target views {views}",
                "they see nothing of what the context views show",
                "point the cameras at the scene; poses are camera-to-world with +z forward",
            )
        colours = [_colour(dense, cameras[i], geometry[i].inverse_depth) for i in range(len(cameras))]
        return Render(
            rgb=torch.stack([rgb for rgb, _ in colours]),
            alpha=torch.stack([g.alpha for g in geometry]),
            depth=torch.stack([1 / g.inverse_depth for g in geometry]),
            confidence=torch.stack([g.confidence for g in geometry]),
            disagreement=torch.stack([disagreement for _, disagreement in colours]),
            context_inverse_depth=self.inverse_depth,
            context_confidence=self.confidence,
        )

    @torch.no_grad()
    def gaussians(self) -> Gaussians:
        """One Gaussian per context pixel: view by view, row by row; opaque where depth is confident."""
        cameras = self.scene.cameras
        means = unproject(cameras, 1 / self.inverse_depth).flatten(0, 2)
        focal = cameras.K[:, [0, 1], [0, 1]].mean(1).to(self.inverse_depth).view(-1, 1, 1)
        scales = (GAUSSIAN_PX / (self.inverse_depth * focal)).flatten()
        rgb = self.scene.images.permute(0, 2, 3, 1).reshape(-1, 3)
        return Gaussians(
            means=means.to(self.inverse_depth),
            covariances=scales.square()[:, None, None] * torch.eye(3, device=scales.device),
            opacities=(0.05 + 0.9 * self.confidence).flatten(),
            sh=sh_from_rgb(rgb),
        )


def _focal(cameras: Cameras) -> float:
    """Mean focal length in pixels."""
    return float(cameras.K[:, [0, 1], [0, 1]].mean())


def _downsampled(reconstruction: PlaneSweepReconstruction, targets: Cameras) -> PlaneSweepReconstruction:
    """The reconstruction with its views shrunk by an integer factor, if they are at least 1.5 times too dense."""
    scene = reconstruction.scene
    # Rounded: from 1.5 on it is 2 or more.
    factor = int(_focal(scene.cameras) / _focal(targets) + 0.5)
    height, width = scene.images.shape[-2] // max(factor, 1), scene.images.shape[-1] // max(factor, 1)
    if factor < 2 or min(height, width) < 1:
        return reconstruction

    def shrink(image: Tensor) -> Tensor:
        return F.interpolate(image, size=(height, width), mode="area")

    images, cameras = shrink(scene.images), scene.cameras.resized(height, width)
    inverse_depth = shrink(reconstruction.inverse_depth[:, None])[:, 0]
    confidence = shrink(reconstruction.confidence[:, None])[:, 0]
    return replace(
        reconstruction,
        scene=replace(scene, images=images, cameras=cameras),
        inverse_depth=inverse_depth,
        confidence=confidence.clamp(0, 1),
    )


def is_compiled(config: RenderConfig, device: torch.device) -> bool:
    """Whether compiled kernels compute on this device.

    Raises:
        InputError: they are requested by name on a device that is not the CPU.
    """
    if config.backend == "numba" and device.type != "cpu":
        found = f"numba compiles for the CPU, the photos are on {device}"
        raise InputError("RenderConfig.backend", found, "give auto or torch")
    return config.backend != "torch" and device.type == "cpu"


def _nearness(reconstruction: PlaneSweepReconstruction, target: Cameras) -> Float[Tensor, "V 1 1"]:
    """Weight of each context view by its distance from the target; sums to 1."""
    distance = (reconstruction.scene.cameras.centres - target.centres).norm(dim=1)
    relative = distance / distance.max().clamp_min(1e-12)
    # Relative to the farthest context view: the preference must not depend on the scene's units.
    weight = torch.softmax(-reconstruction.config.nearness * relative, 0)
    return weight.to(reconstruction.scene.images).view(-1, 1, 1)


def _geometry(reconstruction: PlaneSweepReconstruction, target: Cameras) -> Geometry:
    """The merged surface of all context views, at the target's size."""
    coarse = _coarsened(target, reconstruction.scene.cameras)
    nearness = _nearness(reconstruction, target)
    if is_compiled(reconstruction.config, reconstruction.inverse_depth.device):
        merged = _merged_compiled(reconstruction, coarse, nearness)
    else:
        merged = _merge(_layers(reconstruction, coarse), nearness, reconstruction.config.merge_softness)
    is_covered = bool((merged.alpha > 0).any())
    fallback = reconstruction.usual_inverse_depth[None]
    # Unsure surfaces still weigh a little: a hole is better filled from a doubtful neighbour than from the median.
    weight = torch.where(merged.alpha > 0, 0.05 + 0.95 * merged.confidence, 0)
    filled = push_pull(merged.inverse_depth[None, None], weight[None, None], fallback)[0, 0]
    if (coarse.height, coarse.width) == (target.height, target.width):
        return Geometry(filled, merged.alpha, merged.confidence, is_covered)
    parts = torch.stack([filled, merged.alpha, merged.confidence])[None]
    size = (target.height, target.width)
    parts = F.interpolate(parts, size=size, mode="bilinear", align_corners=False)[0]
    return Geometry(parts[0], parts[1], parts[2], is_covered)


def _coarsened(target: Cameras, context: Cameras) -> Cameras:
    """The target resized to at most `MAX_ZOOM` pixels per context pixel; camera distance is not considered."""
    zoom = _focal(target) / _focal(context)
    if zoom <= MAX_ZOOM:
        return target
    return target.resized(math.ceil(target.height / zoom), math.ceil(target.width / zoom))


def _layers(reconstruction: PlaneSweepReconstruction, target: Cameras) -> Layer:
    """Every context view splatted into `target`, stacked along a leading view axis."""
    config, cameras = reconstruction.config, reconstruction.scene.cameras
    size, layers = (target.height, target.width), []
    for view in range(len(cameras)):
        transform = homography(cameras.K[view], cameras.c2w[view], target.K[0], target.c2w[0])
        zoom = _focal(target) / _focal(cameras[view])
        inverse_depth, confidence = reconstruction.inverse_depth[view], reconstruction.confidence[view]
        points = project(inverse_depth, confidence, transform, zoom, size)
        layers.append(splat_torch(points, size, config.kernel_px, config.depth_softness))
    return Layer(
        torch.stack([layer.inverse_depth for layer in layers]),
        torch.stack([layer.confidence for layer in layers]),
        torch.stack([layer.alpha for layer in layers]),
    )


def _merged_compiled(
    reconstruction: PlaneSweepReconstruction, target: Cameras, nearness: Float[Tensor, "V 1 1"]
) -> Layer:
    """`_layers` and `_merge` by compiled kernels."""
    config, cameras = reconstruction.config, reconstruction.scene.cameras
    A, b = (part.float() for part in homography(cameras.K, cameras.c2w, target.K[0], target.c2w[0]))
    zoom = torch.tensor([_focal(target) / _focal(cameras[view]) for view in range(len(cameras))])
    sums = torch.zeros(len(cameras), 3, target.height, target.width)
    in_bands(
        rendering_kernels.splat_views,
        len(cameras),
        reconstruction.inverse_depth,
        reconstruction.confidence,
        A,
        b,
        zoom,
        config.kernel_px,
        config.depth_softness,
        sums,
        fewest=1,
    )
    merged = torch.empty(3, target.height, target.width)
    limits = config.merge_softness, COVERED, CONFIDENT, HOLE
    in_bands(rendering_kernels.merge_layers, target.height, sums, nearness.flatten(), *limits, merged)
    return Layer(*merged)


def _merge(layers: Layer, nearness: Float[Tensor, "V 1 1"], softness: float) -> Layer:
    """Merges layers near the front-most confident surface by weight; all zero in holes."""
    w, is_surface = layers.inverse_depth, layers.alpha > COVERED
    # Inverse depths: the largest is the nearest, and 0 is "nothing here".
    front = torch.where(is_surface & (layers.confidence > CONFIDENT), w, 0).amax(0)
    # Where no layer is confident, the nearest surface of any confidence is the front.
    front = torch.where(front > 0, front, torch.where(is_surface, w, 0).amax(0))
    excess = (front / w.clamp_min(1e-12) - 1).clamp(0, 10)
    weight = layers.alpha * (0.03 + layers.confidence) * nearness * torch.exp(-excess / softness)
    mass = weight.sum(0)
    norm = mass.clamp_min(1e-8)
    has_surface = mass >= HOLE
    # A pixel is open only where every layer leaves it open.
    alpha = 1 - (1 - layers.alpha).prod(0)
    merged = ((weight * w).sum(0) / norm, (weight * layers.confidence).sum(0) / norm, alpha.clamp(0, 1))
    return Layer(*(torch.where(has_surface, part, 0) for part in merged))


def _colour(
    reconstruction: PlaneSweepReconstruction, target: Cameras, inverse_depth: Float[Tensor, "H W"]
) -> tuple[Float[Tensor, "3 H W"], Float[Tensor, "H W"]]:
    """Colour of the filled surface, and the context views' disagreement about it."""
    scene = reconstruction.scene
    A, b = homography(target.K[0], target.c2w[0], scene.cameras.K, scene.cameras.c2w)
    softness, nearness = reconstruction.config.occlusion_softness, _nearness(reconstruction, target)
    if is_compiled(reconstruction.config, inverse_depth.device):
        rgb = torch.empty(3, *inverse_depth.shape)
        disagreement, trust = torch.empty(inverse_depth.shape), torch.empty(inverse_depth.shape)
        in_bands(
            rendering_kernels.warp_and_mix,
            len(inverse_depth),
            reconstruction.interleaved,
            reconstruction.inverse_depth,
            A.float(),
            b.float(),
            inverse_depth,
            softness,
            nearness.flatten(),
            SEEN,
            rgb,
            disagreement,
            trust,
        )
    else:
        warp = warp_to_target(scene.images, reconstruction.inverse_depth, A, b, inverse_depth, softness)
        rgb, disagreement = _blend(warp, nearness)
        trust = (warp.visible.sum(0) / SEEN).clamp(0, 1)
    if bool((trust < 1).any()):
        rgb = push_pull(rgb[None], trust[None, None], scene.images.mean((0, 2, 3)))[0]
    return rgb, disagreement


def _blend(warp: Warp, nearness: Float[Tensor, "V 1 1"]) -> tuple[Float[Tensor, "3 H W"], Float[Tensor, "H W"]]:
    """Weighted mean colour, and twice the mean absolute deviation among the views that see the point."""
    # Small floors keep the weights positive: first views that contain the point but do not see it, then all views.
    weight = (warp.visible + 1e-4 * warp.in_view + 1e-6) * nearness
    rgb = ((weight / weight.sum(0))[:, None] * warp.rgb).sum(0)
    # Divided by at least `SEEN`, so that views that hardly see a point cannot disagree much about it.
    share = warp.visible / warp.visible.sum(0).clamp_min(SEEN)
    mean = (share[:, None] * warp.rgb).sum(0)
    disagreement = 2 * (share * (warp.rgb - mean).abs().mean(1)).sum(0)
    return rgb, torch.where(warp.visible.amax(0) > SEEN, disagreement, 0).clamp(0, 1)
