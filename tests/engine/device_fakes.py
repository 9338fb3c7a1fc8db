"""Stored scenes and jobs for devices."""

import json
from functools import cache

import numpy as np

from sphinx_nvs import media
from sphinx_nvs.engine.types.jobs import JobSpec
from sphinx_nvs.procedural import procedural_views


def store_scene(folder, *, seed=0, photos=2, size=64):
    """Photos of a procedural room and their cameras as a transforms.json; the cameras."""
    rgb, cameras = _views(seed, photos, size)
    folder.mkdir(parents=True)
    frames = []
    for index, image in enumerate(rgb):
        media.write_png(folder / f"{index}.png", image)
        c2w = cameras.c2w[index].numpy().astype(float) @ np.diag([1.0, -1.0, -1.0, 1.0])
        K = cameras.K[index]
        focal = {"fl_x": K[0, 0].item(), "fl_y": K[1, 1].item(), "cx": K[0, 2].item(), "cy": K[1, 2].item()}
        frames.append({"file_path": f"{index}.png", "transform_matrix": c2w.tolist(), **focal})
    (folder / "transforms.json").write_text(json.dumps({"w": size, "h": size, "frames": frames}))


@cache
def _views(seed, photos, size):
    rgb, _, cameras, _ = procedural_views(seed, photos, size, size, supersample=1)
    return rgb, cameras


def spec_from(cameras, **fields):
    """A job for these cameras."""
    return JobSpec(
        scene="scene",
        c2w=tuple(tuple(tuple(row) for row in matrix) for matrix in cameras.c2w.double().tolist()),
        K=tuple(tuple(tuple(row) for row in matrix) for matrix in cameras.K.double().tolist()),
        width=cameras.width,
        height=cameras.height,
        **fields,
    )
