"""Stage 6: run a plan, one solver step at a time; and the probes that planning makes."""

from sphinx_nvs.refine.probe import Probe, probe, redraw_probe
from sphinx_nvs.refine.refinement import Refinement, StepReport, blend_held, step_together

__all__ = ["Probe", "Refinement", "StepReport", "blend_held", "probe", "redraw_probe", "step_together"]
