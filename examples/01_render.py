"""Render a view between two photos: the regressor's render beside the refined frame.

python examples/01_render.py        writes out/01_render.png
"""

from pathlib import Path

from sphinx_nvs import camera_path, load_preset, read_scene
from sphinx_nvs.media import write_png
from sphinx_nvs.visualization.contact_sheet import contact_sheet

# The demo scene is a real stereo pair. Context views are photos 0 and 1; the target is half way between them.
scene = read_scene("demo", [0, 1], height=192, width=288)
middle = camera_path("interpolate", scene.cameras, 3)[1]

result = load_preset()(scene, middle, quality=0.98)
print(result.plan.reason)

row = [scene.images[0], result.prepared.render.rgb[0], result.frames[0], scene.images[1]]
titles = ["left photo", "regression", "refined", "right photo"]
write_png(Path("out/01_render.png"), contact_sheet([row[:2], row[2:]], [titles[:2], titles[2:]]))
