"""The figures of a run, which can be compared between policies.

    goodput = requests that came in time and nowhere below their floor / seconds from the first request to the last
              deadline of the trace

A rejected request has no latency, and counts against goodput and attainment like one that came too late.

Shapes: N requests.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

from sphinx_nvs.json_types import JSONObject
from sphinx_nvs.load_testing.simulation.simulate import Outcome, Run


@dataclass(frozen=True, kw_only=True)
class Summary:
    """Figures of one run; times are seconds from when a request was to be sent.

    Args:
        requests: sent.
        preview_p50_s: median time to preview.
        preview_p95_s: 95th percentile of it.
        completion_p50_s: median time to the last frame.
        completion_p95_s: 95th percentile of it.
        slo_attainment: share of requests with a deadline that came in time and not below their floor.
        goodput: good requests per second.
        quality: delivered, mean over completed requests.
        good_quality: delivered, mean over good requests.
        below_floor: share of completed requests below their floor.
        degraded: share of completed requests that got less than requested.
        rejected: share of requests.
        quote_mape: mean of |latency - quoted| / latency over completed requests.
        quote_p95_coverage: share of completed requests no slower than their quote's 95th percentile.
        service_mape: mean of |seconds - planned| / seconds over units, planned by the device.
        busy: share of the devices' time.
    """

    requests: int
    preview_p50_s: float
    preview_p95_s: float
    completion_p50_s: float
    completion_p95_s: float
    slo_attainment: float
    goodput: float
    quality: float
    good_quality: float
    below_floor: float
    degraded: float
    rejected: float
    quote_mape: float
    quote_p95_coverage: float
    service_mape: float
    busy: float

    def to_json(self) -> JSONObject:
        """JSON values."""
        return {name: round(value, 5) for name, value in asdict(self).items()}


def summarise(run: Run) -> Summary:
    """The figures of a run; shares and means of nothing are 0."""
    outcomes = run.outcomes
    done = [o for o in outcomes if o.done_s is not None]
    bound = [o for o in outcomes if o.arrival.deadline_s is not None]
    span = _span(outcomes)
    good = [o for o in outcomes if o.is_good and _is_within(o, span)]
    errors = [(o.done_s or 0.0, o.quote.latency_s, o.quote.latency_p95_s) for o in done]
    return Summary(
        requests=len(outcomes),
        preview_p50_s=_quantile([o.preview_s for o in outcomes if o.preview_s is not None], 0.5),
        preview_p95_s=_quantile([o.preview_s for o in outcomes if o.preview_s is not None], 0.95),
        completion_p50_s=_quantile([o.done_s for o in done if o.done_s is not None], 0.5),
        completion_p95_s=_quantile([o.done_s for o in done if o.done_s is not None], 0.95),
        slo_attainment=_mean([float(o.is_good) for o in bound]),
        goodput=len(good) / max(span, 1e-9),
        quality=_mean([o.quality for o in done]),
        good_quality=_mean([o.quality for o in good]),
        below_floor=_mean([float(o.lowest < o.arrival.min_quality - 1e-9) for o in done]),
        degraded=_mean([float(o.lowest < (o.arrival.quality or 0.0) - 1e-9) for o in done]),
        rejected=_mean([float(not o.accepted) for o in outcomes]),
        quote_mape=_mean([abs(took - quoted) / took for took, quoted, _ in errors if took > 0]),
        quote_p95_coverage=_mean([float(took <= p95) for took, _, p95 in errors]),
        service_mape=_mean([abs(took - planned) / took for took, planned in run.planned if took > 0]),
        busy=min(1.0, run.busy_s / max(run.devices * run.end_s, 1e-9)),
    )


def _span(outcomes: Sequence[Outcome]) -> float:
    """Seconds from the start to the last deadline."""
    return max((o.arrival.at_s + (o.arrival.deadline_s or 0.0) for o in outcomes), default=0.0)


def _is_within(outcome: Outcome, span: float) -> bool:
    """Whether a request came while the trace lasted: one without deadline that comes later is no goodput of it."""
    return outcome.arrival.at_s + (outcome.done_s or 0.0) <= span


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if values else 0.0


def _quantile(values: Sequence[float], share: float) -> float:
    return float(np.quantile(values, share)) if values else 0.0
