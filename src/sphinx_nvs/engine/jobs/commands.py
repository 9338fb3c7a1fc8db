"""Turns the scheduler's decisions into commands for devices."""

from __future__ import annotations

from sphinx_nvs.engine.jobs.active_job import ActiveJob
from sphinx_nvs.engine.scheduler.types import Decision, Phase
from sphinx_nvs.engine.types.messages import Begin, Command, Drop, Finish, Regress, Step


def command_of(decision: Decision, job: ActiveJob | None) -> Command:
    """The command that a decision is.

    Args:
        decision: a decision of the scheduler.
        job: the job of the unit; its path is split and the frames that the unit depends on are finished. Steps,
            finishing and dropping do not need it.
    """
    if decision.phase is Phase.STEP:
        return Step(units=decision.units)
    if decision.phase is Phase.DROP:
        return Drop(units=decision.units)
    if decision.phase is Phase.FINISH:
        return Finish(unit=decision.unit)
    assert job is not None
    if decision.phase is Phase.REGRESS:
        return Regress(unit=decision.unit, spec=job.row.spec, scene_path=job.scene_path)
    return _begin(decision, job)


def _begin(decision: Decision, job: ActiveJob) -> Begin:
    """Begins a unit of refinement; the job's first unit is the regression."""
    unit, lossless = job.units[decision.unit[1] - 1], job.lossless
    return Begin(
        unit=decision.unit,
        spec=job.row.spec,
        scene_path=job.scene_path,
        targets=unit.targets,
        photos=unit.photos,
        finished={frame: lossless[frame] for frame in unit.frames},
        quality=decision.quality,
        within_s=decision.within_s,
        min_quality=decision.min_quality,
        alone=len(job.units) == 1,
    )
