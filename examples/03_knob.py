"""Turn the knob: the same view by regression, at two qualities and by full diffusion, with PSNR and seconds.

python examples/03_knob.py          writes out/03_knob.png
"""

import time
from pathlib import Path

from sphinx_nvs import load_preset, read_capture
from sphinx_nvs.evaluation import psnr
from sphinx_nvs.media import write_png
from sphinx_nvs.visualization.contact_sheet import contact_sheet

capture = read_capture("procedural:3")  # a synthetic scene: every view has a photo to compare with
scene = capture.load([0, 7], height=128, width=128)
target = capture.load([4], height=128, width=128)
pipeline = load_preset(num_steps=25)

frames, titles = [target.images[0]], ["truth"]
requests = {
    "regression": {"method": "regression"},
    "0.95": {"quality": 0.95},
    "0.99": {"quality": 0.99},
    "diffusion": {"method": "diffusion"},
}
for name, request in requests.items():
    begun = time.perf_counter()
    result = pipeline(scene, target.cameras, **request)
    took = time.perf_counter() - begun
    frames.append(result.frames[0])
    titles.append(f"{name}: {float(psnr(result.frames, target.images)[0]):.1f} dB")
    print(f"{name}: {took:.2f} s; {result.plan.reason}")
write_png(Path("out/03_knob.png"), contact_sheet([frames], [titles]))
