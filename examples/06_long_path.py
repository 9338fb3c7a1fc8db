"""Render a path that is longer than the denoiser's window: anchors first, then the frames between them.

python examples/06_long_path.py     writes out/06_long_path.png and out/06_long_path.mp4
"""

from pathlib import Path

import torch

from sphinx_nvs import camera_path, load_preset, read_scene
from sphinx_nvs.long_paths.long_path import run_path
from sphinx_nvs.media import write_png, write_video
from sphinx_nvs.visualization.contact_sheet import contact_sheet

scene = read_scene("demo", [0, 1], height=96, width=128)
path = camera_path("interpolate", scene.cameras, 16)

frames, titles = torch.empty(len(path), 3, 96, 128), [""] * len(path)
for made in run_path(load_preset(num_steps=10), scene, path, window=8, strategy="interp"):
    targets = list(made.unit.targets)
    print(f"unit {made.unit.index}: frames {targets}, after units {list(made.unit.depends_on)}")
    frames[targets] = made.frames
    for target in targets:
        titles[target] = f"frame {target}, unit {made.unit.index}"

rows = [list(frames[i : i + 4]) for i in range(0, 16, 4)]
write_png(Path("out/06_long_path.png"), contact_sheet(rows, [titles[i : i + 4] for i in range(0, 16, 4)]))
write_video(Path("out/06_long_path.mp4"), frames, fps=8)
