"""Training of the network that brings neighbouring frames to agree, on frames of the trained reference decoder.

The loss of a path, e_i = frame i - truth i, with the picture's loss as the decoder's (`training.decoder`):

    picture's loss + m mean |e_i - e_{i+1} seen from i|          over pixels whose point both show, by exact depth

The second term is what flickers. It is the errors' difference and not the frames', so that it does not ask for
highlights to stand still.

Shapes: V targets of a scene in the order of the path, H W pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path as FilePath

import torch
from jaxtyping import Float, Float16, Float32, UInt8
from torch import Tensor

from sphinx_nvs.evaluation.consistency import Warp, neighbour_warp, warp_error
from sphinx_nvs.evaluation.perceptual import Lpips
from sphinx_nvs.geometry.cameras import Cameras
from sphinx_nvs.models.embedded.reference_decoder import ReferenceDecoder
from sphinx_nvs.models.embedded.temporal_consistency import Agreement, Path, depth_of_path, neighbours_of
from sphinx_nvs.training.decoder import DecoderSample, flicker, lesson, mirrored, picture_loss
from sphinx_nvs.training.precision import in_bfloat16
from sphinx_nvs.training.samples import as_bytes
from sphinx_nvs.training.state import Run, Schedule, follow_in_threads

KEPT = 0.15
"""Share of views that show their render, as views do of which nothing is refined."""


@dataclass(frozen=True, kw_only=True)
class AgreementSample:
    """The target views of a scene, each decoded by itself.

    Args:
        truth: true pictures.
        frames: decoded ones.
        rendered: the regressor's.
        signals: alpha, confidence and disagreement of those, times 255.
        inverse_depth: see `models.agreement.depth_of_path`.
        rendered_inverse_depth: the render's alone.
        depth: true z-depth, world units.
        c2w: poses, OpenCV axes.
        K: intrinsics in pixels.
    """

    truth: UInt8[Tensor, "V 3 H W"]
    frames: UInt8[Tensor, "V 3 H W"]
    rendered: UInt8[Tensor, "V 3 H W"]
    signals: UInt8[Tensor, "V 3 H W"]
    inverse_depth: Float16[Tensor, "V H W"]
    rendered_inverse_depth: Float16[Tensor, "V H W"]
    depth: Float16[Tensor, "V H W"]
    c2w: Float32[Tensor, "V 4 4"]
    K: Float32[Tensor, "V 3 3"]


@torch.inference_mode()
def make_agreement_sample(decoder: ReferenceDecoder, sample: DecoderSample) -> AgreementSample:
    """Decodes all targets of a decoder's sample."""
    given, count = lesson(sample, range(len(sample.rendered)), decoder), int(sample.num_context)
    inputs, finds, frames = given.inputs, [], []
    for view in range(len(given.truth)):
        picture, one = given.picture[view : view + 1], inputs.of(view)
        finds.append(decoder.find(picture, one))
        frames.append(decoder.compose(picture, one, finds[-1]))
    found = torch.cat([each.inverse_depth for each in finds])
    return AgreementSample(
        truth=sample.rgb[count:],
        frames=as_bytes(torch.cat(frames)),
        rendered=sample.rendered,
        signals=sample.signals,
        inverse_depth=depth_of_path(inputs.inverse_depth, found, inputs.signals).half(),
        rendered_inverse_depth=inputs.inverse_depth.half(),
        depth=sample.depth[count:],
        c2w=sample.c2w[count:],
        K=sample.K[count:],
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class PathLesson:
    """A path as the network sees it, and what it should say.

    Args:
        path: what is given.
        truth: the views.
        warp: correspondence of each view but the last with the next, by exact depth.
    """

    path: Path
    truth: Float[Tensor, "V 3 H W"]
    warp: Warp


def path_lesson(sample: AgreementSample, generator: torch.Generator | None = None) -> PathLesson:
    """The sample's path; with a generator mirrored or not, its colours permuted or not, some views kept as rendered."""
    truth, frames, rendered, signals = (
        part.float() / 255 for part in (sample.truth, sample.frames, sample.rendered, sample.signals)
    )
    inverse_depth, depth = sample.inverse_depth.float(), sample.depth.float()
    views, _, height, width = truth.shape
    cameras = Cameras(sample.c2w.double(), sample.K.double(), height, width)
    neighbours = neighbours_of(cameras)
    warp = neighbour_warp(depth, cameras)
    if generator is not None:
        kept = torch.rand(views, 1, 1, generator=generator) < KEPT
        frames = torch.where(kept[:, None], rendered, frames)
        inverse_depth = torch.where(kept, sample.rendered_inverse_depth.float(), inverse_depth)
        mirror, permute = (torch.rand(2, generator=generator) < 0.5).tolist()
        order = torch.randperm(3, generator=generator)
        if permute:
            truth, frames, rendered = truth[:, order], frames[:, order], rendered[:, order]
        if mirror:
            truth, frames, rendered, signals, inverse_depth = (
                part.flip(-1) for part in (truth, frames, rendered, signals, inverse_depth)
            )
            # x -> W - x on both sides of each way.
            flip = torch.tensor([[-1.0, 0, width], [0, 1, 0], [0, 0, 1]])
            neighbours = replace(neighbours, A=flip @ neighbours.A @ flip, b=neighbours.b @ flip.T)
            warp = mirrored(warp)
    path = Path(
        frames=frames,
        rendered=rendered,
        signals=signals,
        inverse_depth=inverse_depth.clamp_min(1e-6),
        neighbours=neighbours,
    )
    return PathLesson(path=path, truth=truth, warp=warp)


def agreement_loss(
    network: Agreement,
    given: PathLesson,
    lpips: Lpips | None = None,
    lpips_weight: float = 0.0,
    motion_weight: float = 1.0,
) -> Float[Tensor, ""]:
    """The loss of the module's equation."""
    # The cache of cast weights is one for all threads: kept, sums over views would depend on who else is at work.
    with in_bfloat16(given.truth.device, cache_enabled=False):
        frames = torch.stack([network(given.path, view) for view in range(len(given.truth))])
    error = frames - given.truth
    loss = picture_loss(frames, given.truth, lpips, lpips_weight)
    return loss + motion_weight * flicker(error, given.warp)


def train_agreement(
    network: Agreement,
    samples: Sequence[AgreementSample],
    schedule: Schedule,
    folder: FilePath,
    *,
    deadline_s: float,
    workers: int = 2,
    lpips: Lpips | None = None,
    lpips_weight: float = 0.0,
    motion_weight: float = 1.0,
    notes: Mapping[str, int] | None = None,
    on_log: Callable[[Run[Agreement]], None] | None = None,
    validate_every_s: float = 120.0,
) -> Run[Agreement]:
    """Trains the network on the CPU, each path of a batch in a thread of its own.

    Args:
        network: trained in place.
        samples: training samples of any sizes, with at least two views each.
        schedule: see `Schedule`.
        folder: checkpoint and curve.
        deadline_s: stop (and save) after so many seconds; call again to go on.
        workers: threads.
        lpips: the metric, where it is part of the loss.
        lpips_weight: its weight.
        motion_weight: weight of the flicker term.
        notes: kept with a new run's checkpoint.
        on_log: called every `validate_every_s` and at the end.
        validate_every_s: seconds between.
    """

    def loss(sample: AgreementSample, generator: torch.Generator) -> Float[Tensor, ""]:
        return agreement_loss(network, path_lesson(sample, generator), lpips, lpips_weight, motion_weight)

    run = Run(network, network.parameters(), schedule, folder, notes)
    return follow_in_threads(
        run, samples, loss, deadline_s=deadline_s, workers=workers, on_log=on_log, validate_every_s=validate_every_s
    )


@torch.inference_mode()
def validate_agreement(network: Agreement, samples: Sequence[AgreementSample]) -> dict[str, float]:
    """PSNR in dB, and disagreement of neighbours over the truth's, of frames before and after."""
    squares: dict[str, list[Tensor]] = {"before": [], "after": []}
    disagreement: dict[str, list[float]] = {"before": [], "after": [], "truth": []}
    for sample in samples:
        given = path_lesson(sample)
        after = torch.stack([network(given.path, view) for view in range(len(given.truth))]).clamp(0, 1)
        for name, frames in (("before", given.path.frames), ("after", after), ("truth", given.truth)):
            if name != "truth":
                squares[name].append((frames - given.truth).square().flatten())
            error = warp_error(frames, given.warp)
            if error is not None:
                disagreement[name].append(error)
    truth = max(sum(disagreement["truth"]), 1e-9)
    return {
        f"{name}_{what}": value
        for name, parts in squares.items()
        for what, value in (
            ("db", round(float(-10 * torch.cat(parts).mean().log10()), 3)),
            ("reprojection_ratio", round(sum(disagreement[name]) / truth, 3)),
        )
    }
