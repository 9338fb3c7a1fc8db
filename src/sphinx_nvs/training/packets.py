"""Worlds on their way from the CPU, which lays them out, to the device that renders them.

A packet holds worlds with a camera path through each, reordered so that the context views come first, without textures
and without pictures: 15 kB a world and its shadow map. It says nothing of pixels: intrinsics are for an image of side
1.

Shapes: B worlds, N views of each.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float, Int32
from safetensors.torch import load_file, save_file
from torch import Tensor

from sphinx_nvs.procedural import make_path, make_world
from sphinx_nvs.procedural.batch import WorldBatch, pack_worlds, render_worlds
from sphinx_nvs.training.samples import Samples, choose_context, oracle_samples

# A default packet (32 worlds of 8 views) at 128 pixels is one rendering call; larger pictures take several.
_RAYS_AT_ONCE = 32 * 8 * 128**2


@dataclass(frozen=True, kw_only=True)
class Packet:
    """B worlds and the camera paths in them.

    Args:
        worlds: see `scene.procedural.batch`.
        c2w: poses, context first.
        K: intrinsics for an image of height and width 1.
        num_context: how many views of each are context.
        seed: seed of the packet.
    """

    worlds: WorldBatch
    c2w: Float[Tensor, "B N 4 4"]
    K: Float[Tensor, "B N 3 3"]
    num_context: int
    seed: int

    def __len__(self) -> int:
        return len(self.c2w)


def make_packet(seed: int, split: str = "train", num_worlds: int = 32, num_views: int = 8) -> Packet:
    """Packet number `seed`: worlds `seed * num_worlds` and so on, all with one number of context views."""
    # The names of the splits differ in length, so that no two splits draw the same numbers for a seed.
    generator = torch.Generator().manual_seed(seed * 6151 + len(split))
    _, num_context = choose_context(num_views, generator)
    worlds, poses, intrinsics = [], [], []
    for index in range(seed * num_worlds, (seed + 1) * num_worlds):
        world = make_world(index, split=split, textured=False)
        order, _ = choose_context(num_views, generator, num_context)
        cameras = make_path(world, num_views, height=128, width=128).resized(1, 1)[order]
        worlds.append(world)
        poses.append(cameras.c2w)
        intrinsics.append(cameras.K)
    return Packet(
        worlds=pack_worlds(worlds),
        c2w=torch.stack(poses),
        K=torch.stack(intrinsics),
        num_context=num_context,
        seed=seed,
    )


def save_packet(packet: Packet, path: Path) -> None:
    """Writes a packet, beside and then renamed."""
    tensors = {f"worlds.{name}": tensor for name, tensor in packet.worlds.tensors().items()}
    tensors |= {"c2w": packet.c2w, "K": packet.K, "kinds": torch.tensor(packet.worlds.kinds)}
    tensors["numbers"] = torch.tensor([packet.num_context, packet.seed])
    beside = path.with_suffix(".partial")
    save_file({k: v.contiguous() for k, v in tensors.items()}, beside)
    beside.replace(path)


def load_packet(path: Path) -> Packet:
    """What `save_packet` wrote."""
    tensors = load_file(path)
    num_context, seed = tensors["numbers"].tolist()
    parts = {key.removeprefix("worlds."): part for key, part in tensors.items() if key.startswith("worlds.")}
    worlds = WorldBatch(kinds=tuple(tensors["kinds"].tolist()), **parts)
    return Packet(worlds=worlds, c2w=tensors["c2w"], K=tensors["K"], num_context=num_context, seed=seed)


@torch.no_grad()
def samples_from_packet(packet: Packet, textures: Int32[Tensor, "M texels"], size: int) -> list[Samples]:
    """Renders a packet where the textures are, spoils its depth and renders that: samples, a few worlds at a time.

    Args:
        packet: from `make_packet`.
        textures: `library.all_tiles` of its split.
        size: height and width in pixels.
    """
    device = textures.device
    worlds = packet.worlds.to(device)
    scale = torch.tensor([size, size, 1.0], dtype=torch.float64, device=device).view(3, 1)
    c2w, K = packet.c2w.to(device), packet.K.to(device) * scale
    generator = torch.Generator(device).manual_seed(packet.seed)
    count = max(1, _RAYS_AT_ONCE // (packet.c2w.shape[1] * size**2))
    made = []
    for first in range(0, len(packet), count):
        part = slice(first, first + count)
        rgb, depth = render_worlds(worlds[part], textures, c2w[part], K[part], size, size)
        made.append(oracle_samples(rgb, depth, c2w[part], K[part], packet.num_context, generator))
    return made
