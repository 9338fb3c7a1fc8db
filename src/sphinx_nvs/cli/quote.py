"""Predicted seconds and quality of one unit, and of a whole path.

    seconds = stages 1 to 3 + the denoiser's first call, where planning makes it + stages 5 to 7 of the plan

Percentiles of units add up as if they were late together: the sum is on the cautious side.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from sphinx_nvs.json_types import JSONObject
from sphinx_nvs.long_paths.long_path import FinishedUnit
from sphinx_nvs.pipeline.pipeline import Pipeline
from sphinx_nvs.pipeline.request import Prepared
from sphinx_nvs.plan import ComputePlan
from sphinx_nvs.plan.cost_model import CostModel, Seconds


@dataclass(frozen=True, kw_only=True)
class Quote:
    """A prediction.

    Args:
        views: frames.
        quality: fraction of full diffusion's quality, at most 1; None where it is unknown.
        seconds: seconds of all stages; None where this machine was never measured.
        active_share: share of full diffusion's (cell, step) pairs.
        reason: the plan's reason.
    """

    views: int
    quality: float | None
    seconds: Seconds | None
    active_share: float
    reason: str

    def to_json(self) -> JSONObject:
        """Plain values."""
        return {
            "quality": None if self.quality is None else round(self.quality, 4),
            "seconds": None if self.seconds is None else round(self.seconds.median, 3),
            "seconds_p95": None if self.seconds is None else round(self.seconds.p95, 3),
            "active_share": round(self.active_share, 6),
        }


def quote_of(
    pipeline: Pipeline, prepared: Prepared, plan: ComputePlan, method: str, *, reconstructed: bool = False
) -> Quote:
    """The quote of a planned unit.

    Args:
        pipeline: the models.
        prepared: stages 1 to 3, and the probe if planning made one.
        plan: the unit's plan.
        method: see `SamplingParams`.
        reconstructed: whether another unit's quote includes stage 1.
    """
    cells = plan.num_steps - plan.start_step
    seconds = None
    if pipeline.cost_model is not None:
        seconds = _seconds(pipeline.cost_model, prepared, plan, reconstructed=reconstructed)
    return Quote(
        views=len(prepared.targets),
        quality=_quality(plan, method),
        seconds=seconds,
        active_share=float(cells.sum()) / (cells.numel() * pipeline.num_steps),
        reason=plan.reason,
    )


def _quality(plan: ComputePlan, method: str) -> float | None:
    if method == "diffusion":
        return 1.0
    return None if method == "regression" or plan.predicted is None else plan.predicted.quality


def _seconds(cost_model: CostModel, prepared: Prepared, plan: ComputePlan, *, reconstructed: bool) -> Seconds:
    """All stages, as a request for this plan alone would take them."""
    targets, probe = prepared.targets, prepared.probe
    size = {"views": len(targets), "height": targets.height, "width": targets.width}
    total = cost_model.regression_seconds(num_context=len(prepared.scene.images), reconstructed=reconstructed, **size)
    known, called = prepared.num_known, probe is not None and probe.called
    if probe is not None:
        total += cost_model.probe_seconds(num_context=known, called=called, **size)
    return total + cost_model.plan_seconds(plan, num_context=known, opened=probe is not None, called=called)


def joined(quotes: Sequence[Quote]) -> Quote:
    """The quote of all units together."""
    views = sum(quote.views for quote in quotes)
    qualities = [(quote.views, quote.quality) for quote in quotes if quote.quality is not None]
    known = len(qualities) == len(quotes)
    seconds = [quote.seconds for quote in quotes if quote.seconds is not None]
    return Quote(
        views=views,
        quality=sum(count * quality for count, quality in qualities) / views if known else None,
        seconds=sum(seconds[1:], seconds[0]) if len(seconds) == len(quotes) else None,
        active_share=sum(quote.views * quote.active_share for quote in quotes) / views,
        reason=quotes[0].reason if len(quotes) == 1 else f"first of {len(quotes)} units: {quotes[0].reason}",
    )


@dataclass(kw_only=True)
class Tally:
    """Predicted and measured seconds of a path's units.

    Args:
        pipeline: the models.
        method: see `SamplingParams`.
        quotes: quotes of finished units.
        taken_s: seconds of finished units, planning included.
    """

    pipeline: Pipeline
    method: str
    quotes: list[Quote] = field(default_factory=list)
    taken_s: float = 0.0

    def through(self, finished: Iterator[FinishedUnit]) -> Iterator[FinishedUnit]:
        """The same units; time that the consumer spends between them does not count."""
        started = time.perf_counter()
        for unit in finished:
            self.taken_s += time.perf_counter() - started
            result = unit.result
            self.quotes.append(
                quote_of(self.pipeline, result.prepared, result.plan, self.method, reconstructed=bool(self.quotes))
            )
            yield unit
            started = time.perf_counter()
