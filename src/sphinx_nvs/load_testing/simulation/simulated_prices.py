"""A measured price table of one request shape, stretched to others."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

from sphinx_nvs.engine.types.prices import PriceTable, Rung
from sphinx_nvs.errors import InputError

HINT = "give a JSON file as typical_prices.json of this package is"


@dataclass(frozen=True, kw_only=True)
class Measured:
    """Prices that grow with the number of target pixels: an implementation of `Pricing`.

    Args:
        measured: the table.
        views: target views that it was measured with.
        pixels: pixels of each of those.
    """

    measured: PriceTable
    views: int
    pixels: int

    @property
    def view_s(self) -> float:
        """Seconds of full quality per view as measured, regression included."""
        return (self.measured.regression_s + self.measured.rungs[-1].seconds) / self.views

    def at(self, view_s: float | int) -> Measured:
        """The same on a machine that takes the given seconds for a view at full quality, regression included."""
        scale = view_s / self.view_s
        return replace(self, measured=_scaled(self.measured, scale))

    def table(self, *, contexts: int, views: int, height: int, width: int) -> PriceTable:
        """See `Pricing`; context views are taken to cost what they did when it was measured."""
        scale = views * height * width / (self.views * self.pixels)
        return _scaled(self.measured, scale)


def _scaled(table: PriceTable, scale: float) -> PriceTable:
    """A table with all seconds multiplied by a factor."""
    rungs = (replace(rung, seconds=rung.seconds * scale, seconds_p95=rung.seconds_p95 * scale) for rung in table.rungs)
    return PriceTable(
        regression_s=table.regression_s * scale,
        regression_p95_s=table.regression_p95_s * scale,
        rungs=tuple(rungs),
    )


def read_prices(path: Path) -> Measured:
    """Reads a measured table.

    The file is a JSON object: `source`, `views`, `height`, `width`, `regression_s`, `regression_p95_s`, `full_s`, and
    `rungs` as rows of quality, share of full diffusion's seconds, and the 95th percentile of that share.

    Raises:
        InputError: it is missing, or is no price table.
    """
    try:
        values = json.loads(path.read_text())
        full = float(values["full_s"])
        rungs = tuple(
            Rung(quality=quality, seconds=share * full, seconds_p95=slow * full, active_share=share)
            for quality, share, slow in values["rungs"]
        )
        table = PriceTable(
            regression_s=float(values["regression_s"]),
            regression_p95_s=float(values["regression_p95_s"]),
            rungs=rungs,
        )
        return Measured(measured=table, views=values["views"], pixels=values["height"] * values["width"])
    except OSError as error:
        raise InputError(str(path), "it cannot be read", HINT) from error
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(str(path), f"it is no price table ({error!r})", HINT) from error
