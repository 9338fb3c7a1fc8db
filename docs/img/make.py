"""Makes the README's picture: two real photos, the view half way between them, and the plan of a path.

python docs/img/make.py [OUT.png]

The plan is the embedded pair's own at the default quality, for a path from one photo to the other. The last line of
output is the plan in a sentence.
"""

from __future__ import annotations

import sys
from pathlib import Path

from sphinx_nvs import media
from sphinx_nvs.evaluation import plan_picture
from sphinx_nvs.geometry import interpolate_path
from sphinx_nvs.presets import load_preset
from sphinx_nvs.scene import read_capture
from sphinx_nvs.visualization.contact_sheet import contact_sheet

FRAMES, SHOWN = 9, (1, 4, 7)
"""Frames of the path, and those of them whose plan is shown."""


def main(out: Path) -> None:
    """Renders the demo's path and writes the sheet."""
    capture = read_capture("demo")
    height, width = capture.default_size()
    scene = capture.load([0, 1], height, width)
    result = load_preset()(scene, interpolate_path(scene.cameras, FRAMES))
    plans, titles = [], []
    for frame in SHOWN:
        start_step = result.plan.start_step[frame]
        plan = plan_picture(result.frames[frame], start_step, result.plan.num_steps)
        # Without the legend beside the enlarged frame.
        enlarged = plan[..., : width * plan.shape[-2] // height]
        plans.append(media.resize(enlarged[None], height, width)[0])
        refined = float((start_step < result.plan.num_steps).double().mean())
        titles.append(f"frame {frame + 1} of {FRAMES}: {refined:.0%} of cells refined")
    middle = result.frames[FRAMES // 2]
    photos = [scene.images[0], middle, scene.images[1]]
    names = ["left photo", "half way: no camera was here", "right photo"]
    media.write_png(out, contact_sheet([photos, plans], [names, titles]))
    sys.stdout.write(f"{result.plan.reason}; {len(result.steps)} network calls\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).with_name("demo.png"))
