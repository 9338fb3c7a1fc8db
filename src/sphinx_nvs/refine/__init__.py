"""Stage 4: carry out a plan, one solver step at a time."""

from sphinx_nvs.refine.probe import Probe, probe
from sphinx_nvs.refine.refinement import Refinement, StepReport, blend_held, step_together
from sphinx_nvs.refine.research import ResearchRefinement, arithmetic_for, begin_refinement

__all__ = [
    "Probe",
    "Refinement",
    "ResearchRefinement",
    "StepReport",
    "arithmetic_for",
    "begin_refinement",
    "blend_held",
    "probe",
    "step_together",
]
