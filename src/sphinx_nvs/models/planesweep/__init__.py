"""The zero-weights regressor: plane-sweep stereo per context view, splats for geometry, warps for colour."""

from sphinx_nvs.models.planesweep.reconstruction import PlaneSweepReconstruction, RenderConfig

__all__ = ["PlaneSweepReconstruction", "RenderConfig"]
