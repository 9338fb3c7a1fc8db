"""From a job to its units: the preview, then the units of its path.

    unit 0        every target view by regression
    unit 1 + i    unit i of `long_paths.units.plan_units`, whose noise is seeded by (seed, i)

The same job is always split in the same way, so that a restarted engine finds the units of its rows.
"""

from __future__ import annotations

from collections.abc import Sequence

from sphinx_nvs.engine.types.job_validation import cameras_of
from sphinx_nvs.engine.types.jobs import JobSpec, UnitKind, UnitRow
from sphinx_nvs.errors import SphinxError
from sphinx_nvs.long_paths.units import Unit, plan_units
from sphinx_nvs.scene.readers import read_capture

Split = tuple[list[Unit], str]
"""The units of a path, or none and why it cannot be split, e.g. because the scene cannot be read."""

REGRESSION = 0
"""Index of every job's first unit."""


def regression_row(spec: JobSpec) -> UnitRow:
    """The unit that makes the preview, for a job that has no id yet."""
    return UnitRow(job_id="", index=REGRESSION, kind=UnitKind.REGRESSION, targets=tuple(range(spec.num_views)))


def split_path(spec: JobSpec, scene_path: str, window: int) -> Split:
    """The units of a job's path; reads the scene's cameras."""
    try:
        # Cameras only, at the frames' size: photos are loaded where units are computed.
        capture = read_capture(scene_path)
        contexts = capture.cameras(range(len(capture)), spec.height, spec.width)
        return plan_units(contexts, cameras_of(spec), window=window), ""
    # The user's scene or path is at fault, and another attempt would end the same way; other exceptions are tried
    # again.
    except SphinxError as error:
        return [], str(error)


def rows_of(job_id: str, units: Sequence[Unit]) -> list[UnitRow]:
    """The units as rows; all of them depend on the regression."""
    return [
        UnitRow(
            job_id=job_id,
            index=1 + unit.index,
            kind=UnitKind(unit.kind),
            targets=unit.targets,
            depends_on=(REGRESSION, *(1 + other for other in unit.depends_on)),
        )
        for unit in units
    ]
