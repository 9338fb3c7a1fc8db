"""`sphinx-nvs scene make` and `scene inspect`: scenes out of nothing, and what is in a scene."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import numpy as np
from jaxtyping import Float
from torch import Tensor

from sphinx_nvs import media
from sphinx_nvs.cli.options import SceneMake
from sphinx_nvs.cli.output import check_output, folder_beside
from sphinx_nvs.cli.sizes import height_width_from
from sphinx_nvs.errors import InputError
from sphinx_nvs.scene.procedural import procedural_views
from sphinx_nvs.scene.transforms import write_transforms

LEAST_VIEWS = 3
"""Two context views and one to hold out."""


def make(options: SceneMake) -> None:
    """Makes a procedural scene: images/, depth/ (float32 z-depth in world units, .npy), transforms.json, a split.

    The world is the one that `procedural:KIND:SEED` names.

    Raises:
        InputError: a size, seed or number of views that cannot be.
        OutputError: the folder cannot be written.
    """
    height, width = height_width_from(options.size)
    if options.views < LEAST_VIEWS:
        raise InputError("--views", f"{options.views} are asked for", f"ask for at least {LEAST_VIEWS}")
    if options.seed < 0:
        raise InputError("--seed", f"it is {options.seed}", "give a whole number from 0")
    check_output(options.out, options.overwrite)
    rgb, depth, cameras, world = procedural_views(
        options.seed, options.views, height, width, options.kind, split="test"
    )
    with folder_beside(options.out) as folder:
        names = [f"images/{index:03d}.png" for index in range(options.views)]
        for name, image in zip(names, rgb, strict=True):
            media.write_png(folder / name, image)
        for index, z in enumerate(depth):
            _write_depth(folder / "depth" / f"{index:03d}.npy", z)
        write_transforms(folder / "transforms.json", cameras, names)
        split = {"train_ids": [0, options.views - 1], "test_ids": list(range(1, options.views - 1))}
        media.write_bytes(folder / "train_test_split_2.json", json.dumps(split).encode())
    made = {
        "out": str(options.out),
        "kind": world.kind,
        "seed": options.seed,
        "views": options.views,
        "size": f"{width}x{height}",
    }
    text = f"{world.kind} {options.seed}: {options.views} views of {width}x{height} with depth: {options.out}"
    sys.stdout.write(f"{json.dumps(made) if options.json else text}\n")


def _write_depth(path: Path, depth: Float[Tensor, "H W"]) -> None:
    buffer = io.BytesIO()
    np.save(buffer, depth.float().cpu().numpy())
    media.write_bytes(path, buffer.getvalue())
