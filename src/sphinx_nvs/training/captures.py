"""Training samples from posed photo sequences: views of a stretch, and depth from all of a sequence's photos.

A sample shows a few context photos; the other photos of its sequence say what they leave open. A plane sweep of every
photo with its neighbours in place and direction, the targets themselves among them, gives inverse depth where two
views agree on it, so that the search learns from real surfaces as it does from procedural ones.

World units differ from capture to capture. A sample's are such that the median depth is `MEDIAN_DEPTH`, and its origin
lies amid the cameras, so that single precision holds both.

Shapes: M photos of a capture, N views of a sample (context first), H W pixels, h w pixels of the neighbours' depth.
"""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float, Float32
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor

from sphinx_nvs.errors import InputError
from sphinx_nvs.geometry.cameras import Cameras
from sphinx_nvs.media import float_from_uint8, uint8_from_float
from sphinx_nvs.models import planesweep
from sphinx_nvs.models.embedded.denoiser import Nano
from sphinx_nvs.scene import Capture
from sphinx_nvs.training.decoder import DecoderSample, exposed_apart, packed
from sphinx_nvs.training.samples import choose_context

MEDIAN_DEPTH, FURTHEST = 4.0, 1e4
DEPTH_SIDE = 96
"""Short side of the photos whose depth is searched, in pixels."""

NEIGHBOURS, DEPTH_PLANES = 4, 64
"""Photos that each photo is matched with for its depth, and planes at most."""

WIDEST_STRIDE = 4.0
"""Photos of a sequence from one view of a sample to the next, at most."""

OF_TWO = 0.35
"""Share of samples that have two context views however long they are."""

MOST_TARGETS = 4
FURTHEST_ZOOM = 1.6
"""The window of a training sample is cut from photos of which it takes at least 1 / this of the short side."""

COMPRESSED, WORST_JPEG, BEST_JPEG = 0.3, 25, 90
"""Share of training samples whose context photos are compressed once more, and between which JPEG qualities."""


@dataclass(frozen=True, kw_only=True, eq=False)
class SequenceDepth:
    """Depth of every photo of a capture.

    Args:
        inverse_depth: in 1 / world units of the capture, > 0.
        confidence: how well neighbours agree with it, [0, 1].
    """

    inverse_depth: Float32[Tensor, "M h w"]
    confidence: Float32[Tensor, "M h w"]


def sequence_depth(capture: Capture, size: tuple[int, int] | None = None) -> SequenceDepth:
    """Inverse depth of all photos by a plane sweep with their nearest neighbours.

    Args:
        capture: at least two photos from different places.
        size: height and width that the photos are matched at; None for a short side of `DEPTH_SIDE`.

    Raises:
        InputError: there is no parallax, or a photo cannot be read.
    """
    scene = capture.load(range(len(capture)), *(size or capture.default_size(DEPTH_SIDE, 8)))
    config = planesweep.PlaneSweepConfig(num_sources=NEIGHBOURS, max_planes=DEPTH_PLANES)
    found = planesweep.PlaneSweep(config).reconstruct(scene)
    return SequenceDepth(inverse_depth=found.inverse_depth.float(), confidence=found.confidence.float())


def kept_depth(capture: Capture, folder: Path) -> SequenceDepth:
    """`sequence_depth`, computed once and then read from `folder`."""
    path = folder / f"{capture.name}.safetensors"
    if not path.exists():
        depth = sequence_depth(capture)
        folder.mkdir(parents=True, exist_ok=True)
        beside = path.with_suffix(".partial")
        save_file({name: value.contiguous() for name, value in vars(depth).items()}, beside)
        beside.replace(path)
    return SequenceDepth(**load_file(path))


def training_captures(folder: Path, split: str) -> list[Path]:
    """The captures of a folder that belong to a split, in order of names.

    `splits.json` in the folder maps names to splits; without it all captures belong to every split. Captures with test
    splits of their own (`train_test_split_N.json`) are for measuring and never belong to `train`.

    Raises:
        InputError: the folder holds none, or `splits.json` cannot be used.
    """
    paths = sorted(path.parent for path in folder.glob("*/transforms.json"))
    listed = folder / "splits.json"
    if listed.exists():
        splits = json.loads(listed.read_text())
        if not isinstance(splits, dict):
            raise InputError(f"splits {listed}", "it is no object", "map names of captures to train or val")
        paths = [path for path in paths if splits.get(path.name) == split]
    if split == "train":
        paths = [path for path in paths if not any(path.glob("train_test_split_*.json"))]
    if not paths:
        raise InputError(
            f"captures {folder}",
            f"none is for split {split}",
            "name a folder of captures with transforms.json each, without test splits for training",
        )
    return paths


def choose_stretch(length: int, num_views: int, generator: torch.Generator) -> list[int]:
    """Views of a sequence, ascending and about evenly apart: mostly close together, sometimes `WIDEST_STRIDE` apart.

    Args:
        length: photos of the sequence.
        num_views: how many views to choose, at most `length`.
        generator: source of the random numbers.
    """
    widest = min((length - 1) / (num_views - 1), WIDEST_STRIDE)
    # Squaring the draw favours neighbouring photos, which most paths are rendered between.
    stride = widest ** (float(torch.rand((), generator=generator)) ** 2)
    span = round(stride * (num_views - 1))
    start = int(torch.randint(length - span, (), generator=generator))
    return [start + round(i * span / (num_views - 1)) for i in range(num_views)]


def make_capture_sample(
    nano: Nano,
    capture: Capture,
    depth: SequenceDepth,
    seed: int,
    split: str = "train",
    num_views: int = 8,
    size: int = 128,
) -> DecoderSample | None:
    """One sample of a capture, the same for the same weights and arguments.

    Args:
        nano: whose pictures the decoder learns from.
        capture: the sequence.
        depth: depth of its photos.
        seed: which sample.
        split: `train` varies zoom, window, exposure and compression; any other split shows the middle of the photos.
        num_views: context and target views together, at most; samples have three or more.
        size: height and width in pixels.

    Returns:
        None where the capture has fewer than three photos, or the context photos say nothing about the targets.
    """
    generator = torch.Generator().manual_seed(seed * 7919 + 5)
    most = min(num_views, len(capture))
    if most < 3:
        return None
    num_views = int(torch.randint(3, most + 1, (), generator=generator))
    stretch = choose_stretch(len(capture), num_views, generator)
    of_two = bool(torch.rand((), generator=generator) < OF_TWO)
    order, count = choose_context(num_views, generator, 2 if of_two else None)
    chosen = [stretch[place] for place in _fewer_targets(order, count, generator)]
    draws = torch.rand(3, generator=generator) if split == "train" else torch.tensor([0.0, 0.5, 0.5])
    rgb, cameras, maps = _window(capture, depth, chosen, size, draws)
    if split == "train":
        # In a camera's order: exposure, then JPEG. The targets stay as they are: they are what is to be learnt.
        rgb[:count] = compressed(exposed_apart(rgb[:count], generator), generator)
    inverse_depth, confidence = maps.unbind(1)
    cameras, unit = _in_units(cameras, inverse_depth, confidence)
    true_depth = (1 / (inverse_depth * unit)).clamp_max(FURTHEST)
    return packed(nano, capture.name, rgb, true_depth, confidence, cameras, count, generator)


def _fewer_targets(order: Sequence[int], count: int, generator: torch.Generator) -> list[int]:
    """The context views and at most `MOST_TARGETS` targets that follow one another."""
    targets = order[count:]
    first = int(torch.randint(max(1, len(targets) - MOST_TARGETS + 1), (), generator=generator))
    return [*order[:count], *targets[first : first + MOST_TARGETS]]


def _window(
    capture: Capture, depth: SequenceDepth, chosen: Sequence[int], size: int, draws: Float[Tensor, "3"]
) -> tuple[Float[Tensor, "N 3 H W"], Cameras, Float[Tensor, "N 2 H W"]]:
    """A square window of the chosen photos, the same in all: pictures, cameras, inverse depth and confidence.

    `draws` in [0, 1] are the zoom, and where the window lies across and down.
    """
    low = min(depth.inverse_depth.shape[1:])
    stored = min(min(view.height, view.width) for view in capture.views)
    zoom = min(FURTHEST_ZOOM ** float(draws[0]), max(1.0, stored / size))
    height, width = (round(side * size * zoom / low) for side in depth.inverse_depth.shape[1:])
    scene = capture.load(chosen, height, width)
    maps = torch.stack([depth.inverse_depth, depth.confidence], 1)[list(chosen)]
    # Nearest, because a mean of two surfaces' depths is a surface that is not there.
    maps = F.interpolate(maps, size=(height, width), mode="nearest-exact")
    left, top = round(float(draws[1]) * (width - size)), round(float(draws[2]) * (height - size))
    rows, columns = slice(top, top + size), slice(left, left + size)
    return (
        scene.images[..., rows, columns].clone(),
        scene.cameras.cropped(top, left, size, size),
        maps[..., rows, columns],
    )


def _in_units(
    cameras: Cameras, inverse_depth: Float[Tensor, "N H W"], confidence: Float[Tensor, "N H W"]
) -> tuple[Cameras, float]:
    """The cameras in a sample's units, and a sample's unit in the capture's."""
    sure = inverse_depth[confidence > 0.5]
    unit = float(1 / (sure if len(sure) else inverse_depth.flatten()).median()) / MEDIAN_DEPTH
    c2w = cameras.c2w.clone()
    c2w[:, :3, 3] = (c2w[:, :3, 3] - c2w[:, :3, 3].mean(0)) / unit
    return Cameras(c2w, cameras.K, cameras.height, cameras.width), unit


def compressed(photos: Float[Tensor, "C 3 H W"], generator: torch.Generator) -> Float[Tensor, "C 3 H W"]:
    """Some samples' photos after JPEG of one quality; the others' as they are."""
    if torch.rand((), generator=generator) >= COMPRESSED:
        return photos
    quality = int(torch.randint(WORST_JPEG, BEST_JPEG + 1, (), generator=generator))
    return torch.stack([_through_jpeg(photo, quality) for photo in photos])


def _through_jpeg(photo: Float[Tensor, "3 H W"], quality: int) -> Float[Tensor, "3 H W"]:
    data = io.BytesIO()
    Image.fromarray(uint8_from_float(photo).permute(1, 2, 0).numpy()).save(data, "JPEG", quality=quality)
    # A bytearray, because torch wants memory that can be written.
    pixels = torch.frombuffer(bytearray(Image.open(data).convert("RGB").tobytes()), dtype=torch.uint8)
    return float_from_uint8(pixels.view(*photo.shape[1:], 3).permute(2, 0, 1).contiguous())


def origin(folder: Path) -> dict[str, str]:
    """Where a capture comes from, for the card of what learns from it: what its README says of source and licence."""
    stated = {"source": "not stated", "licence": "not stated"}
    readmes = [path for path in (folder / "README", folder / "README.md", folder / "README.txt") if path.is_file()]
    lines = readmes[0].read_text(errors="replace").splitlines() if readmes else []
    for name in stated:
        said = [line.partition(":")[2].strip() for line in lines if line.lower().startswith(name) and ":" in line]
        stated[name] = said[0] if said else stated[name]
    return stated
