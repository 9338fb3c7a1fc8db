"""Training of the reference decoder: procedural scenes, the real regressor's renders, the denoiser's own pictures.

The loss of a target view, e = frame - truth:

    mean sqrt(e^2 + 1e-5) + 0.5 mean |grad e| + s mean e^2 + 0.5 mean (e^2 + 1e-6)^0.35  what the frame is like
    + w LPIPS(frame, truth)
    + m mean |e_i - e_{i+1} seen from i|                                                  what flickers
    + p mean excess contrast                                                              specks and torn edges
    + 0.3 mean min(|warped - truth|, 0.3)                                                 which photo to believe
    + 0.01 (cross-entropy over planes + mean |difference in planes|)                      where the surface is
    + 0.005 (the same for one of the photos)                                              where the photo's is

The fourth term weighs the small errors of what was right already: else all of a frame is blurred a little for the
sake of its few bad places. The third weighs the large ones, and with s decides how bold a guess may be: where nothing
says which of two photos is right, their mean is never far off, but soft.

Depth is known exactly in these scenes, so that the search learns from the surface itself instead of from colours. The
render's own depth is hidden from a quarter of the scenes, since a search that may copy it never learns to search.

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
from sphinx_nvs.evaluation.specks import excess_contrast, speck_rate
from sphinx_nvs.geometry.cameras import Cameras
from sphinx_nvs.models import planesweep
from sphinx_nvs.models.base import Render
from sphinx_nvs.models.embedded.decoder_inputs import NUM_PLANES, DecoderInputs, Redrawn, decoder_inputs
from sphinx_nvs.models.embedded.denoiser import Nano, relative_plucker, signal_maps
from sphinx_nvs.models.embedded.reference_decoder import ReferenceDecoder
from sphinx_nvs.procedural import procedural_views
from sphinx_nvs.procedural.reflections import polished
from sphinx_nvs.scene.scene import Scene
from sphinx_nvs.training.precision import in_bfloat16
from sphinx_nvs.training.samples import as_bytes, choose_context
from sphinx_nvs.training.state import Draw, Run, Schedule, follow_in_threads

TEMPERATURE = 0.25
"""How far from the first estimate to the sample frames end; as the embedded preset's plans."""

STEPS, SHARE_OF_SAMPLES = 8, 0.35
"""Solver steps of the scenes that are sampled, and how many those are; of all others the first estimate is taken."""

HIDE_DEPTH = 0.25

KNOWN = 0.5
"""Confidence from which a sample's depth is learned from."""

SQUARE_WEIGHT = 2.0

EXPOSED_APART, STOPS = 0.3, 0.2
"""Share of training scenes whose photos differ in exposure and white balance, as those of a camera left to itself do,
and the standard deviation of the former; of each channel's own, a fifth of it."""

POLISHED = 0.3
"""Share of training scenes with glass, lacquer, a mirror or a wet floor, whose reflections no search finds."""


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
        depth_known: how sure that is, times 255: 255 where it is exact.
        render_depth: the regressor's.
        photo_inverse_depth: the regressor's of the C context views.
        photo_confidence: how sure it is of that, times 255.
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
    depth_known: UInt8[Tensor, "N H W"]
    render_depth: Float16[Tensor, "V H W"]
    photo_inverse_depth: Float16[Tensor, "C H W"]
    photo_confidence: UInt8[Tensor, "C H W"]
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
    rgb, depth, cameras, world = procedural_views(seed, num_views, size, size, split=split)
    if split == "train":
        shine = torch.Generator().manual_seed(seed * 7919 + 3)
        if torch.rand((), generator=shine) < POLISHED:
            rgb = polished(world, cameras, rgb, depth, shine)
    # Half of all scenes with two photos: the hardest and the most common case.
    of_two = bool(torch.rand((), generator=generator) < 0.5)
    order, count = choose_context(num_views, generator, 2 if of_two else None)
    rgb, depth, cameras = rgb[order], depth[order], cameras[order]
    if split == "train":
        # A generator of its own: switching an augmentation off must not change the rest of the sample.
        rgb[:count] = exposed_apart(rgb[:count], torch.Generator().manual_seed(seed * 7919 + 2))
    return packed(nano, f"{split}-{seed}", rgb, depth, torch.ones_like(depth), cameras, count, generator)


@torch.inference_mode()
def packed(
    nano: Nano,
    name: str,
    rgb: Float[Tensor, "N 3 H W"],
    depth: Float[Tensor, "N H W"],
    depth_known: Float[Tensor, "N H W"],
    cameras: Cameras,
    count: int,
    generator: torch.Generator,
) -> DecoderSample | None:
    """The sample of posed views: what the plane sweep and the denoiser make of the targets from the context views.

    Args:
        nano: whose pictures the decoder learns from.
        name: name of the scene, for messages.
        rgb: the views, the first `count` of them context.
        depth: their z-depth, world units.
        depth_known: how sure that is, [0, 1].
        cameras: cameras of the views.
        count: how many are context.
        generator: generator of the denoiser's noise.

    Returns:
        None where the context views have no parallax, or no target sees any of their points.
    """
    scene = Scene(name=name, images=rgb[:count], cameras=cameras[:count])
    try:
        reconstruction = planesweep.PlaneSweep().reconstruct(scene)
        render = reconstruction.render(cameras[count:])
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
        depth_known=as_bytes(depth_known),
        render_depth=render.depth.half(),
        photo_inverse_depth=reconstruction.inverse_depth.half(),
        photo_confidence=as_bytes(reconstruction.confidence),
        c2w=cameras.c2w.float(),
        K=cameras.K.float(),
        num_context=torch.tensor([count], dtype=torch.uint8),
    )


def exposed_apart(photos: Float[Tensor, "C 3 H W"], generator: torch.Generator) -> Float[Tensor, "C 3 H W"]:
    """Some scenes' photos as if each had been exposed and balanced by itself; the others' as they are."""
    if torch.rand((), generator=generator) >= EXPOSED_APART:
        return photos
    count = len(photos)
    stops = torch.randn(count, 1, 1, 1, generator=generator) + torch.randn(count, 3, 1, 1, generator=generator) / 5
    return under_light(photos, 2 ** (STOPS * stops))


def under_light(pictures: Float[Tensor, "N 3 H W"], gain: Float[Tensor, "N 3 1 1"] | float) -> Float[Tensor, "N 3 H W"]:
    """The pictures under `gain` times the light.

    Pictures are the root of film, film is 1 - exp(-response light) (`scene.procedural.shading`): g times the response
    is 1 - (1 - film)^g, exactly.
    """
    return (1 - (1 - pictures.clamp(0, 1).square()) ** gain).sqrt()


def _refined(
    nano: Nano, scene: Scene, targets: Cameras, render: Render, z_render: Tensor, generator: torch.Generator
) -> Float[Tensor, "V C h w"]:
    """Latents as frames end: near the first estimate, of some scenes a quarter of the way to a sample."""
    h, w = z_render.shape[-2:]
    rays = relative_plucker(Cameras.cat([scene.cameras, targets]), float(render.depth.median()), h, w)
    signals = signal_maps(render.alpha, render.confidence, render.disagreement, nano.factor)
    # `nano.condition` without the survey of the photos, which no latents depend on.
    conditioning = nano.assemble(nano.encode(scene.images), z_render, signals, rays)
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
        inputs: the decoder's inputs.
        truth: the target views.
        inverse_depth: their true inverse depth.
        photo_inverse_depth: that of the photos.
        known: 1 where the targets' inverse depth counts, else 0.
        photo_known: the same for the photos.
        warp: correspondence of each view but the last with the one after it, by true depth where that is known.
    """

    picture: Float[Tensor, "V 3 H W"]
    inputs: DecoderInputs
    truth: Float[Tensor, "V 3 H W"]
    inverse_depth: Float[Tensor, "V H W"]
    photo_inverse_depth: Float[Tensor, "C H W"]
    known: Float[Tensor, "V H W"]
    photo_known: Float[Tensor, "C H W"]
    warp: Warp


def lesson(sample: DecoderSample, views: Sequence[int], decoder: ReferenceDecoder | None = None) -> Lesson:
    """The sample's targets `views`, counted from its first target; with a decoder, redrawn by its survey."""
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
        context_inverse_depth=sample.photo_inverse_depth.float(),
        context_confidence=sample.photo_confidence.float() / 255,
    )
    # All targets first, then some: planes are placed by the whole path's depths, as they are when serving.
    inputs = decoder_inputs(rgb[:count], cameras[:count], cameras[count:], render).of(*chosen)
    if decoder is not None:
        with torch.no_grad(), in_bfloat16(rgb.device, enabled=decoder.training, cache_enabled=False):
            inputs = decoder.surveyed(inputs, cameras[:count], cameras[absolute])
    depth, known = sample.depth.float(), sample.depth_known >= round(255 * KNOWN)
    return Lesson(
        picture=(rendered + (sample.picture.float() - sample.round_trip.float()) / 255)[chosen],
        inputs=inputs,
        truth=rgb[absolute],
        inverse_depth=1 / depth[absolute],
        photo_inverse_depth=1 / depth[:count],
        known=known[absolute].float(),
        photo_known=known[:count].float(),
        warp=neighbour_warp(depth[absolute], cameras[absolute], known[absolute]),
    )


def mirrored(warp: Warp) -> Warp:
    """The warp between mirrored views."""
    grid = warp.grid.flip(2)
    return Warp(grid=grid * grid.new_tensor([-1, 1]), visible=warp.visible.flip(-1))


def exposed(given: Lesson, gain: float) -> Lesson:
    """The lesson under `gain` times the light."""
    lit = partial(under_light, gain=gain)
    inputs = replace(given.inputs, photos=lit(given.inputs.photos), rendered=lit(given.inputs.rendered))
    if inputs.redrawn is not None:
        inputs = replace(inputs, redrawn=replace(inputs.redrawn, rgb=lit(inputs.redrawn.rgb)))
    return replace(given, picture=lit(given.picture), truth=lit(given.truth), inputs=inputs)


def varied(given: Lesson, generator: torch.Generator) -> Lesson:
    """Exposes all lessons anew, mirrors half, permutes the colours of half, hides the render's depth from a quarter."""
    given = exposed(given, float(2 ** (0.4 * torch.randn((), generator=generator))))
    mirror, permute, hide = (torch.rand(3, generator=generator) < torch.tensor([0.5, 0.5, HIDE_DEPTH])).tolist()
    order = torch.randperm(3, generator=generator)
    inputs = given.inputs
    if hide:
        inputs = inputs.without_depth()
    if permute:
        photos, rendered = inputs.photos[:, order], inputs.rendered[:, order]
        inputs = replace(inputs, photos=photos, rendered=rendered)
        if inputs.redrawn is not None:
            inputs = replace(inputs, redrawn=replace(inputs.redrawn, rgb=inputs.redrawn.rgb[:, order]))
        given = replace(given, picture=given.picture[:, order], truth=given.truth[:, order])
    if mirror:
        # x -> W - x on both sides of each homography.
        flip = torch.tensor([[-1.0, 0, given.truth.shape[-1]], [0, 1, 0], [0, 0, 1]])
        flipped = {n: flip @ getattr(inputs, n) @ flip for n in ("A", "A_between")}
        flipped |= {n: getattr(inputs, n) @ flip.T for n in ("b", "b_between")}
        maps = ("photos", "rendered", "signals", "inverse_depth", "photo_inverse_depth", "photo_confidence")
        inputs = replace(inputs, **flipped, **{n: getattr(inputs, n).flip(-1) for n in maps})
        if inputs.redrawn is not None:
            inputs = replace(inputs, redrawn=Redrawn(**{n: maps.flip(-1) for n, maps in vars(inputs.redrawn).items()}))
        truths = ("picture", "truth", "inverse_depth", "photo_inverse_depth", "known", "photo_known")
        flipped = {n: getattr(given, n).flip(-1) for n in truths}
        given = replace(given, warp=mirrored(given.warp), **flipped)
    return replace(given, inputs=inputs)


def decoder_loss(
    decoder: ReferenceDecoder,
    given: Lesson,
    lpips: Lpips | None = None,
    lpips_weight: float = 0.0,
    motion_weight: float = 0.0,
    square_weight: float = SQUARE_WEIGHT,
    photo: int = 0,
    speck_weight: float = 0.0,
) -> Float[Tensor, ""]:
    """The loss of the module's equations, in bfloat16 where that pays. Of the survey, `photo` alone is learned from."""
    planes = given.inputs.planes
    # The cache of cast weights would be one for all threads.
    with in_bfloat16(given.truth.device, cache_enabled=False):
        decoded, surveyed = decoder(given.picture, given.inputs), decoder.search_photo(given.inputs, photo)
    loss = picture_loss(decoded.frames, given.truth, lpips, lpips_weight, square_weight)
    loss = loss + speck_weight * excess_contrast(decoded.frames, given.truth).mean()
    loss = loss + motion_weight * flicker(decoded.frames - given.truth, given.warp)
    loss = loss + 0.3 * ((decoded.warped - given.truth).abs() * decoded.in_view[:, None]).clamp_max(0.3).mean()
    one = slice(photo, photo + 1)
    loss = loss + 0.01 * _depth_loss(decoded.plane_logits, given.inverse_depth, planes, given.known)
    return loss + 0.005 * _depth_loss(surveyed, given.photo_inverse_depth[one], planes, given.photo_known[one])


def picture_loss(
    frames: Float[Tensor, "V 3 H W"],
    truth: Float[Tensor, "V 3 H W"],
    lpips: Lpips | None,
    lpips_weight: float,
    square_weight: float = SQUARE_WEIGHT,
) -> Float[Tensor, ""]:
    """The first two lines of the module's equations."""
    error = frames - truth
    square = error.square()
    edges = error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean()
    loss = (square + 1e-5).sqrt().mean() + 0.5 * edges + 0.5 * (square + 1e-6).pow(0.35).mean()
    loss = loss + square_weight * square.mean()
    if lpips is not None:
        distances = lpips.distances(lpips.features(frames.clamp(0, 1)), lpips.features(truth))
        loss = loss + lpips_weight * sum(distance.mean() for distance in distances)
    return loss


def flicker(error: Float[Tensor, "V 3 H W"], warp: Warp) -> Float[Tensor, ""]:
    """How much the errors of neighbours differ, over pixels whose point both show."""
    visible = warp.visible[:, None]
    difference = (error[:-1] - seen_through(error[1:], warp).float()).abs() * visible
    return difference.sum() / (3 * visible.sum().clamp_min(1))


def _depth_loss(
    logits: Float[Tensor, "V D h w"],
    inverse_depth: Float[Tensor, "V H W"],
    planes: Float[Tensor, "D"],
    known: Float[Tensor, "V H W"],
) -> Float[Tensor, ""]:
    """Cross-entropy against the two planes beside the true one, where it is within reach, and the mean's distance.

    Places whose depth is not known count as having no error.
    """
    stride = inverse_depth.shape[-1] // logits.shape[-1]
    # The middle of each place, not its mean: across an edge of depth the mean is a surface that is not there.
    truth, known = (maps[:, None, stride // 2 :: stride, stride // 2 :: stride] for maps in (inverse_depth, known))
    step = planes[1] - planes[0]
    place = ((truth - planes[0]) / step).clamp(0, NUM_PLANES - 1)
    index = torch.arange(NUM_PLANES).view(1, -1, 1, 1)
    share = (1 - (place - index).abs()).clamp_min(0)
    entropy = -(share * logits.log_softmax(1)).sum(1, keepdim=True)
    mean = (logits.softmax(1) * index).sum(1, keepdim=True)
    distance = (mean - place).abs().clamp_max(4)
    return (entropy * (truth < 1.1 * planes[-1]) * known).mean() + (distance * known).mean()


def train_decoder(
    decoder: ReferenceDecoder,
    samples: Sequence[DecoderSample] | Draw[DecoderSample],
    schedule: Schedule,
    folder: Path,
    *,
    deadline_s: float,
    workers: int = 2,
    views: int = 3,
    lpips: Lpips | None = None,
    lpips_weight: float = 0.0,
    motion_weight: float = 0.0,
    square_weight: float = SQUARE_WEIGHT,
    speck_weight: float = 0.0,
    notes: Mapping[str, int] | None = None,
    on_log: Callable[[Run[ReferenceDecoder]], None] | None = None,
    validate_every_s: float = 240.0,
) -> Run[ReferenceDecoder]:
    """Trains the decoder on the CPU, each scene of a batch in a thread of its own.

    Args:
        decoder: trained in place.
        samples: samples of any sizes and context counts, or what draws one; above 128 pixels two views are taken at
            most.
        schedule: see `Schedule`.
        folder: checkpoint and curve.
        deadline_s: stop (and save) after so many seconds; call again to go on.
        workers: threads.
        views: targets of a scene and update, one after another.
        lpips: the metric, where it is part of the loss.
        lpips_weight: its weight.
        motion_weight: weight of the flicker term.
        square_weight: weight of squared errors, s in the module's equations.
        speck_weight: weight of contrast that the truth does not have, p in the module's equations.
        notes: kept with a new run's checkpoint.
        on_log: called every `validate_every_s` and at the end.
        validate_every_s: seconds between.
    """

    def loss(sample: DecoderSample, generator: torch.Generator) -> Float[Tensor, ""]:
        count = min(views if sample.rgb.shape[-1] <= 128 else min(views, 2), len(sample.rendered))
        first = int(torch.randint(len(sample.rendered) - count + 1, (), generator=generator))
        given = varied(lesson(sample, range(first, first + count), decoder), generator)
        photo = int(torch.randint(len(given.inputs.photos), (), generator=generator))
        return decoder_loss(decoder, given, lpips, lpips_weight, motion_weight, square_weight, photo, speck_weight)

    run = Run(decoder, decoder.parameters(), schedule, folder, notes)
    return follow_in_threads(
        run, samples, loss, deadline_s=deadline_s, workers=workers, on_log=on_log, validate_every_s=validate_every_s
    )


@torch.inference_mode()
def validate_decoder(decoder: ReferenceDecoder, samples: Sequence[DecoderSample]) -> dict[str, float]:
    """PSNR in dB over unseen and over all pixels of render, refined picture, warped photos and frames.

    And the share of specks in renders and frames; how much frames disagree with their neighbours, over how much the
    truth's do; and the share of places, of targets' unseen parts and of photos, whose surface was searched more than a
    plane beside the true one, where that is known.
    """
    # Here: a metric's module is not needed to train.
    from sphinx_nvs.evaluation.regions import unseen_mask

    squares: dict[str, list[Tensor]] = {}
    disagreement = {"frame": 0.0, "truth": 0.0}
    off: dict[str, list[Tensor]] = {"unseen": [], "photo": []}
    specks: dict[str, list[Tensor]] = {}
    for each in samples:
        given = lesson(each, range(len(each.rendered)), decoder)
        surfaces, decoded = decoder.survey(given.inputs), decoder(given.picture, given.inputs)
        unseen = unseen_mask(given.inputs.signals[:, 0], given.inputs.signals[:, 1])
        pictures = {
            "render": given.inputs.rendered,
            "picture": given.picture,
            "warped": decoded.warped,
            "frame": decoded.frames,
        }
        beside = _planes_beside(decoded.inverse_depth, given.inverse_depth, given.inputs.planes)
        off["unseen"].append(beside[unseen & (given.known > 0)] > 1)
        beside = _planes_beside(surfaces.inverse_depth[:, 0], given.photo_inverse_depth, given.inputs.planes)
        off["photo"].append(beside[given.photo_known > 0] > 1)
        for name, picture in pictures.items():
            error = (picture.clamp(0, 1) - given.truth).square().mean(1)
            squares.setdefault(f"{name}_unseen_db", []).append(error[unseen])
            squares.setdefault(f"{name}_whole_db", []).append(error.flatten())
        for name in ("render", "frame"):
            specks.setdefault(name, []).append(speck_rate(pictures[name].clamp(0, 1), given.truth))
        for name, picture in (("frame", decoded.frames.clamp(0, 1)), ("truth", given.truth)):
            disagreement[name] += warp_error(picture, given.warp) or 0.0
    means = {name: torch.cat(parts).mean().clamp_min(1e-9) for name, parts in squares.items()}
    figures = {name: round(float(-10 * mean.log10()), 3) for name, mean in means.items()}
    figures |= {f"{name}_speck_rate": round(float(torch.cat(parts).mean()), 4) for name, parts in specks.items()}
    figures |= {f"{name}_off": round(float(torch.cat(parts).float().mean()), 3) for name, parts in off.items()}
    return figures | {"frame_reprojection_ratio": round(disagreement["frame"] / max(disagreement["truth"], 1e-9), 3)}


def _planes_beside(
    found: Float[Tensor, "V h w"], truth: Float[Tensor, "V H W"], planes: Float[Tensor, "D"]
) -> Float[Tensor, "V H W"]:
    """How many planes inverse depths are beside the true ones."""
    fine = torch.nn.functional.interpolate(found[:, None], size=truth.shape[-2:], mode="bilinear", align_corners=False)
    return (fine[:, 0] - truth).abs() / (planes[1] - planes[0])
