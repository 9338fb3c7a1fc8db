"""Training of the reference decoder: procedural scenes, the real regressor's renders, the denoiser's own pictures.

The loss of a target view, e = frame - truth:

    mean sqrt(e^2 + 1e-5) + 0.5 mean |grad e| + 2 mean e^2 + 0.5 mean (e^2 + 1e-6)^0.35  what the frame is like
    + w LPIPS(frame, truth)
    + m mean |e_i - e_{i+1} seen from i|                                                  what flickers
    + 0.3 mean min(|warped - truth|, 0.3)                                                 which photo to believe
    + 0.01 (cross-entropy over planes + mean |difference in planes|)                      where the surface is

The fourth term looks at the small errors of what was right already: else all of a frame is blurred a little for the
sake of its few bad places.

Depth is known exactly in these scenes, so that the search learns from the surface itself instead of from colours. The
render's own depth is hidden from a quarter of the scenes, since a search that may copy it never learns to look.

Shapes: N views of a scene (C context first), V targets, H W pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from jaxtyping import Float, Float16, Float32, UInt8
from torch import Tensor

from sphinx_nvs.diffusion.solvers import Multistep, sample
from sphinx_nvs.errors import InputError
from sphinx_nvs.evaluation.consistency import Warp, neighbour_warp, seen_through, warp_error
from sphinx_nvs.evaluation.perceptual import Lpips
from sphinx_nvs.geometry.cameras import Cameras
from sphinx_nvs.models import planesweep
from sphinx_nvs.models.base import Render
from sphinx_nvs.models.nano import Nano
from sphinx_nvs.models.reference_decoder import NUM_PLANES, Decoded, ReferenceDecoder, Sight, look_at
from sphinx_nvs.scene.procedural import procedural_views
from sphinx_nvs.scene.scene import Scene
from sphinx_nvs.training.samples import as_bytes, choose_context
from sphinx_nvs.training.state import Run, Schedule, follow_in_threads

TEMPERATURE = 0.25
"""How far from the first estimate to the sample frames end; as the embedded preset's plans."""

STEPS, SHARE_OF_SAMPLES = 8, 0.35
"""Solver steps of the scenes that are sampled, and how many those are; of all others the first estimate is taken."""

HIDE_DEPTH = 0.25


@dataclass(frozen=True, kw_only=True)
class DecoderSample:
    """A scene, its renders and what the denoiser made of them.

    Args:
        rgb: true pictures, context views first.
        rendered: the regressor's pictures of the targets.
        signals: alpha, confidence and disagreement, times 255.
        picture: the refined latents, decoded.
        round_trip: the render after the autoencoder.
        depth: true z-depth, world units.
        render_depth: the regressor's.
        c2w: poses, OpenCV axes.
        K: intrinsics in pixels.
        num_context: how many views are context, shape (1,).
    """

    rgb: UInt8[Tensor, "N 3 H W"]
    rendered: UInt8[Tensor, "V 3 H W"]
    signals: UInt8[Tensor, "V 3 H W"]
    picture: UInt8[Tensor, "V 3 H W"]
    round_trip: UInt8[Tensor, "V 3 H W"]
    depth: Float16[Tensor, "N H W"]
    render_depth: Float16[Tensor, "V H W"]
    c2w: Float32[Tensor, "N 4 4"]
    K: Float32[Tensor, "N 3 3"]
    num_context: UInt8[Tensor, "1"]


@torch.inference_mode()
def make_decoder_sample(
    nano: Nano, seed: int, split: str = "train", num_views: int = 7, size: int = 128
) -> DecoderSample | None:
    """One sample, the same for the same weights and arguments; None where no target sees any context point.

    Args:
        nano: whose pictures the decoder learns from.
        seed: which scene.
        split: `train`, `val` or `test`.
        num_views: context and target views together.
        size: height and width in pixels.
    """
    generator = torch.Generator().manual_seed(seed * 7919 + 1)
    rgb, depth, cameras, _ = procedural_views(seed, num_views, size, size, split=split)
    of_two = bool(torch.rand((), generator=generator) < 0.5)
    order, count = choose_context(num_views, generator, 2 if of_two else None)
    rgb, depth, cameras = rgb[order], depth[order], cameras[order]
    scene = Scene(name=f"{split}-{seed}", images=rgb[:count], cameras=cameras[:count])
    try:
        render = planesweep.PlaneSweep().reconstruct(scene).render(cameras[count:])
    except InputError:
        return None
    z_render = nano.encode(render.rgb)
    refined = _refined(nano, scene, cameras[count:], render, z_render, generator)
    return DecoderSample(
        rgb=as_bytes(rgb),
        rendered=as_bytes(render.rgb),
        signals=as_bytes(torch.stack([render.alpha, render.confidence, render.disagreement], 1)),
        picture=as_bytes(nano.decode(refined)),
        round_trip=as_bytes(nano.decode(z_render)),
        depth=depth.half(),
        render_depth=render.depth.half(),
        c2w=cameras.c2w.float(),
        K=cameras.K.float(),
        num_context=torch.tensor([count], dtype=torch.uint8),
    )


def _refined(
    nano: Nano, scene: Scene, targets: Cameras, render: Render, z_render: Tensor, generator: torch.Generator
) -> Float[Tensor, "V C h w"]:
    """Latents as frames end: near the first estimate, of some scenes a quarter of the way to a sample."""
    conditioning = nano.condition(scene, targets, render, z_render)
    sampled = bool(torch.rand((), generator=generator) < SHARE_OF_SAMPLES)
    sigmas = nano.sigmas(STEPS if sampled else 25)
    noisy = z_render + float(sigmas[0]) * torch.randn(z_render.shape, generator=generator)
    first = nano.denoise(noisy, float(sigmas[0]), conditioning)
    if not sampled:
        return first
    drawn = sample(partial(nano.denoise, conditioning=conditioning), noisy, sigmas, Multistep())
    return torch.lerp(first, drawn, TEMPERATURE)


@dataclass(frozen=True, kw_only=True, eq=False)
class Lesson:
    """Some target views of a sample, as the decoder sees them, and what it should say.

    Args:
        picture: the refined picture with the render's detail.
        sight: what can be looked at.
        truth: the target views.
        inverse_depth: their exact inverse depth.
        warp: of each view but the last into the one after it, by exact depth.
    """

    picture: Float[Tensor, "V 3 H W"]
    sight: Sight
    truth: Float[Tensor, "V 3 H W"]
    inverse_depth: Float[Tensor, "V H W"]
    warp: Warp


def lesson(sample: DecoderSample, views: Sequence[int]) -> Lesson:
    """The sample's targets `views`, counted from its first target."""
    count, chosen = int(sample.num_context), list(views)
    absolute = [count + view for view in chosen]
    rgb, rendered = sample.rgb.float() / 255, sample.rendered.float() / 255
    height, width = rgb.shape[-2:]
    cameras = Cameras(sample.c2w.double(), sample.K.double(), height, width)
    alpha, confidence, disagreement = (sample.signals.float() / 255).unbind(1)
    render = Render(
        rgb=rendered,
        alpha=alpha,
        confidence=confidence,
        disagreement=disagreement,
        depth=sample.render_depth.float().clamp_min(1e-4),
    )
    sight = look_at(rgb[:count], cameras[:count], cameras[count:], render)
    return Lesson(
        picture=(rendered + (sample.picture.float() - sample.round_trip.float()) / 255)[chosen],
        sight=replace(
            sight,
            **{name: getattr(sight, name)[chosen] for name in ("A", "b", "rendered", "signals", "inverse_depth")},
        ),
        truth=rgb[absolute],
        inverse_depth=1 / sample.depth[absolute].float(),
        warp=neighbour_warp(sample.depth[absolute].float(), cameras[absolute]),
    )


def mirrored(warp: Warp) -> Warp:
    """The warp between mirrored views."""
    grid = warp.grid.flip(2)
    return Warp(grid=grid * grid.new_tensor([-1, 1]), visible=warp.visible.flip(-1))


def varied(given: Lesson, generator: torch.Generator) -> Lesson:
    """Mirrors half of the lessons, permutes the colours of half, hides the render's depth from a quarter."""
    mirror, permute, hide = (torch.rand(3, generator=generator) < torch.tensor([0.5, 0.5, HIDE_DEPTH])).tolist()
    order = torch.randperm(3, generator=generator)
    sight = given.sight
    if hide:
        # Out of reach of every plane.
        sight = replace(sight, inverse_depth=torch.full_like(sight.inverse_depth, 1e3 * float(sight.planes[-1])))
    if permute:
        photos, rendered = sight.photos[:, order], sight.rendered[:, order]
        sight = replace(sight, photos=photos, rendered=rendered)
        given = replace(given, picture=given.picture[:, order], truth=given.truth[:, order])
    if mirror:
        # x -> W - x on both sides of each homography.
        flip = torch.tensor([[-1.0, 0, given.truth.shape[-1]], [0, 1, 0], [0, 0, 1]])
        seen = {n: getattr(sight, n).flip(-1) for n in ("photos", "rendered", "signals", "inverse_depth")}
        sight = replace(sight, A=flip @ sight.A @ flip, b=sight.b @ flip.T, **seen)
        flipped = {n: getattr(given, n).flip(-1) for n in ("picture", "truth", "inverse_depth")}
        given = replace(given, warp=mirrored(given.warp), **flipped)
    return replace(given, sight=sight)


def decoder_loss(
    decoder: ReferenceDecoder,
    given: Lesson,
    lpips: Lpips | None = None,
    lpips_weight: float = 0.0,
    motion_weight: float = 0.0,
) -> Float[Tensor, ""]:
    """The loss of the module's equations; networks run in bfloat16."""
    # The cache of cast weights would be one for all threads.
    with torch.autocast(given.truth.device.type, torch.bfloat16, cache_enabled=False):
        decoded = decoder(given.picture, given.sight)
    loss = picture_loss(decoded.frames, given.truth, lpips, lpips_weight)
    loss = loss + motion_weight * flicker(decoded.frames - given.truth, given.warp)
    loss = loss + 0.3 * ((decoded.warped - given.truth).abs() * decoded.in_view[:, None]).clamp_max(0.3).mean()
    return loss + 0.01 * _depth_loss(decoded, given)


def picture_loss(
    frames: Float[Tensor, "V 3 H W"], truth: Float[Tensor, "V 3 H W"], lpips: Lpips | None, lpips_weight: float
) -> Float[Tensor, ""]:
    """The first two lines of the module's equations."""
    error = frames - truth
    square = error.square()
    edges = error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean()
    loss = (square + 1e-5).sqrt().mean() + 0.5 * edges + 2 * square.mean() + 0.5 * (square + 1e-6).pow(0.35).mean()
    if lpips is not None:
        distances = lpips.distances(lpips.features(frames.clamp(0, 1)), lpips.features(truth))
        loss = loss + lpips_weight * sum(distance.mean() for distance in distances)
    return loss


def flicker(error: Float[Tensor, "V 3 H W"], warp: Warp) -> Float[Tensor, ""]:
    """How much the errors of neighbours differ, over pixels whose point both show."""
    visible = warp.visible[:, None]
    difference = (error[:-1] - seen_through(error[1:], warp).float()).abs() * visible
    return difference.sum() / (3 * visible.sum().clamp_min(1))


def _depth_loss(decoded: Decoded, given: Lesson) -> Float[Tensor, ""]:
    """Cross-entropy against the two planes beside the true one, where it is within reach, and the mean's distance."""
    planes = given.sight.planes
    stride = given.inverse_depth.shape[-1] // decoded.plane_logits.shape[-1]
    truth = given.inverse_depth[:, None, stride // 2 :: stride, stride // 2 :: stride]
    step = planes[1] - planes[0]
    place = ((truth - planes[0]) / step).clamp(0, NUM_PLANES - 1)
    index = torch.arange(NUM_PLANES).view(1, -1, 1, 1)
    share = (1 - (place - index).abs()).clamp_min(0)
    entropy = -(share * decoded.plane_logits.log_softmax(1)).sum(1, keepdim=True)
    mean = (decoded.plane_logits.softmax(1) * index).sum(1, keepdim=True)
    return (entropy * (truth < 1.1 * planes[-1])).mean() + (mean - place).abs().clamp_max(4).mean()


def train_decoder(
    decoder: ReferenceDecoder,
    samples: Sequence[DecoderSample],
    schedule: Schedule,
    folder: Path,
    *,
    deadline_s: float,
    workers: int = 2,
    views: int = 3,
    lpips: Lpips | None = None,
    lpips_weight: float = 0.0,
    motion_weight: float = 0.0,
    notes: Mapping[str, int] | None = None,
    on_log: Callable[[Run[ReferenceDecoder]], None] | None = None,
    validate_every_s: float = 240.0,
) -> Run[ReferenceDecoder]:
    """Trains the decoder on the CPU, each scene of a batch in a thread of its own.

    Args:
        decoder: trained in place.
        samples: of any sizes and context counts; of those above 128 pixels two views are taken at most.
        schedule: see `Schedule`.
        folder: checkpoint and curve.
        deadline_s: stop (and save) after so many seconds; call again to go on.
        workers: threads.
        views: targets of a scene and update, one after another.
        lpips: the metric, where it is part of the loss.
        lpips_weight: its weight.
        motion_weight: of what flickers.
        notes: kept with a new run's checkpoint.
        on_log: called every `validate_every_s` and at the end.
        validate_every_s: seconds between.
    """

    def loss(sample: DecoderSample, generator: torch.Generator) -> Float[Tensor, ""]:
        count = min(views if sample.rgb.shape[-1] <= 128 else min(views, 2), len(sample.rendered))
        first = int(torch.randint(len(sample.rendered) - count + 1, (), generator=generator))
        given = varied(lesson(sample, range(first, first + count)), generator)
        return decoder_loss(decoder, given, lpips, lpips_weight, motion_weight)

    run = Run(decoder, decoder.parameters(), schedule, folder, notes)
    return follow_in_threads(
        run, samples, loss, deadline_s=deadline_s, workers=workers, on_log=on_log, validate_every_s=validate_every_s
    )


@torch.inference_mode()
def validate_decoder(decoder: ReferenceDecoder, samples: Sequence[DecoderSample]) -> dict[str, float]:
    """PSNR in dB over unseen and over all pixels of render, refined picture, warped photos and frames.

    And how much frames disagree with their neighbours, over how much the truth's do.
    """
    # Here: a metric's module is not needed to train.
    from sphinx_nvs.evaluation.regions import unseen_mask

    squares: dict[str, list[Tensor]] = {}
    disagreement = {"frame": 0.0, "truth": 0.0}
    for each in samples:
        given = lesson(each, range(len(each.rendered)))
        decoded = decoder(given.picture, given.sight)
        unseen = unseen_mask(given.sight.signals[:, 0], given.sight.signals[:, 1])
        pictures = {
            "render": given.sight.rendered,
            "picture": given.picture,
            "warped": decoded.warped,
            "frame": decoded.frames,
        }
        for name, picture in pictures.items():
            error = (picture.clamp(0, 1) - given.truth).square().mean(1)
            squares.setdefault(f"{name}_unseen_db", []).append(error[unseen])
            squares.setdefault(f"{name}_whole_db", []).append(error.flatten())
        for name, picture in (("frame", decoded.frames.clamp(0, 1)), ("truth", given.truth)):
            disagreement[name] += warp_error(picture, given.warp) or 0.0
    means = {name: torch.cat(parts).mean().clamp_min(1e-9) for name, parts in squares.items()}
    figures = {name: round(float(-10 * mean.log10()), 3) for name, mean in means.items()}
    return figures | {"frame_reprojection_ratio": round(disagreement["frame"] / max(disagreement["truth"], 1e-9), 3)}
