"""From stored samples to training batches: augmentation, latents, conditioning; whole batches at once, on any device.

A batch holds scenes of one view count and one context count, so that rows stack. Augmentation keeps the geometry true:
mirroring flips images and cameras together, dropped targets shorten the sequence, colours are permuted as a whole.

Shapes: B scenes, N views (V_c context first), V targets, C latent channels, h w cells.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from sphinx_nvs.models.embedded.denoiser import Nano, NanoConditioning, signal_maps
from sphinx_nvs.training.samples import Sample, Samples, load_samples, stack_samples


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Scenes ready for the network.

    Args:
        truth: latents of the true target views.
        z_render: latents of the renders.
        sigma_data: expected spread of truth - z_render.
        features: network input beside the noisy latents (see `NanoConditioning`).
        plucker: rays.
    """

    truth: Float[Tensor, "B V C h w"]
    z_render: Float[Tensor, "B V C h w"]
    sigma_data: Float[Tensor, "B V C h w"]
    features: Float[Tensor, "B N F h w"]
    plucker: Float[Tensor, "B N 6 h w"]

    @property
    def num_context(self) -> int:
        """Rows that are known context views."""
        return self.features.shape[1] - self.truth.shape[1]

    def conditioning(self, scene: int) -> NanoConditioning:
        """Conditioning of one scene."""
        return NanoConditioning(
            features=self.features[scene],
            plucker=self.plucker[scene],
            z_render=self.z_render[scene],
            sigma_data=self.sigma_data[scene],
            num_context=self.num_context,
        )


@runtime_checkable
class Source(Protocol):
    """Where training samples come from."""

    def __len__(self) -> int:
        """How many are at hand."""

    def draw(self, count: int, generator: torch.Generator) -> Samples:
        """`count` samples that stack; the generator is the CPU's."""

    def refresh(self) -> dict[str, float]:
        """Takes in what was made since; called after every update. Returns figures for the log."""


class Pool:
    """All samples of a folder of shards, grouped by what they must share; `refresh` takes in shards written since."""

    def __init__(self, folder: Path, device: torch.device | str = "cpu") -> None:
        self.folder, self.device = folder, torch.device(device)
        self.groups: dict[tuple[int, int, int], list[Sample]] = defaultdict(list)
        self._read: set[Path] = set()
        self._updates = 0
        self._look()

    def __len__(self) -> int:
        return sum(len(group) for group in self.groups.values())

    def refresh(self) -> dict[str, float]:
        """Checks for new shards every fiftieth time."""
        self._updates += 1
        if self._updates % 50 == 0:
            self._look()
        return {}

    def _look(self) -> None:
        """Reads shards that were not there before, in order of name."""
        for path in sorted(self.folder.glob("*.safetensors")):
            if path in self._read:
                continue
            self._read.add(path)
            for sample in load_samples(path, Sample):
                self.groups[len(sample.rgb), int(sample.num_context), sample.rgb.shape[-1]].append(sample)

    def draw(self, count: int, generator: torch.Generator) -> Samples:
        """`count` samples of one group, groups weighted by their size."""
        # Sorted, so that the same seed draws the same samples in whatever order the groups came.
        keys = sorted(self.groups)
        sizes = torch.tensor([float(len(self.groups[k])) for k in keys])
        group = self.groups[keys[int(torch.multinomial(sizes, 1, generator=generator))]]
        chosen = torch.randint(len(group), (count,), generator=generator).tolist()
        return stack_samples([group[i] for i in chosen]).to(self.device)

    def each(self) -> Iterator[Sample]:
        """Every sample once."""
        for key in sorted(self.groups):
            yield from self.groups[key]


@torch.no_grad()
def batch_from_samples(nano: Nano, samples: Samples) -> Batch:
    """Encodes samples."""
    num_context = samples.num_context
    rgb, render, signals = (t.float() / 255 for t in (samples.rgb, samples.render[:, num_context:], samples.signals))
    z, z_render = _encoded(nano, rgb), _encoded(nano, render)
    targets = signals[:, num_context:].flatten(0, 1)
    alpha, confidence, disagreement = targets.unbind(1)
    maps = signal_maps(alpha, confidence, disagreement, nano.factor).unflatten(0, z_render.shape[:2])
    rays = relative_rays(samples.c2w, samples.K, samples.depth_unit, rgb.shape[-1], *z.shape[-2:])
    known = torch.tensor([1.0, 1.0, 1.0, 0.0, 1.0], device=z.device).view(1, 1, 5, 1, 1)
    known = known.expand(len(z), num_context, -1, *z.shape[-2:])
    hidden = torch.cat([maps, torch.zeros_like(maps[:, :, :1])], 2)
    latents = torch.cat([z[:, :num_context], z_render], 1)
    return Batch(
        truth=z[:, num_context:],
        z_render=z_render,
        sigma_data=nano.sigma_data(maps),
        features=torch.cat([latents, torch.cat([known, hidden], 1), rays], 2),
        plucker=rays,
    )


def _encoded(nano: Nano, images: Float[Tensor, "B N 3 H W"]) -> Float[Tensor, "B N C h w"]:
    return nano.encode(images.flatten(0, 1)).unflatten(0, images.shape[:2])


def augmented(samples: Samples, generator: torch.Generator | None, drop: int = 0) -> Samples:
    """Mirrors half of the scenes, permutes the colours of some, and drops `drop` targets of each, at random.

    Args:
        samples: what to vary.
        generator: on the samples' device; None for the global one.
        drop: targets to leave out, fewer than there are.
    """
    device, count = samples.rgb.device, len(samples)
    draws = torch.rand(count, samples.rgb.shape[1], generator=generator, device=device)
    samples = _kept(samples, draws, drop)
    samples = _mirrored(samples, torch.rand(count, generator=generator, device=device) < 0.5)
    order = torch.rand(count, 3, generator=generator, device=device).argsort(1)
    permuted = torch.rand(count, 1, generator=generator, device=device) < 0.3
    order = torch.where(permuted, order, torch.arange(3, device=device))
    index = order.view(count, 1, 3, 1, 1).expand_as(samples.rgb)
    return replace(samples, rgb=samples.rgb.gather(2, index), render=samples.render.gather(2, index))


def _kept(samples: Samples, draws: Float[Tensor, "B N"], drop: int) -> Samples:
    """All context views and all but `drop` targets, in order."""
    if not drop:
        return samples
    count, num_views = draws.shape
    draws = draws.clone()
    # Below every uniform draw, so that sorting keeps all context views.
    draws[:, : samples.num_context] = -1
    keep: Int64[Tensor, "B n"] = draws.argsort(1)[:, : num_views - drop].sort(1).values
    scene = torch.arange(count, device=keep.device)[:, None]
    names = ("rgb", "render", "signals", "c2w", "K")
    kept = {name: getattr(samples, name)[scene, keep] for name in names}
    return Samples(num_context=samples.num_context, depth_unit=samples.depth_unit, **kept)


def _mirrored(samples: Samples, chosen: Tensor) -> Samples:
    """The chosen scenes in a mirror: images flipped left to right, world and camera x axes reversed."""
    images = chosen.view(-1, 1, 1, 1, 1)
    flipped = {
        name: torch.where(images, getattr(samples, name).flip(-1), getattr(samples, name))
        for name in ("rgb", "render", "signals")
    }
    # F c2w F with F = diag(-1, 1, 1, 1) changes the sign of the first row and of the first column.
    sign = torch.ones(4, 4, device=chosen.device)
    sign[0], sign[:, 0] = -1, -1
    sign[0, 0] = 1
    c2w = torch.where(chosen.view(-1, 1, 1, 1), samples.c2w * sign, samples.c2w)
    K = samples.K.clone()
    K[..., 0, 2] = torch.where(chosen[:, None], samples.rgb.shape[-1] - K[..., 0, 2], K[..., 0, 2])
    return replace(samples, c2w=c2w, K=K, rgb=flipped["rgb"], render=flipped["render"], signals=flipped["signals"])


def relative_rays(
    c2w: Float[Tensor, "B N 4 4"],
    K: Float[Tensor, "B N 3 3"],
    depth_unit: Float[Tensor, "B"],
    side: int,
    height: int,
    width: int,
) -> Float[Tensor, "B N 6 h w"]:
    """`nano.relative_plucker` of every scene, on a height x width grid over images of `side` x `side` pixels."""
    device = c2w.device
    # In double precision: far from the origin, single loses the small differences between neighbouring poses.
    c2w = torch.linalg.inv(c2w[:, :1].double()) @ c2w.double()
    origins = (c2w[..., :3, 3] / depth_unit.double().view(-1, 1, 1)).float()[..., None]
    across = (torch.arange(width, device=device, dtype=torch.float64) + 0.5) * (side / width)
    down = (torch.arange(height, device=device, dtype=torch.float64) + 0.5) * (side / height)
    y, x = torch.meshgrid(down, across, indexing="ij")
    through = torch.stack([x, y, torch.ones_like(x)]).view(3, -1)
    directions = (c2w[..., :3, :3] @ torch.linalg.inv(K.double()) @ through).float()
    directions = directions / directions.norm(dim=-2, keepdim=True)
    moments = torch.linalg.cross(origins.expand_as(directions), directions, dim=-2)
    return torch.cat([directions, moments], -2).unflatten(-1, (height, width))
