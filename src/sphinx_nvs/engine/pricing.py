"""What requests cost on this server's devices, from a profile's typical front and a cost model: arithmetic only.

    seconds(quality) = share(quality) * sum over units of full diffusion's seconds
                       + what units of a long path render again

`share` is what planning takes of full diffusion's compute on average, with its 95th percentile over scenes, as the
profile's authors measured. Devices report both as `Facts` when their models are loaded; the engine's process needs no
models for its prices. How far they are off is learnt by the scheduler.

Shapes: V target views, H W pixels.
"""

from __future__ import annotations

import json
import math
from functools import lru_cache
from typing import Any

from sphinx_nvs.engine.types.device_speed import NOTHING_OR_ALL, Facts, Front
from sphinx_nvs.engine.types.prices import PriceTable, Rung
from sphinx_nvs.errors import InputError, SphinxError
from sphinx_nvs.long_paths.anchors import first_pass
from sphinx_nvs.pipeline.pipeline import Pipeline
from sphinx_nvs.plan.cost_model import CostModel, Seconds
from sphinx_nvs.plan.profile import FittedProfile
from sphinx_nvs.plan.rules import LEAST_QUALITY, Profile

SCORES = (0.7, 0.8, 0.9, 1.0)
"""Scores of views at which rules are evaluated."""

ENDS = 2
"""Finished frames that a chunk of a long path is given: the anchors at its ends."""


def facts_of(pipeline: Pipeline) -> Facts:
    """The facts that a pipeline's devices report."""
    # Through JSON: facts cross to the engine's process as plain values, and must not differ from those of a device in
    # this one.
    costs = None if pipeline.cost_model is None else json.loads(json.dumps(pipeline.cost_model.to_json()))
    return Facts(front=front_of(pipeline), num_steps=pipeline.num_steps, costs=costs)


def front_of(pipeline: Pipeline) -> Front:
    """What the pipeline's plans typically cost."""
    profile, steps = pipeline.profile, pipeline.num_steps
    rows = _front_of_rules(profile, steps) if isinstance(profile, Profile) else _front_of_tables(profile, steps)
    return _ascending(rows)


def _front_of_tables(profile: FittedProfile, num_steps: int) -> Front:
    """The measured front. Plans need about as many calls whatever the grid: a larger share of fewer steps.

    What does not depend on steps (`Costs.fixed` and decoding, in dense calls) is in the share and in what it is a share
    of.
    """
    more = profile.costs.full(profile.num_steps) / profile.costs.full(num_steps)
    rows = tuple((q, min(1.0, more * share), min(1.0, more * p95)) for q, share, p95 in profile.typical if q < 1)
    return (*(rows or NOTHING_OR_ALL[:1]), NOTHING_OR_ALL[-1])


def _front_of_rules(profile: Profile, num_steps: int) -> Front:
    """The front for views of all scores in all clusters alike."""
    rows = []
    for quality in (LEAST_QUALITY, 0.85, 0.9, 0.95, 0.98):
        shares = [
            1 - profile.start_step(score, quality, cluster, num_steps) / num_steps
            for cluster in range(len(profile.clusters))
            for score in SCORES
        ]
        rows.append((quality, sum(shares) / len(shares), max(shares)))
    return (NOTHING_OR_ALL[0], *rows, NOTHING_OR_ALL[-1])


def _ascending(rows: Front) -> Front:
    """Every column made non-decreasing, quality strictly increasing."""
    made = [rows[0]]
    for quality, share, p95 in rows[1:]:
        if quality > made[-1][0]:
            made.append((quality, max(share, made[-1][1]), max(p95, share, made[-1][2])))
    return tuple(made)


class ProfilePricing:
    """Prices from the facts that devices report; see `Pricing`.

    Args:
        window: most views that the denoiser sees together.
        facts: facts of the devices; None until a device has reported them.
    """

    def __init__(self, window: int, facts: Facts | None = None) -> None:
        self._window = window
        # Per instance, since `learn` clears it; every quote needs a table, and requests come in few shapes.
        self._tables = lru_cache(maxsize=512)(self._table)
        self._facts = Facts()
        self._costs: CostModel | None = None
        if facts is not None:
            self.learn(facts)

    def learn(self, facts: Facts) -> None:
        """Takes a device's facts, from now on.

        Raises:
            InputError: their costs are none.
        """
        self._costs = None if facts.costs is None else CostModel.from_json(facts.costs)
        self._facts = facts
        self._tables.cache_clear()

    def table(self, *, contexts: int, views: int, height: int, width: int) -> PriceTable:
        """See `Pricing`.

        Raises:
            SphinxError: no device has reported its speed yet.
        """
        return self._tables(contexts, views, height, width)

    def _table(self, contexts: int, views: int, height: int, width: int) -> PriceTable:
        facts, costs = self._facts, self._costs
        if costs is None:
            raise SphinxError("no device is ready yet, so nothing has a price; try again in some seconds")
        shape: Any = {"views": views, "height": height, "width": width}
        regression = costs.regression_seconds(num_context=contexts, **shape)
        units = units_of(contexts, views, self._window)
        full = _total(
            [
                (count, costs.full_seconds(num_context=known, **{**shape, "views": made}, num_steps=facts.num_steps))
                for count, known, made in units
            ]
        )
        again = Seconds(median=0.0, p95=0.0)
        if len(units) > 1:
            again = costs.regression_seconds(num_context=contexts, **shape, reconstructed=True)
        return PriceTable(
            regression_s=regression.median,
            regression_p95_s=regression.p95,
            rungs=tuple(
                Rung(
                    quality=quality,
                    seconds=share * full.median + again.median,
                    seconds_p95=p95 * full.p95 + again.p95,
                    active_share=share,
                )
                for quality, share, p95 in facts.front
            ),
            memory_bytes=facts.bytes_per_pixel * height * width * max(known + made for _, known, made in units),
            memory_limit=facts.memory_bytes,
        )


def units_of(contexts: int, views: int, window: int) -> list[tuple[int, int, int]]:
    """The units that a path is split into: how many, known views of each, frames that each makes.

    Args:
        contexts: photos.
        views: frames of the path.
        window: see `long_paths.units`, which splits the path once its cameras are known.
    """
    if contexts + views <= window:
        return [(1, contexts, views)]
    try:
        wanted = first_pass("interp", contexts, views, (window, window))
    except InputError:
        return [(views, contexts, 1)]
    anchors = min(wanted.num_anchors, views)
    units = _split(anchors, contexts, max(1, wanted.window - contexts))
    return units + _split(views - anchors, ENDS, max(1, wanted.chunk_window - ENDS))


def _split(frames: int, known: int, most: int) -> list[tuple[int, int, int]]:
    """Sizes of units of at most `most` frames, all alike."""
    count = math.ceil(frames / most)
    return [(count, known, math.ceil(frames / count))] if count else []


def _total(parts: list[tuple[int, Seconds]]) -> Seconds:
    """Weighted sum over parts."""
    return Seconds(
        median=sum(count * seconds.median for count, seconds in parts),
        p95=sum(count * seconds.p95 for count, seconds in parts),
    )
