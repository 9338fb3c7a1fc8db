"""How good frames are: metrics against ground truth, trivial baselines, pictures of plans."""

from sphinx_nvs.evaluation.baselines import cross_fade, nearest_context
from sphinx_nvs.evaluation.heatmap import plan_picture
from sphinx_nvs.evaluation.metrics import ViewMetrics, mean_metrics, measure, psnr, ssim

__all__ = ["ViewMetrics", "cross_fade", "mean_metrics", "measure", "nearest_context", "plan_picture", "psnr", "ssim"]
