"""`sphinx-nvs scene make` and `scene inspect`: procedural scenes, and the contents of a scene."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import numpy as np
from jaxtyping import Float
from torch import Tensor

from sphinx_nvs import media
from sphinx_nvs.cli.options.render_options import SceneInspect, SceneMake
from sphinx_nvs.cli.output import SCENE, check_output, check_photos_kept, folder_beside
from sphinx_nvs.cli.sizes import height_width_from
from sphinx_nvs.errors import InputError
from sphinx_nvs.json_types import JSONObject
from sphinx_nvs.procedural import procedural_views
from sphinx_nvs.scene import read_capture
from sphinx_nvs.scene.conventions import convention_warnings
from sphinx_nvs.scene.diagnostics import describe
from sphinx_nvs.scene.transforms import write_transforms

LEAST_VIEWS = 3
"""Two context views and one held-out view."""


def make(options: SceneMake) -> None:
    """Writes a procedural scene: images/, depth/ (float32 z-depth in world units, .npy), transforms.json, a split.

    The world is `procedural:KIND:SEED`.

    Raises:
        InputError: a size, seed or number of views is invalid.
        OutputError: the folder cannot be written.
    """
    height, width = height_width_from(options.size)
    if options.views < LEAST_VIEWS:
        raise InputError("--views", f"it is {options.views}", f"give at least {LEAST_VIEWS}")
    if options.seed < 0:
        raise InputError("--seed", f"it is {options.seed}", "give a whole number from 0")
    check_output(options.out, options.overwrite, command=SCENE)
    rgb, depth, cameras, world = procedural_views(
        options.seed, options.views, height, width, options.kind, split="test"
    )
    with folder_beside(options.out, SCENE) as folder:
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


def inspect(options: SceneInspect) -> None:
    """Prints a scene's properties and the problems that will degrade its renders; optionally draws its cameras.

    Raises:
        InputError: the scene cannot be read.
        OutputError: the plot cannot be written.
    """
    if options.plot is not None:
        check_output(options.plot, options.overwrite, Path(options.scene), ending=".png")
    capture = read_capture(options.scene)
    if options.plot is not None:
        check_photos_kept(options.plot, capture)
    description = describe(capture)
    description["warnings"] += convention_warnings(capture)
    if options.plot is not None:
        # Matplotlib takes a second to load.
        from sphinx_nvs.visualization.frusta import write_frusta

        write_frusta(options.plot, capture, min(capture.splits, default=None))
        description["plot"] = str(options.plot)
    sys.stdout.write(f"{json.dumps(description) if options.json else table_of(description)}\n")


def table_of(description: JSONObject) -> str:
    """A description as lines of `field  value`, warnings last."""
    size, fov, baseline = description["sizes"], description["fov_deg"], description["baseline"]
    angle = description["neighbour_angle_deg"]
    rows = [
        ("scene", f"{description['name']} ({description['layout']})"),
        ("views", f"{description['views']}, {description['images']} with a photo"),
        ("sizes", ", ".join(f"{count} of {wxh}" for wxh, count in size.items())),
        ("renders at", f"{description['default_size']} by default, or larger where that is quick"),
        ("lens", "distorted (undistorted on reading)" if description["distorted"] else "pinhole"),
        ("angle of view", f"{fov['horizontal']['median']:.0f} x {fov['vertical']['median']:.0f} degrees"),
        ("neighbours", f"{angle['median']:.1f} degrees apart (median), {angle['max']:.1f} at most"),
        ("baselines", f"{baseline['median']:.3g} (median of neighbours), {baseline['largest']:.3g} at most"),
        ("scene distance", f"about {description['focus_distance']:.3g}, in the same units"),
        *((f"split {number}", _split_row(split)) for number, split in description["splits"].items()),
        *(("note", note) for note in description["notes"]),
        *(("warning", warning) for warning in description["warnings"]),
        *([("plot", description["plot"])] if "plot" in description else []),
    ]
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:<{width}}  {value}" for name, value in rows)


def _split_row(split: JSONObject) -> str:
    return f"context {', '.join(map(str, split['contexts']))}; {len(split['targets'])} views held out"
