r"""Load patterns: which requests arrive when. Open loop: when a request is sent depends on no answer. Values only.

A renewal process of unit rate is stretched by a rate that varies in time (time rescaling):

    gaps g_i ~ Gamma(shape = 1 / cv^2, mean 1),   Lambda(t_n) = g_1 + ... + g_n,   Lambda(t) = integral_0^t rate(u) du

cv = 1 is Poisson, cv > 1 comes in bursts, for any rate: constant, in steps, or with the hours of a day.

Reference: ServeGen and vLLM's `burstiness` draw gaps from the same family.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np

from sphinx_nvs.errors import InputError, OutputError


@dataclass(frozen=True, kw_only=True)
class Arrival:
    """A request to be sent.

    Args:
        at_s: when, seconds after the start.
        views: target views.
        height: height of the frames, pixels.
        width: width of the frames, pixels.
        quality: requested quality, 0..1; None leaves it to the deadline.
        deadline_s: seconds after sending; None for no deadline.
        min_quality: floor, 0..1.
        key: API key.
    """

    at_s: float
    views: int
    height: int
    width: int
    quality: float | None = None
    deadline_s: float | None = None
    min_quality: float = 0.0
    key: str = "anonymous"


@dataclass(frozen=True, kw_only=True)
class RequestKind:
    """The requests of a kind of user.

    Args:
        weight: frequency relative to other kinds.
        tightness: deadline over the seconds of full quality, alone on a device; None for no deadline.
        quality: see `Arrival`.
        min_quality: see `Arrival`.
    """

    weight: float | int
    tightness: float | int | None
    quality: float | None
    min_quality: float


@dataclass(frozen=True, kw_only=True)
class Mix:
    """Draws each request independently.

    Args:
        kinds: kinds of users.
        views: numbers of target views, each with its weight.
        view_s: seconds of full quality per view, regression included: what tightness counts in.
        size: height and width of frames, pixels.
        keys: API keys; key k has weight 1 / (k + 1).
    """

    kinds: tuple[RequestKind, ...]
    views: tuple[tuple[int, float | int], ...]
    view_s: float | int
    size: tuple[int, int] = (128, 128)
    keys: int = 4

    @property
    def mean_views(self) -> float:
        """Mean number of views of a request."""
        return sum(n * w for n, w in self.views) / sum(w for _, w in self.views)


@dataclass(frozen=True, kw_only=True)
class Phase:
    """A stretch of time with a constant rate.

    Args:
        seconds: duration.
        rate: requests per second.
    """

    seconds: float | int
    rate: float | int


def steady(rate: float | int, seconds: float | int) -> list[Phase]:
    """A constant rate."""
    return [Phase(seconds=seconds, rate=rate)]


def bursts(
    low: float | int, high: float | int, period_s: float | int, share: float | int, seconds: float | int
) -> list[Phase]:
    """A low rate with a burst of a high one at the end of every period, over this share of it."""
    periods = max(1, round(seconds / period_s))
    calm = Phase(seconds=period_s * (1 - share), rate=low)
    return [calm, Phase(seconds=period_s * share, rate=high)] * periods


def diurnal(mean: float | int, swing: float | int, period_s: float | int, seconds: float | int) -> list[Phase]:
    """rate(t) = mean (1 - swing cos(2 pi t / period)), in 48 steps a period; it starts at night."""
    step = period_s / 48
    middles = [(i + 0.5) * step for i in range(max(1, round(seconds / step)))]
    rates = [mean * (1 - swing * math.cos(2 * math.pi * t / period_s)) for t in middles]
    return [Phase(seconds=step, rate=max(0.0, rate)) for rate in rates]


def times(phases: Sequence[Phase], rng: np.random.Generator, *, cv: float | int = 1.0) -> list[float]:
    """When requests are sent, ascending.

    Args:
        phases: one after the other.
        rng: generator of the gaps.
        cv: standard deviation over mean of the gaps at a constant rate: 1 is Poisson, more is burstier.

    Raises:
        InputError: a rate, a length or `cv` that cannot be.
    """
    if not 0 < cv < math.inf:
        raise InputError("cv", f"it is {cv:g}", "give a number above 0")
    if any(not (phase.seconds > 0 and 0 <= phase.rate < math.inf) for phase in phases):
        raise InputError("phases", "one has no length or a negative rate", "give seconds above 0 and rates from 0")
    ends = np.cumsum([0.0, *(phase.seconds for phase in phases)])
    counts = np.cumsum([0.0, *(phase.seconds * phase.rate for phase in phases)])
    # Five standard deviations more than expected, so that the last gap ends after the end.
    most = int(counts[-1] + 5 * cv * math.sqrt(counts[-1] + 1) + 10)
    places = np.cumsum(rng.gamma(1 / cv**2, cv**2, most))
    return [float(t) for t in np.interp(places[places < counts[-1]], counts, ends)]


def draw(sent: Sequence[float], mix: Mix, rng: np.random.Generator) -> list[Arrival]:
    """A request for each of these times."""
    kinds = rng.choice(len(mix.kinds), size=len(sent), p=_shares([w.weight for w in mix.kinds]))
    views = rng.choice(len(mix.views), size=len(sent), p=_shares([w for _, w in mix.views]))
    keys = rng.choice(mix.keys, size=len(sent), p=_shares([1 / (k + 1) for k in range(mix.keys)]))
    return [
        _arrival(at, mix.kinds[kind], mix.views[view][0], f"key-{key}", mix)
        for at, kind, view, key in zip(sent, kinds, views, keys, strict=True)
    ]


def _arrival(at_s: float, kind: RequestKind, views: int, key: str, mix: Mix) -> Arrival:
    deadline = None if kind.tightness is None else float(kind.tightness * mix.view_s * views)
    height, width = mix.size
    return Arrival(
        at_s=at_s,
        views=views,
        height=height,
        width=width,
        quality=kind.quality,
        deadline_s=deadline,
        min_quality=kind.min_quality,
        key=key,
    )


def _shares(weights: Sequence[float | int]) -> list[float]:
    """Weights that sum to 1."""
    total = sum(weights)
    return [weight / total for weight in weights]


def write_trace(path: Path, arrivals: Sequence[Arrival]) -> None:
    """Writes requests as CSV, one a row; what is None is empty.

    Raises:
        OutputError: the file cannot be written.
    """
    try:
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, [field.name for field in fields(Arrival)])
            writer.writeheader()
            writer.writerows(asdict(arrival) for arrival in arrivals)
    except OSError as error:
        raise OutputError(str(path), error.strerror or "it cannot be written", "choose another file") from error


def read_trace(path: Path) -> list[Arrival]:
    """Reads requests from CSV, in order of time.

    Raises:
        InputError: the file is missing, or a row of it cannot be read.
    """
    try:
        with path.open(newline="") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(str(path), "it cannot be read", "give a CSV file with a header") from error
    arrivals = [_row(row, f"row {number} of {path}") for number, row in enumerate(rows, start=1)]
    return sorted(arrivals, key=lambda arrival: arrival.at_s)


def _row(row: dict[str, str], where: str) -> Arrival:
    """One row of a trace."""
    try:
        arrival = Arrival(
            at_s=float(row["at_s"]),
            views=int(row["views"]),
            height=int(row["height"]),
            width=int(row["width"]),
            quality=float(row["quality"]) if row.get("quality") else None,
            deadline_s=float(row["deadline_s"]) if row.get("deadline_s") else None,
            min_quality=float(row.get("min_quality") or 0),
            key=row.get("key") or "anonymous",
        )
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(where, f"{error} is missing or no number", "give at_s, views, height, width") from error
    if not (0 <= arrival.at_s < math.inf and min(arrival.views, arrival.height, arrival.width) > 0):
        raise InputError(where, "a time before the start, or a size of 0", "give at_s from 0 and sizes above 0")
    return arrival
