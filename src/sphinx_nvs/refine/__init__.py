"""Stage 4: carry out a plan, one solver step at a time."""

from sphinx_nvs.refine.refinement import Refinement, StepReport, blend_held, restore_detail, step_together

__all__ = ["Refinement", "StepReport", "blend_held", "restore_detail", "step_together"]
