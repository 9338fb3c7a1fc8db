"""Seconds of a request on one machine, predicted from its plan by a law that is fitted once.

    seconds = sum over calls of c_dense . x_call or c_sparse . x_call        (`workload`)
              + c_open . x_open                                              encode, condition: affine in pixels
              + one of, by the plan's decoding, each with agreement:
                c_close . x_close                                            decode with a search of the photos
                c_reclose . x_close + c_agree . x_agree                      decode again what the probe has decoded,
                                                                             agree alone where its frames stay
                c_survey . x_close                                           decode with the photos' surfaces
              + c_reconstruct . x + c_render . x + c_assess . x              stages 1 to 3, likewise

Every coefficient is at least 0 (non-negative least squares), so that more work never costs less. Residuals are
relative to the prediction, and rows that disagree with the rest count less (Cauchy's weights), so that bursts of other
work on a shared machine hardly matter. The 95th percentile is that of the ratio of measured to predicted seconds
over requests that the fit did not see (leave one out): its upper confidence bound, and never below a noise floor.

Shapes: n measurements, k quantities, V target views.
"""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import scipy  # Its parts are imported at first use, which saves a device's start half a second.
from jaxtyping import Float64

from sphinx_nvs import media
from sphinx_nvs.errors import InputError
from sphinx_nvs.json_types import JSONMapping, JSONObject
from sphinx_nvs.models.unet.network import UNetConfig
from sphinx_nvs.plan.compute_plan import ComputePlan
from sphinx_nvs.plan.workload import DENSE, SPARSE, Network, full_calls, plan_calls

VERSION = 6
"""Version of the file's layout."""

QUANTITIES = {
    "dense": DENSE,
    "sparse": SPARSE,
    "open": ("request", "context_view", "target_mpixel", "context_mpixel"),
    "close": ("view", "target_mpixel", "target_context_mpixel"),
    "reclose": ("view", "target_mpixel", "target_context_mpixel"),
    "survey": ("view", "target_mpixel", "target_context_mpixel"),
    "agree": ("view", "target_mpixel"),
    "reconstruct": ("request", "context_mpixel"),
    "render": ("request", "target_mpixel", "target_context_mpixel"),
    "assess": ("request", "target_mpixel", "context_mpixel"),
}
"""Quantities of each kind of work: the columns of its measurements."""

REFINING = ("dense", "sparse", "open", "close")
"""Kinds of work of stages 5 to 8 without a probe."""
REGRESSING = ("reconstruct", "render", "assess")

NOISE_FLOOR = 0.05
"""Smallest relative distance of the 95th percentile from the median."""

CONFIDENCE = 0.9
"""Confidence of the upper bound that is given as the 95th percentile."""

# Passes of the robust fit, and the relative residual at which a row's weight has halved.
_REWEIGHTINGS, _USUAL = 15, 0.3


@dataclass(frozen=True, kw_only=True)
class Seconds:
    """A prediction.

    Args:
        median: seconds that half of the runs take at most.
        p95: seconds that 95 % of the runs take at most, on the cautious side.
    """

    median: float
    p95: float

    def __add__(self, other: Seconds) -> Seconds:
        return Seconds(median=self.median + other.median, p95=self.p95 + other.p95)

    def times(self, factor: float) -> Seconds:
        """The prediction times a factor."""
        return Seconds(median=factor * self.median, p95=factor * self.p95)


@dataclass(frozen=True, kw_only=True, eq=False)
class Measured:
    """A timed request: for each kind of work its quantities, a row per call or stage, and their seconds.

    Args:
        work: rows by kind, columns as `QUANTITIES`.
        seconds: seconds of each row, by kind.
    """

    work: Mapping[str, Float64[np.ndarray, "n k"]]
    seconds: Mapping[str, Float64[np.ndarray, "n"]]

    def total(self, kinds: Sequence[str]) -> float:
        """Seconds of all work of these kinds."""
        return float(sum(self.seconds[kind].sum() for kind in kinds if kind in self.seconds))


@dataclass(frozen=True, kw_only=True)
class CostModel:
    """Seconds of one pair of models on one machine.

    Args:
        network: network of the measured denoiser.
        coefficients: seconds per quantity, by kind of work, in the order of `QUANTITIES`.
        refining_p95: 95th percentile of stages 5 to 8 over their median.
        regressing_p95: 95th percentile of stages 1 to 3 over their median.
        clock: `wall`, or `cpu` for seconds of CPU time.
        machine: description of the machine and the measurement, for people.
        measured_s: seconds that the measurement took.
    """

    network: Network
    coefficients: Mapping[str, tuple[float, ...]]
    refining_p95: float
    regressing_p95: float
    clock: str = "wall"
    machine: str = ""
    measured_s: float = 0.0

    def plan_seconds(
        self,
        plan: ComputePlan,
        *,
        num_context: int,
        dense_steps: Collection[int] | None = None,
        opened: bool = False,
        called: bool = False,
    ) -> Seconds:
        """Stages 5 to 8: encoding, every step, decoding. Nothing at all for a plan that keeps the render.

        Where the plan leaves dense steps to measured drift, the median takes the plan's own, and the 95th percentile
        takes every step to be dense.

        Args:
            plan: what is to be computed.
            num_context: known views that condition the denoiser.
            dense_steps: the steps that really were dense, if that is known; else see above.
            opened: whether a probe was made before planning (`refine.probe`), which spares encoding.
            called: whether that made the denoiser's first call: then a plan that starts with it is spared that call,
                and the search of the photos (`ReferenceDecoding`).
        """
        if plan.first_step == plan.num_steps:
            return Seconds(median=0.0, p95=0.0)
        median = self._calls_seconds(plan, num_context, dense_steps)
        longest = median
        if plan.refresh_drift is not None and dense_steps is None:
            longest = max(median, self._calls_seconds(plan, num_context, range(plan.num_steps)))
        views, height, width = plan.start_step.shape
        pixels = height * width * self.network.factor**2
        decoded = refined_views(plan, called=called)
        rows = refining_rows(num_context, views, pixels, decoded)
        around = 0.0 if opened or called else self._seconds("open", rows["open"])
        if called and plan.first_step == 0:
            first = self._seconds("dense", plan_calls(plan, self.network, num_context).dense[:1])
            # The plan's calls include the first, which was made with the probe: it is taken out again.
            around += self._seconds("reclose", rows["close"]) - first
            # Views that are decoded already still have to be brought to agree with their neighbours.
            around += self._seconds("agree", agreement_row(refined_views(plan) - decoded, pixels))
        else:
            around += self._seconds("survey" if plan.decoding == "survey" else "close", rows["close"])
        return Seconds(median=median + around, p95=(longest + around) * self.refining_p95)

    def probe_seconds(self, *, num_context: int, views: int, height: int, width: int, called: bool = True) -> Seconds:
        """The probe before planning (`refine.probe`): encoding, and with the denoiser's first call that and decoding.

        Args:
            num_context: known views that condition the denoiser.
            views: target views.
            height: height of the frames in pixels.
            width: width of the frames in pixels.
            called: whether it makes the denoiser's first call.
        """
        if called:
            return self.full_seconds(num_context=num_context, views=views, height=height, width=width, num_steps=1)
        median = self._seconds("open", refining_rows(num_context, views, height * width)["open"])
        return Seconds(median=median, p95=median * self.refining_p95)

    def full_seconds(self, *, num_context: int, views: int, height: int, width: int, num_steps: int) -> Seconds:
        """Stages 5 to 8 of full diffusion.

        Args:
            num_context: known views that condition the denoiser.
            views: target views.
            height: height of the frames in pixels.
            width: width of the frames in pixels.
            num_steps: solver steps, each a dense call.
        """
        calls = full_calls(
            self.network, num_context=num_context, views=views, height=height, width=width, num_steps=num_steps
        )
        median = self._seconds("dense", calls) + self._around(num_context, views, height * width)
        return Seconds(median=median, p95=median * self.refining_p95)

    def regression_seconds(
        self, *, num_context: int, views: int, height: int, width: int, reconstructed: bool = False
    ) -> Seconds:
        """Stages 1 to 3: reconstructing, rendering, assessing.

        Args:
            num_context: number of photos.
            views: target views.
            height: height of the frames in pixels.
            width: width of the frames in pixels.
            reconstructed: whether stage 1 is done already.
        """
        rows = regression_rows(num_context, views, height * width)
        kinds = REGRESSING[1:] if reconstructed else REGRESSING
        median = sum(self._seconds(kind, rows[kind]) for kind in kinds)
        return Seconds(median=median, p95=median * self.regressing_p95)

    def _calls_seconds(self, plan: ComputePlan, num_context: int, dense_steps: Collection[int] | None) -> float:
        if not plan.network:
            return 0.0
        calls = plan_calls(plan, self.network, num_context, dense_steps=dense_steps)
        return self._seconds("dense", calls.dense) + self._seconds("sparse", calls.sparse)

    def _around(self, num_context: int, views: int, pixels: int) -> float:
        """Seconds before the first and after the last step."""
        rows = refining_rows(num_context, views, pixels)
        return sum(self._seconds(kind, row) for kind, row in rows.items())

    def _seconds(self, kind: str, rows: np.ndarray) -> float:
        return float((rows @ np.array(self.coefficients[kind])).sum())

    def to_json(self) -> JSONObject:
        """Everything, as JSON values."""
        return {"version": VERSION, **asdict(self)}

    @staticmethod
    def from_json(values: Any, where: str = "cost model") -> CostModel:
        """Reads values that `to_json` wrote.

        Args:
            values: values parsed from JSON.
            where: name of the source, for errors.

        Raises:
            InputError: the values are no cost model, or one of another version.
        """
        hint = "delete it, and this machine is measured anew"
        found = values.get("version") if isinstance(values, dict) else None
        if found is not None and found != VERSION:
            raise InputError(where, f"it is of version {found}, not {VERSION}", hint)
        try:
            fields = {name: value for name, value in values.items() if name != "version"}
            fields["network"] = _network_from_json(fields["network"])
            fields["coefficients"] = {kind: tuple(map(float, row)) for kind, row in fields["coefficients"].items()}
            model = CostModel(**fields)
            _check(model)
        except (AttributeError, KeyError, TypeError, ValueError, InputError):
            raise InputError(where, "it is no cost model, or a damaged one", hint) from None
        return model

    def save(self, path: Path) -> None:
        """Writes the whole file or nothing.

        Raises:
            OutputError: the file system refuses.
        """
        media.write_bytes(path, (json.dumps(self.to_json(), indent=1) + "\n").encode())

    @staticmethod
    def load(path: Path) -> CostModel:
        """Reads a file that `save` wrote.

        Raises:
            InputError: the file is missing, damaged or of another version.
        """
        try:
            values = json.loads(path.read_bytes())
        except OSError as error:
            raise InputError(f"file {path}", f"it cannot be read ({error.strerror})", "measure this machine") from None
        except ValueError:
            values = None
        return CostModel.from_json(values, f"file {path}")


def refined_views(plan: ComputePlan, *, called: bool = False) -> int:
    """How many views must be decoded at the end: those with any refined cell, the others keep the render.

    Where a plan is nothing but the call that was made before planning, wholly refined views are decoded already.
    """
    cells = (plan.start_step < plan.num_steps).flatten(1)
    views = cells.any(1)
    if called and plan.num_steps == 1:
        views &= ~cells.all(1)
    return int(views.sum())


def refining_rows(
    num_context: int, views: int, pixels: int, refined: int | None = None
) -> dict[str, Float64[np.ndarray, "1 k"]]:
    """Quantities of opening and closing a request of so many pixels a frame, `refined` of whose views are decoded."""
    mpixels = pixels / 1e6
    decoded = views if refined is None else refined
    return {
        "open": np.array([[1.0, num_context, views * mpixels, num_context * mpixels]]),
        "close": np.array([[decoded, decoded * mpixels, decoded * num_context * mpixels]]),
    }


def agreement_row(views: int, pixels: int) -> Float64[np.ndarray, "1 k"]:
    """Quantities of making frames consistent with their neighbours (`TemporalConsistency`)."""
    return np.array([[views, views * pixels / 1e6]])


def regression_rows(num_context: int, views: int, pixels: int) -> dict[str, Float64[np.ndarray, "1 k"]]:
    """Quantities of stages 1 to 3 of a request of so many pixels a frame."""
    mpixels = pixels / 1e6
    return {
        "reconstruct": np.array([[1.0, num_context * mpixels]]),
        "render": np.array([[1.0, views * mpixels, views * num_context * mpixels]]),
        "assess": np.array([[1.0, views * mpixels, num_context * mpixels]]),
    }


def fit(network: Network, requests: Sequence[Measured], *, noise_floor: float = NOISE_FLOOR) -> CostModel:
    """The cost model that explains measured requests.

    Args:
        network: network of the measured denoiser.
        requests: three or more, of different sizes and view counts.
        noise_floor: see `NOISE_FLOOR`.
    """
    model = CostModel(network=network, coefficients=_coefficients(requests), refining_p95=1.0, regressing_p95=1.0)
    refining, regressing = [], []
    # Leave one out: the spread of requests that the fit has seen would be too small.
    for place, request in enumerate(requests):
        unseen = _coefficients([*requests[:place], *requests[place + 1 :]])
        refining.append(_ratio(request, unseen, REFINING))
        regressing.append(_ratio(request, unseen, REGRESSING))
    return replace(
        model,
        refining_p95=_upper(refining, noise_floor),
        regressing_p95=_upper(regressing, noise_floor),
    )


def fitted_law(rows: Float64[np.ndarray, "n k"], seconds: Float64[np.ndarray, "n"]) -> tuple[float, ...]:
    """Coefficients of at least 0 with the least relative residuals; see the module docstring.

    Args:
        rows: quantities of each measurement, not negative.
        seconds: measured seconds, above 0.
    """
    predicted, weights = seconds, np.ones(len(rows))
    # Iteratively reweighted: seconds are noisy by a factor, so residuals are relative, and a run that waited for
    # another process counts little.
    for _ in range(_REWEIGHTINGS):
        relative = rows / predicted[:, None]
        # Columns differ by many orders of magnitude (FLOPs beside counts of calls): scaled for the solver's sake.
        scale = np.maximum(relative.max(axis=0), 1e-300)
        solution, _ = scipy.optimize.nnls(relative / scale * weights[:, None], seconds / predicted * weights)
        coefficients = solution / scale
        # Residuals relative to measured seconds would favour fast runs.
        predicted = np.maximum(rows @ coefficients, 1e-12)
        weights = (1 + ((seconds / predicted - 1) / _USUAL) ** 2) ** -0.5
    return tuple(coefficients.tolist())


def _coefficients(requests: Sequence[Measured]) -> dict[str, tuple[float, ...]]:
    """A law for each kind of work; nothing where none was measured (a denoiser without sparse calls)."""
    laws = {}
    for kind, names in QUANTITIES.items():
        rows = [request.work[kind] for request in requests if len(request.work.get(kind, ()))]
        seconds = [request.seconds[kind] for request in requests if len(request.seconds.get(kind, ()))]
        laws[kind] = fitted_law(np.concatenate(rows), np.concatenate(seconds)) if rows else (0.0,) * len(names)
    return laws


def _ratio(request: Measured, coefficients: Mapping[str, tuple[float, ...]], kinds: Sequence[str]) -> float:
    """Measured over predicted seconds."""
    predicted = sum(
        float((request.work[kind] @ np.array(coefficients[kind])).sum()) for kind in kinds if kind in request.work
    )
    return request.total(kinds) / max(predicted, 1e-12)


def _upper(ratios: Sequence[float], noise_floor: float) -> float:
    """Upper confidence bound of the ratios' 95th percentile: a one-sided normal tolerance bound (non-central t)."""
    count = len(ratios)
    noncentrality = scipy.stats.norm.ppf(0.95) * math.sqrt(count)
    # With a dozen requests the sample's own 95th percentile would be its largest value, and too small as often as not.
    factor = scipy.stats.nct.ppf(CONFIDENCE, count - 1, noncentrality) / math.sqrt(count)
    return float(max(1 + noise_floor, np.mean(ratios) + factor * np.std(ratios, ddof=1)))


def _network_from_json(values: JSONMapping) -> Network:
    config = values["config"]
    if config is not None:
        tuples: JSONObject = {
            name: tuple(value) if isinstance(value, list) else value for name, value in config.items()
        }
        config = UNetConfig(**tuples)
    return Network(**{**values, "config": config})


def _check(model: CostModel) -> None:
    """Checks a file's numbers.

    Raises:
        ValueError: a number is out of range.
    """
    for kind, names in QUANTITIES.items():
        row = model.coefficients[kind]
        if len(row) != len(names) or not all(0 <= value < math.inf for value in row):
            raise ValueError(kind)
    if not (1 <= model.refining_p95 < math.inf and 1 <= model.regressing_p95 < math.inf):
        raise ValueError("out of range")
