"""What one request asks for, as one value from the command line, HTTP or Python to the planner."""

from __future__ import annotations

from dataclasses import dataclass, replace

from sphinx_nvs.errors import InputError

METHODS = ("sphinx", "diffusion", "regression")
"""`sphinx` refines what a plan selects, `diffusion` everything, `regression` nothing."""

DEFAULT_QUALITY = 0.98
"""The quality used when a request gives neither a quality nor a deadline."""

MAX_SEED = 2**63 - 1

NO_TIME_S = 1e-9
"""What is left of a deadline that has passed."""


@dataclass(frozen=True, kw_only=True)
class SamplingParams:
    """Quality, deadline and seed of one request.

    Args:
        method: one of `METHODS`; `diffusion` and `regression` ignore quality and deadline.
        quality: fraction of full diffusion's quality to keep, 0..1. None: `DEFAULT_QUALITY`, or `min_quality` if that
            is higher; with a deadline, the best that the deadline allows.
        min_quality: floor that holds against any deadline and against the rounding of `quality`, 0..1.
        deadline_s: seconds from now within which frames must be there, above 0; None is no limit.
        strict: whether a deadline that cannot be met is an error instead of the nearest plan.
        seed: seed of the request's noise, 0..2^63-1.

    Raises:
        InputError: an unknown method, or a number outside its range.
    """

    method: str = "sphinx"
    quality: float | None = None
    min_quality: float = 0.0
    deadline_s: float | None = None
    strict: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise InputError("method", f"'{self.method}' is unknown", f"choose one of {', '.join(METHODS)}")
        for name in ("quality", "min_quality"):
            value = getattr(self, name)
            if value is not None and not 0 <= value <= 1:
                raise InputError(name, f"it is {value:g}", "give a number in 0..1, e.g. 0.95")
        if self.deadline_s is not None and not 0 < self.deadline_s < float("inf"):
            raise InputError("deadline_s", f"it is {self.deadline_s:g}", "give seconds above 0, e.g. 2.5")
        if not 0 <= self.seed <= MAX_SEED:
            raise InputError("seed", f"it is {self.seed}", "give a whole number from 0 to 2^63 - 1")
        if self.quality is not None and self.min_quality > self.quality:
            found = f"it is {self.min_quality:g}, above the quality of {self.quality:g}"
            raise InputError("min_quality", found, "give one that is not above it")
        if self.quality is None and self.deadline_s is None:
            # Resolved here, so that no later stage has a default of its own.
            object.__setattr__(self, "quality", max(DEFAULT_QUALITY, self.min_quality))

    def due_in(self, seconds: float | int) -> SamplingParams:
        """A copy whose deadline is `seconds` from now; a deadline in the past leaves `NO_TIME_S`."""
        return replace(self, deadline_s=max(float(seconds), NO_TIME_S))

    def after(self, elapsed_s: float | int) -> SamplingParams:
        """A copy for what is left to do once `elapsed_s` seconds have passed."""
        return self if self.deadline_s is None else self.due_in(self.deadline_s - elapsed_s)
