"""World and camera path in one call: posed images with exact depth, from one seed."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from sphinx_nvs.geometry.cameras import Cameras
from sphinx_nvs.procedural.camera_paths import make_path
from sphinx_nvs.procedural.layout import make_world
from sphinx_nvs.procedural.world import World


def procedural_views(
    seed: int,
    num_views: int,
    height: int,
    width: int,
    kind: str = "mixed",
    *,
    motion: str = "mixed",
    split: str = "train",
    supersample: int = 2,
) -> tuple[Float[Tensor, "V 3 H W"], Float[Tensor, "V H W"], Cameras, World]:
    """Images (sRGB in [0, 1]), z-depth (world units), cameras and the world they show.

    Args:
        seed: any integer from 0; the same seed gives bit-equal images on one machine.
        num_views: number of cameras along the path.
        height: image height, pixels.
        width: image width, pixels.
        kind: see `make_world`.
        motion: see `make_path`.
        split: see `make_world`.
        supersample: see `World.render`.

    Raises:
        InputError: as for `make_world`, `make_path` and `World.render`.
    """
    world = make_world(seed, kind, split)
    cameras = make_path(world, num_views, motion, height=height, width=width)
    rgb, depth = world.render(cameras, supersample)
    return rgb, depth, cameras, world
