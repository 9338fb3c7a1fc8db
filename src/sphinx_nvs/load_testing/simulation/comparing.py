"""Ways to serve, compared on one trace: which of them, what they come to, and what the scheduler gains over them.

`goodput` is the number of requests per second that were finished by their deadline and nowhere below their floor.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from sphinx_nvs.json_types import JSONObject
from sphinx_nvs.load_testing.simulation.arrivals import Arrival
from sphinx_nvs.load_testing.simulation.policies import Fixed, Policy, WithoutQualityControl, adaptive
from sphinx_nvs.load_testing.simulation.run_summary import Summary
from sphinx_nvs.load_testing.simulation.simulate import Run, simulate
from sphinx_nvs.load_testing.simulation.simulated_prices import Measured

PRICES = Path(__file__).parent / "typical_prices.json"
"""Prices of the embedded pair, see `read_prices`."""

SWEEP = (0.8, 0.9, 0.95, 0.97, 0.98, 0.99)
"""Fixed qualities that the scheduler is compared with."""

ADAPTIVE, FULL = "adaptive", "full, fifo"
"""The scheduler, and full quality in order of arrival."""


def policies(devices: int, sweep: Sequence[float] = SWEEP) -> dict[str, Callable[[], Policy]]:
    """Ways to serve, by name."""
    made: dict[str, Callable[[], Policy]] = {
        ADAPTIVE: lambda: adaptive(devices),
        FULL: lambda: Fixed(devices, 1.0),
        "edf without quality control": lambda: WithoutQualityControl(devices),
        "reject what would be late": lambda: Fixed(devices, "asked", "fifo", rejects=True),
        "own floor, edf": lambda: Fixed(devices, "floor", "edf"),
    }
    for quality in sweep:
        made[f"fixed {quality:g}, fifo"] = lambda quality=quality: Fixed(devices, quality)  # type: ignore[misc]
        made[f"fixed {quality:g}, edf"] = lambda quality=quality: Fixed(devices, quality, "edf")  # type: ignore[misc]
    return made


def compared(
    arrivals: Sequence[Arrival],
    pricing: Measured,
    devices: int,
    seed: int,
    *,
    names: Sequence[str] = (),
    sweep: Sequence[float] = SWEEP,
) -> dict[str, Run]:
    """Every policy, or those named, on the same trace and devices of the same moods."""
    chosen = {name: make for name, make in policies(devices, sweep).items() if not names or name in names}
    return {name: simulate(arrivals, make(), pricing, devices=devices, seed=seed) for name, make in chosen.items()}


def headline(summaries: Mapping[str, Summary]) -> JSONObject:
    """The figures of the comparison, from runs among which are `ADAPTIVE`, `FULL` and fixed qualities."""
    ours = summaries[ADAPTIVE]
    fixed = {name: s.goodput for name, s in summaries.items() if name.startswith("fixed")}
    best = max(fixed, key=lambda name: fixed[name])
    fifo = [goodput for name, goodput in fixed.items() if name.endswith("fifo")]
    return {
        "goodput_over_full": ratio(ours.goodput, summaries[FULL].goodput),
        "goodput_over_best_fixed": ratio(ours.goodput, fixed[best]),
        "preview_p95_s": ours.preview_p95_s,
        "slo_attainment": ours.slo_attainment,
        "predictor_mape": ours.quote_mape,
        "goodput_over_best_fixed_fifo": ratio(ours.goodput, max(fifo)) if fifo else None,
        "best_fixed": best,
        "goodput": ours.goodput,
        "quality": ours.quality,
        "degraded": ours.degraded,
        "rejected": ours.rejected,
        "below_floor": ours.below_floor,
        "quote_p95_coverage": ours.quote_p95_coverage,
        "service_mape": ours.service_mape,
    }


def table(summaries: Mapping[str, Summary]) -> str:
    """The policies, best first, as Markdown."""
    lines = [
        "| policy | goodput /s | good of all | quality | preview p95 s | done p95 s | degraded | rejected |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, s in sorted(summaries.items(), key=lambda item: -item[1].goodput):
        lines.append(
            f"| {name} | {s.goodput:.3f} | {s.slo_attainment:.1%} | {s.quality:.3f} | {s.preview_p95_s:.1f} "
            f"| {s.completion_p95_s:.1f} | {s.degraded:.0%} | {s.rejected:.0%} |"
        )
    return "\n".join(lines)


def ratio(ours: float, theirs: float) -> float:
    """The ratio of two rates; a rate of zero counts as one request in a thousand seconds."""
    return ours / max(theirs, 1e-3)


def rounded(value: object) -> object:
    """A JSON value with five significant digits."""
    if isinstance(value, dict):
        return {key: rounded(inner) for key, inner in value.items()}
    return float(f"{value:.5g}") if isinstance(value, float) else value
