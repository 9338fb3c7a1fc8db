"""How good frames are, and how fast: metrics, methods by name, data sets, harness, report; trivial baselines.

metrics, structure, perceptual, optional, fidelity, consistency    one family each; `registry` has them by name
regions                  where they are measured
methods, datasets        what is compared, and on what
harness, timing, energy  one case, measured
statistics, front        intervals over scenes, S@x and hypervolume
summary, rows, report    what is made of all cases' files; `evaluate` is the whole
"""

from sphinx_nvs.evaluation.baselines import cross_fade, nearest_context
from sphinx_nvs.evaluation.metrics import ViewMetrics, mean_metrics, measure, psnr, ssim
from sphinx_nvs.visualization.heatmap import plan_picture

__all__ = ["ViewMetrics", "cross_fade", "mean_metrics", "measure", "nearest_context", "plan_picture", "psnr", "ssim"]
