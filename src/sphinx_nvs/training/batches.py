"""From stored samples to training batches: augmentation, latents, conditioning.

A batch holds scenes of one view count and one context count, so that rows stack. Augmentation keeps the geometry true:
mirroring flips images and cameras together, dropped targets shorten the sequence, colours are permuted as a whole.

Shapes: B scenes, N views (V_c context first), C latent channels, h w cells.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from sphinx_nvs.geometry.cameras import Cameras
from sphinx_nvs.models.nano import Nano, NanoConditioning, relative_plucker, signal_maps
from sphinx_nvs.training.samples import Sample, load_samples


@dataclass(frozen=True, kw_only=True)
class Example:
    """One scene ready for the network.

    Args:
        conditioning: what the network is told.
        truth: latents of the true target views.
    """

    conditioning: NanoConditioning
    truth: Float[Tensor, "V C h w"]


class Pool:
    """All samples of a folder of shards, grouped by context count; `refresh` takes in shards written since."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.groups: dict[int, list[Sample]] = defaultdict(list)
        self._read: set[Path] = set()
        self.refresh()

    def __len__(self) -> int:
        return sum(len(group) for group in self.groups.values())

    def refresh(self) -> None:
        """Reads shards that were not there before, in order of name."""
        for path in sorted(self.folder.glob("*.safetensors")):
            if path in self._read:
                continue
            self._read.add(path)
            for sample in load_samples(path):
                self.groups[int(sample.num_context)].append(sample)

    def draw(self, count: int, generator: torch.Generator) -> list[Sample]:
        """`count` samples of one context count, groups weighted by their size."""
        keys = sorted(self.groups)
        sizes = torch.tensor([float(len(self.groups[k])) for k in keys])
        group = self.groups[keys[int(torch.multinomial(sizes, 1, generator=generator))]]
        return [group[i] for i in torch.randint(len(group), (count,), generator=generator).tolist()]

    def each(self) -> Iterator[Sample]:
        """Every sample once."""
        for key in sorted(self.groups):
            yield from self.groups[key]


def example_from_sample(nano: Nano, sample: Sample, generator: torch.Generator | None, drop: int = 0) -> Example:
    """Encodes one sample; with a generator, mirrors it and permutes its colours at random and drops `drop` targets."""
    num_context = int(sample.num_context)
    rgb, render, signals = (t.float() / 255 for t in (sample.rgb, sample.render, sample.signals))
    c2w, K = sample.c2w.double(), sample.K.double()
    keep = list(range(len(rgb)))
    if generator is not None:
        order = torch.randperm(len(rgb) - num_context, generator=generator)[: len(rgb) - num_context - drop]
        keep = list(range(num_context)) + sorted((order + num_context).tolist())
        if torch.rand((), generator=generator) < 0.5:
            rgb, render, signals, c2w, K = _mirrored(rgb, render, signals, c2w, K)
        if torch.rand((), generator=generator) < 0.3:
            colours = torch.randperm(3, generator=generator)
            rgb, render = rgb[:, colours], render[:, colours]
    cameras = Cameras(c2w[keep], K[keep], rgb.shape[-2], rgb.shape[-1])
    targets = keep[num_context:]
    z_context, truth, z_render = (
        nano.encode(rgb[:num_context]),
        nano.encode(rgb[targets]),
        nano.encode(render[targets]),
    )
    alpha, confidence, disagreement = signals[targets].unbind(1)
    maps = signal_maps(alpha, confidence, disagreement, nano.factor)
    rays = relative_plucker(cameras, float(sample.depth_unit), *truth.shape[-2:])
    return Example(conditioning=nano.assemble(z_context, z_render, maps, rays), truth=truth)


def _mirrored(
    rgb: Tensor, render: Tensor, signals: Tensor, c2w: Float[Tensor, "N 4 4"], K: Float[Tensor, "N 3 3"]
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The scene in a mirror: images flipped left to right, world and camera x axes reversed."""
    flip = torch.diag(torch.tensor([-1.0, 1, 1, 1], dtype=c2w.dtype))
    mirrored_K = K.clone()
    mirrored_K[:, 0, 2] = rgb.shape[-1] - K[:, 0, 2]
    return rgb.flip(-1), render.flip(-1), signals.flip(-1), flip @ c2w @ flip, mirrored_K
