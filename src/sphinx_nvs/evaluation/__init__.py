"""Evaluation of frame quality and speed: metrics, methods, data sets, harness, report, and trivial baselines.

    image_metrics, structure, perceptual, optional, fidelity, consistency    metrics, by family
    registry                 the metrics by name
    regions                  image regions in which metrics are computed
    methods, datasets        methods to compare, and scenes to compare them on
    harness, timing, energy  measurement of one case
    statistics, front        confidence intervals over scenes, S@x and hypervolume
    result_summary, result_rows, html_report    outputs computed from all cases' files

`run_evaluation.evaluate` runs everything.
"""

from sphinx_nvs.evaluation.baselines import cross_fade, nearest_context
from sphinx_nvs.evaluation.image_metrics import ViewMetrics, mean_metrics, measure, psnr, ssim
from sphinx_nvs.visualization.heatmap import plan_picture

__all__ = ["ViewMetrics", "cross_fade", "mean_metrics", "measure", "nearest_context", "plan_picture", "psnr", "ssim"]
