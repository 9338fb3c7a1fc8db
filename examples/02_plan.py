"""Look at a plan: which cells are refined, from which solver step on, in how many network calls.

    python examples/02_plan.py          writes out/02_plan.png

The plan is by the paper's rules, which select cells by the render's uncertainty.
"""

from dataclasses import replace
from pathlib import Path

from sphinx_nvs import camera_path, load_preset, read_scene
from sphinx_nvs.media import write_png
from sphinx_nvs.plan import PAPER_PROFILE
from sphinx_nvs.visualization.heatmap import plan_picture

scene = read_scene("demo", [0, 1], height=192, width=288)
middle = camera_path("interpolate", scene.cameras, 3)[1]
pipeline = replace(load_preset(), profile=PAPER_PROFILE)

planned = pipeline.plan(scene, middle)  # stages 1 to 4: nothing is refined yet
plan = planned.plan
print(plan.reason)
print("start steps", plan.start_step.unique().tolist(), "of", plan.num_steps, "steps; dense at", plan.dense_steps)

result = pipeline.run(planned)  # stages 5 to 8
print("calls:", ", ".join("dense" if step.dense else f"sparse ({step.computed_cells} cells)" for step in result.steps))
write_png(Path("out/02_plan.png"), plan_picture(result.frames[0], plan.start_step[0], plan.num_steps))
