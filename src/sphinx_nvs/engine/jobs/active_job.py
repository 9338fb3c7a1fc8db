"""A job in memory: what the store has of it, arranged for the engine.

All of it can be rebuilt from rows (`ActiveJob.of`), so that a restarted engine continues where the last one stopped:
finished units are checkpoints, units that were running start again.

Shapes: V target views.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from sphinx_nvs.engine.jobs.splitting import REGRESSION, Split
from sphinx_nvs.engine.types.jobs import JobRow, UnitRow, UnitState
from sphinx_nvs.engine.types.messages import Begun, Finished, Regressed, Report
from sphinx_nvs.engine.types.prices import PriceTable
from sphinx_nvs.json_types import JSONMapping, JSONObject
from sphinx_nvs.long_paths.units import Unit


@dataclass(kw_only=True)
class Work:
    """A unit that a device is working on.

    Args:
        device: the device's number.
        begun: the device's report of its plan; None before that.
        done: solver steps taken.
        busy_s: seconds of device time since it was planned.
    """

    device: int
    begun: Begun | None = None
    done: int = 0
    busy_s: float = 0.0


@dataclass(kw_only=True)
class ActiveJob:
    """A job that is not finished.

    Args:
        row: the stored row.
        scene_path: path of its scene.
        prices: its cost at each quality.
        rows: all units as stored, by index; the regression is 0.
        units: units of its path; empty before the preview.
        work: units that devices are working on, by index.
        plans: plans of started and finished units, by index; see `plan_summary`.
        progress_sent_s: time of the last `progress` event.
        reported_quality: quality of the last `degraded` event.
        is_ending: whether it is about to end.
        splitting: the task that splits its path while the preview is made; None before and after.
        again: plans that are carried out once more, by unit, where the job makes another one's files again.
    """

    row: JobRow
    scene_path: str
    prices: PriceTable
    rows: dict[int, UnitRow]
    units: Sequence[Unit] = ()
    work: dict[int, Work] = field(default_factory=dict)
    plans: dict[int, JSONObject] = field(default_factory=dict)
    progress_sent_s: float = float("-inf")
    reported_quality: float | None = None
    is_ending: bool = False
    splitting: asyncio.Task[Split] | None = None
    again: Mapping[int, JSONObject] = field(default_factory=dict)

    @staticmethod
    def of(row: JobRow, scene_path: str, prices: PriceTable, rows: Sequence[UnitRow]) -> ActiveJob:
        """A job from its rows, with no running unit."""
        by_index = {unit.index: unit for unit in rows}
        return ActiveJob(row=row, scene_path=scene_path, prices=prices, rows=by_index, plans=plans_of(rows))

    @property
    def id(self) -> str:
        """The job's id."""
        return self.row.id

    @property
    def is_previewed(self) -> bool:
        """Whether every target view has been rendered."""
        return self.rows[REGRESSION].state is UnitState.DONE

    @property
    def is_refined(self) -> bool:
        """Whether every frame is refined."""
        # With the regression's row alone the path is not split yet: a finished preview is not a finished job.
        return len(self.rows) > 1 and len(self.done_units) == len(self.rows)

    def is_last(self, index: int) -> bool:
        """Whether a unit is the only one that is not finished."""
        return self.is_previewed and self.done_units | {index} == frozenset(self.rows)

    @property
    def done_units(self) -> frozenset[int]:
        """Indices of finished units."""
        return frozenset(index for index, row in self.rows.items() if row.state is UnitState.DONE)

    @property
    def poison(self) -> UnitRow | None:
        """A unit that was given up after its last attempt."""
        return next((row for row in self.rows.values() if row.state is UnitState.POISON), None)

    @property
    def lossless(self) -> dict[int, str]:
        """Artifacts of finished frames in floats, by target."""
        return _digests(self.rows.values(), "lossless", is_preview=False)

    @property
    def quality(self) -> float:
        """Predicted quality of the planned units, weighted by frames; of the preview if none is planned."""
        weights = {index: len(plan["targets"]) for index, plan in self.plans.items()}
        if not weights:
            return self.prices.rungs[0].quality
        return sum(self.plans[i]["quality"] * weight for i, weight in weights.items()) / sum(weights.values())

    def quality_at(self, level: str | None) -> float:
        """Predicted quality of the job's frames at `preview` or `final`."""
        return self.prices.rungs[0].quality if level == "preview" else self.quality

    def eta_s(self) -> float | None:
        """Remaining device seconds: of planned units, and of the others by their share; None before the first plan."""
        views = sum(len(plan["targets"]) for plan in self.plans.values())
        if not views:
            return None
        # Units without a plan are taken to cost as much per view as those that have one.
        per_view = sum(plan["predicted_s"] for plan in self.plans.values()) / views
        left = 0.0
        for index, row in self.rows.items():
            if index != REGRESSION and row.state is not UnitState.DONE:
                whole = self.plans[index]["predicted_s"] if index in self.plans else per_view * len(row.targets)
                left += whole * (1 - self._share_done(index))
        return left

    def _share_done(self, index: int) -> float:
        """Share of a unit's steps that are done, 0..1."""
        work = self.work.get(index)
        return work.done / max(1, work.begun.steps) if work and work.begun else 0.0


def frames_of(rows: Iterable[UnitRow], level: str) -> dict[int, str]:
    """Artifacts of a job's frames by target.

    Args:
        rows: units of the job.
        level: `preview`, or `final` for those that are refined.
    """
    return _digests(rows, "frames", is_preview=level == "preview")


def plans_of(rows: Iterable[UnitRow]) -> dict[int, JSONObject]:
    """Plans of finished units, by index."""
    return {row.index: row.result["plan"] for row in rows if row.result and "plan" in row.result}


def files_of(rows: Sequence[UnitRow]) -> frozenset[str]:
    """Artifacts of a finished job that clients can request: frames of both levels, and plans."""
    frames = (*frames_of(rows, "preview").values(), *frames_of(rows, "final").values())
    return frozenset((*frames, *(plan["file"] for plan in plans_of(rows).values())))


def _digests(rows: Iterable[UnitRow], key: str, *, is_preview: bool) -> dict[int, str]:
    """Artifacts that results name, by target."""
    results = [row.result for row in rows if row.result and (row.index == REGRESSION) == is_preview]
    return {int(target): digest for result in results for target, digest in result[key].items()}


def plan_summary(report: Begun, row: UnitRow) -> JSONObject:
    """What is published and stored of a plan; `file` and `summary` are stored only."""
    of_full = report.share_of_full
    active_share = float(report.plan.get("active_share", 0.0) if of_full is None else of_full)
    compute = (report.plan.get("predicted") or {}).get("compute")
    return {
        "unit": row.index,
        "targets": list(row.targets),
        "quality": report.predicted_quality,
        "predicted_s": report.predicted_s,
        "active_share": active_share,
        "compute_share": active_share if compute is None else float(compute),
        "steps": report.steps,
        "reason": str(report.plan.get("reason", "")),
        "file": report.plan_file,
        "summary": report.plan,
    }


def new_frames(report: Report) -> tuple[str, ...]:
    """Frames to which rows will refer because of a report."""
    if isinstance(report, Regressed):
        return tuple(report.frames.values())
    return (*report.frames.values(), *report.lossless.values()) if isinstance(report, Finished) else ()


def regression_result(report: Regressed) -> JSONObject:
    """The stored result of a preview."""
    return {
        "frames": _named(report.frames),
        "num_contexts": report.num_contexts,
        "seconds": report.seconds,
    }


def refinement_result(report: Finished, plan: JSONMapping, busy_s: float) -> JSONObject:
    """The stored result of refined frames; `busy_s` are all device seconds since the unit was planned."""
    return {
        "frames": _named(report.frames),
        "lossless": _named(report.lossless),
        "figures": report.figures,
        "plan": dict(plan),
        "seconds": busy_s,
    }


def _named(digests: Mapping[int, str]) -> dict[str, str]:
    """Keys as JSON has them."""
    return {str(target): digest for target, digest in sorted(digests.items())}
