"""Rules: from a view's quality score to the step its uncertain cells start at.

The paper's own profile is of this kind, fitted by its authors for SEVA + MVSplat with 50 steps (Sphinx, arXiv
2511.18672; `profile.PAPER_PROFILE`). A score of 1 or more starts at 40; a score below every range starts at 0. Between
the tabulated qualities the start step is interpolated, towards 0 at quality 1 (full diffusion) and towards the last
step at quality 0.80 and below.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from jaxtyping import Float
from torch import Tensor

from sphinx_nvs.errors import InputError

PAPER_STEPS = 50
GOOD_START = 40
LEAST_QUALITY = 0.80


@dataclass(frozen=True)
class Rule:
    """Score ranges with their start steps, for one quality target and cluster.

    Args:
        ranges: (low, high, start step) with low <= score < high, ascending, of `num_steps` steps.
        num_steps: the grid the start steps refer to.
    """

    ranges: tuple[tuple[float, float, int], ...]
    num_steps: int = PAPER_STEPS

    def start_step(self, score: float) -> int:
        """The step a view of this score starts at."""
        if score >= 1:
            return GOOD_START
        for low, high, step in self.ranges:
            if low <= score < high:
                return step
        return 0


@dataclass(frozen=True, kw_only=True)
class Profile:
    """Rules of a pair of models.

    Args:
        name: shown in plans.
        clusters: per cluster, rules by quality target, ascending in quality.
        centres: unit descriptors of the clusters; None where there is but one, or where descriptors are not comparable.
    """

    name: str
    clusters: tuple[dict[float, Rule], ...]
    centres: Float[Tensor, "G D"] | None = None

    def cluster(self, descriptor: Float[Tensor, "D"]) -> int:
        """The nearest cluster by cosine; 0 without centres."""
        if self.centres is None:
            return 0
        return int((self.centres @ descriptor).argmax())

    def start_step(self, score: float, quality: float, cluster: int, num_steps: int) -> int:
        """Where a view of `score` starts, on a grid of `num_steps`, for any quality in 0..1.

        Raises:
            InputError: quality outside 0..1.
        """
        if not 0 <= quality <= 1:
            raise InputError("quality", f"it is {quality:g}", "give a number in 0..1, e.g. 0.95")
        rules = self.clusters[cluster]
        grid = next(iter(rules.values())).num_steps
        known = [
            (LEAST_QUALITY, float(grid)),
            *((q, float(r.start_step(score))) for q, r in sorted(rules.items())),
        ]
        known.append((1.0, 0.0))
        return round(_interpolated(quality, known) * num_steps / grid)


def _interpolated(x: float, points: list[tuple[float, float]]) -> float:
    """Piecewise linear through ascending `points`, constant below the first; `x` is at most the last."""
    if x <= points[0][0]:
        return points[0][1]
    (x0, y0), (x1, y1) = next(pair for pair in pairwise(points) if x <= pair[1][0])
    return y0 + (y1 - y0) * (x - x0) / (x1 - x0)
