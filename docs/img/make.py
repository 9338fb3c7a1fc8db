"""Makes the README's picture: two real photos, the view half way between them, and its plan.

python docs/img/make.py [OUT.png]

The plan is the embedded pair's own at quality 0.97. The last line of output is the plan in a sentence.
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

TITLES = ("left photo", "rendered: no camera was here", "cells that were refined", "right photo")


def main(out: Path) -> None:
    """Renders the demo's middle view and writes the sheet."""
    capture = read_capture("demo")
    height, width = capture.default_size()
    scene = capture.load([0, 1], height, width)
    middle = interpolate_path(scene.cameras, 3)[1]
    result = load_preset()(scene, middle, quality=0.97)
    plan = plan_picture(result.frames[0], result.plan.start_step[0], result.plan.num_steps)
    plan = media.resize(plan[None], height, round(plan.shape[-1] * height / plan.shape[-2]))[0]
    row = [scene.images[0], result.frames[0], plan, scene.images[1]]
    media.write_png(out, contact_sheet([row[:2], row[2:]], [TITLES[:2], TITLES[2:]]))
    dense = sum(step.dense for step in result.steps)
    sys.stdout.write(f"{result.plan.reason}; {len(result.steps)} network calls, {dense} of them dense\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).with_name("demo.png"))
