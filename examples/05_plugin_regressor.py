"""Plug in a regressor: each target shows the nearest photo, and diffusion refines that.

python examples/05_plugin_regressor.py      writes out/05_plugin.png
"""

from dataclasses import dataclass
from pathlib import Path

import torch

from sphinx_nvs import Pipeline, Render, camera_path, read_scene
from sphinx_nvs.media import resize, write_png
from sphinx_nvs.models.embedded.shipped import load_nano
from sphinx_nvs.visualization.contact_sheet import contact_sheet


@dataclass(frozen=True)
class NearestPhoto:
    """A regressor and its own reconstruction: it needs the photos and nothing else."""

    scene: object = None
    name: str = "nearest-photo"
    min_context_views: int = 1

    def reconstruct(self, scene):
        return NearestPhoto(scene)

    def render(self, cameras):
        nearest = torch.cdist(cameras.centres, self.scene.cameras.centres).argmin(1)
        rgb = resize(self.scene.images[nearest], cameras.height, cameras.width)
        ones = torch.ones_like(rgb[:, 0])
        return Render(rgb=rgb, alpha=ones, depth=4 * ones, confidence=0.1 * ones, disagreement=0 * ones)


scene = read_scene("demo", [0, 1], height=128, width=192)
pipeline = Pipeline(regressor=NearestPhoto(), denoiser=load_nano(), num_steps=10)
result = pipeline(scene, camera_path("interpolate", scene.cameras, 3))
rows = [list(result.prepared.render.rgb), list(result.frames)]
write_png(Path("out/05_plugin.png"), contact_sheet(rows, [["nearest photo"] * 3, ["refined"] * 3]))
