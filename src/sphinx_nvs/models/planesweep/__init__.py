"""The regressor without weights: plane-sweep stereo per context view, splats for geometry, warps for colour."""

from sphinx_nvs.models.planesweep.completion import CompletionConfig
from sphinx_nvs.models.planesweep.reconstruction import PlaneSweepReconstruction, RenderConfig
from sphinx_nvs.models.planesweep.regressor import PlaneSweep, PlaneSweepConfig

__all__ = [
    "CompletionConfig",
    "PlaneSweep",
    "PlaneSweepConfig",
    "PlaneSweepReconstruction",
    "RenderConfig",
]
