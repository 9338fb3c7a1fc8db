"""What a device reports about its models' speed and memory; values without heavy imports."""

from __future__ import annotations

import math
from dataclasses import dataclass

from sphinx_nvs.json_types import JSONObject

Front = tuple[tuple[float, float, float], ...]
"""Rows of quality, share of full diffusion's compute, and its 95th percentile over scenes; ascending in all."""

NOTHING_OR_ALL: Front = ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
"""The front of a profile that does not know its typical savings."""


@dataclass(frozen=True, kw_only=True)
class Facts:
    """The cost of requests on a device.

    Args:
        front: see `Front`.
        num_steps: solver steps of full diffusion.
        costs: `CostModel.to_json` of the device; None where nothing is known.
        memory_bytes: memory of the device; infinite where it is unknown.
        bytes_per_pixel: memory that a unit takes at least, for each pixel of its frames and of the views that it knows.
    """

    front: Front = NOTHING_OR_ALL
    num_steps: int = 50
    costs: JSONObject | None = None
    memory_bytes: float = math.inf
    bytes_per_pixel: float = 0.0
