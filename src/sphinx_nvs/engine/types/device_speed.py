"""What a device reports about its models' speed; values without heavy imports."""

from __future__ import annotations

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
    """

    front: Front = NOTHING_OR_ALL
    num_steps: int = 50
    costs: JSONObject | None = None
