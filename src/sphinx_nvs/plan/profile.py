"""A fitted profile: the loss of not computing, by kind of cell, measured offline for one pair of models.

    loss_L[cluster][k, b, s]    mean loss of a cell of score bin k and region signal bin b that starts at option s
                                (two tables: with held cells beside, and without any)

The score is the view's frame score or the cell's own contrast, whichever adds more to the region signal.

Losses are distances from full diffusion's frames, from the same noise, over `scale`, the mean distance of the
regressor's renders. A profile that was fitted against ground truth measures the error instead: what it exceeds full
diffusion's by, over what the renders' does on average. In both, quality 1 is full diffusion, and 0 is the regressor
alone on average.

Files are JSON and hold either such tables or score rules as the paper's (`rules.Profile`).

Shapes: K score bins, B signal bins, S start options, G clusters, D descriptor length.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from importlib.resources import files
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from sphinx_nvs.errors import InputError
from sphinx_nvs.json_types import JSONMapping, JSONObject
from sphinx_nvs.plan.levers import Levers
from sphinx_nvs.plan.rules import Profile, Rule
from sphinx_nvs.plan.search import Cluster, Costs

VERSION = 1
Correction = tuple[tuple[float, float], ...]
REDRAW, CHANGE, UNCERTAINTY = "redraw", "change", "uncertainty"
"""Region signals: how the targets differ when they are drawn anew from the photos' surfaces (`refine.redraw_probe`),
what the denoiser's first call would change (`refine.probe`), or what the render says of itself."""
SIGNALS = (REDRAW, CHANGE, UNCERTAINTY)
LITTLE = 0.1
"""Share of refined cells from which a plan is corrected as those that hold some cells and refine others."""
FRAME_SCORE, CONTRAST = "frame score", "contrast"
"""Scores: the quality of a view's render, or the structure in a cell of it, see `assess.change`."""


@dataclass(frozen=True, kw_only=True, eq=False)
class FittedProfile:
    """Everything that the planner knows of a pair of models.

    Args:
        name: shown in plans.
        preset: the pair that it was fitted for.
        metric: what distances are of.
        against: `full` diffusion or `truth`.
        scale: the loss that counts as 1, in the metric's own unit.
        signal: one of `SIGNALS`.
        score: `FRAME_SCORE` or `CONTRAST`.
        num_steps: steps of the grid that start options refer to.
        starts: start options, ascending; the last one, `num_steps`, keeps the render.
        signal_edges: ascending borders between the signal's bins.
        score_edges: ascending borders between the score's bins.
        levers: lever sets.
        clusters: at least one.
        correction: ascending (predicted, delivered) losses: what predictions were worth on scenes not fitted on,
            where no cell was held, or all were.
        correction_held: the same where some cells were held and others refined.
        costs: costs of calls on the machine that fitted the profile.
        typical: means over scenes by requested quality: rows of quality, compute share, and its 95th percentile.
        evidence: how it came about and how well it holds, as JSON values.
    """

    name: str
    preset: str
    metric: str
    against: str
    scale: float
    signal: str
    score: str
    num_steps: int
    starts: tuple[int, ...]
    signal_edges: tuple[float, ...]
    score_edges: tuple[float, ...]
    levers: tuple[Levers, ...]
    clusters: tuple[Cluster, ...]
    correction: Correction
    correction_held: Correction
    costs: Costs
    typical: tuple[tuple[float, float, float], ...] = ()
    evidence: JSONObject = field(default_factory=dict)

    def __post_init__(self) -> None:
        shape = (len(self.score_edges) + 1, len(self.signal_edges) + 1, len(self.starts))
        tables = [table.shape for cluster in self.clusters for table in (*cluster.losses, *cluster.whole)]
        if not tables or len(tables) != 2 * len(self.levers) * len(self.clusters) or any(t != shape for t in tables):
            raise InputError("profile", f"its tables are not all {shape}", "make it again with sphinx-nvs profile")
        if self.starts[-1] != self.num_steps or list(self.starts) != sorted(set(self.starts)):
            raise InputError("profile", f"its start steps are {self.starts}", "make it again with sphinx-nvs profile")
        if self.signal not in SIGNALS:
            raise InputError("profile", f"its signal is {self.signal!r}", f"say {' or '.join(SIGNALS)}")
        if self.score not in (FRAME_SCORE, CONTRAST):
            raise InputError("profile", f"its score is {self.score!r}", f"say {FRAME_SCORE} or {CONTRAST}")
        if not self.scale > 0:
            raise InputError("profile", f"its scale is {self.scale:g}", "make it again with sphinx-nvs profile")

    def cluster(self, descriptor: Float[Tensor, "D"]) -> int:
        """The nearest cluster by cosine."""
        if len(self.clusters) == 1:
            return 0
        centres = [cluster.centre for cluster in self.clusters if cluster.centre is not None]
        return int((torch.stack(centres) @ descriptor.cpu()).argmax())

    def corrected(self, loss: float, *, active: float) -> float:
        """The loss delivered where this one is predicted, for a plan that refines this share of cells, 0..1.

        A plan that refines next to nothing is corrected as the render is, so that none looks better by refining a cell.
        """
        whole = _read(self.correction, loss)
        if active in (0, 1):
            return whole
        partly = min(1.0, active / LITTLE)
        return (1 - partly) * whole + partly * _read(self.correction_held, loss)

    def to_json(self) -> JSONObject:
        """Every field as JSON values."""
        values = {name: value for name, value in vars(self).items() if name not in ("levers", "clusters", "costs")}
        return {
            "kind": "tables",
            "version": VERSION,
            **values,
            "levers": [asdict(lever) for lever in self.levers],
            "costs": asdict(self.costs),
            "clusters": [
                {
                    "centre": None if cluster.centre is None else [round(float(x), 6) for x in cluster.centre],
                    "losses": [np.round(table, 6).tolist() for table in cluster.losses],
                    "whole": [np.round(table, 6).tolist() for table in cluster.whole],
                }
                for cluster in self.clusters
            ],
        }


def _read(correction: Correction, loss: float) -> float:
    predicted, delivered = zip(*correction, strict=True)
    # Beyond the table: the last ratio goes on, where `np.interp` would stay at the last value and promise too much.
    if loss > predicted[-1]:
        return loss * delivered[-1] / predicted[-1]
    return float(np.interp(loss, predicted, delivered))


AnyProfile = Profile | FittedProfile


def load_profile(path: Path, preset: str | None = None) -> AnyProfile:
    """A profile file.

    Args:
        path: the file.
        preset: the pair that it is to be used with; None takes any.

    Raises:
        InputError: the file is missing, damaged, of another version, or made for another preset.
    """
    try:
        values = json.loads(path.read_bytes())
    except OSError as error:
        hint = "give a file that sphinx-nvs profile wrote"
        raise InputError(f"profile {path}", f"cannot be read ({error.strerror})", hint) from None
    except ValueError:
        raise InputError(f"profile {path}", "is not JSON", "give a file that sphinx-nvs profile wrote") from None
    return profile_from_json(values, f"profile {path}", preset)


def profile_from_json(values: object, where: str = "profile", preset: str | None = None) -> AnyProfile:
    """A profile from its JSON values; see `load_profile`."""
    hint = "make it again with sphinx-nvs profile"
    if not isinstance(values, dict) or values.get("kind") not in ("tables", "rules"):
        raise InputError(where, "it holds no profile", "give a file that sphinx-nvs profile wrote")
    if values.get("version") != VERSION:
        raise InputError(where, f"its version is {values.get('version')}, this program's is {VERSION}", hint)
    if preset is not None and values.get("preset") not in (None, preset):
        found = f"it was made for the preset {values['preset']}, not {preset}"
        raise InputError(where, found, f"make one with sphinx-nvs profile --preset {preset}, or leave it out")
    try:
        return _rules(values) if values["kind"] == "rules" else _tables(values)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError):
        raise InputError(where, "it is damaged", hint) from None


def rules_to_json(profile: Profile, preset: str | None = None) -> JSONObject:
    """Score rules as a profile file holds them."""
    return {
        "kind": "rules",
        "version": VERSION,
        "name": profile.name,
        "preset": preset,
        "centres": None if profile.centres is None else profile.centres.tolist(),
        "clusters": [
            [
                {"quality": quality, "num_steps": rule.num_steps, "ranges": [list(each) for each in rule.ranges]}
                for quality, rule in sorted(cluster.items())
            ]
            for cluster in profile.clusters
        ],
    }


def shipped_profile(name: str) -> AnyProfile:
    """A profile of the package, by its file's name without `.json`."""
    return profile_from_json(json.loads((files(__package__) / "profiles" / f"{name}.json").read_text()), name)


def _rules(values: JSONMapping) -> Profile:
    clusters = tuple(
        {
            float(rule["quality"]): Rule(
                tuple((float(low), float(high), int(start)) for low, high, start in rule["ranges"]),
                int(rule["num_steps"]),
            )
            for rule in cluster
        }
        for cluster in values["clusters"]
    )
    centres = values["centres"]
    return Profile(
        name=str(values["name"]), clusters=clusters, centres=None if centres is None else torch.tensor(centres)
    )


def _tables(values: JSONMapping) -> FittedProfile:
    clusters = tuple(
        Cluster(
            centre=None if cluster["centre"] is None else torch.tensor(cluster["centre"], dtype=torch.float32),
            losses=tuple(np.asarray(table, dtype=float) for table in cluster["losses"]),
            whole=tuple(np.asarray(table, dtype=float) for table in cluster["whole"]),
        )
        for cluster in values["clusters"]
    )
    names = ("name", "preset", "metric", "against", "scale", "signal", "score", "num_steps")
    rest = {name: values[name] for name in names}
    return FittedProfile(
        **rest,
        starts=tuple(int(start) for start in values["starts"]),
        signal_edges=tuple(float(edge) for edge in values["signal_edges"]),
        score_edges=tuple(float(edge) for edge in values["score_edges"]),
        levers=tuple(_levers(lever) for lever in values["levers"]),
        clusters=clusters,
        correction=tuple((float(a), float(b)) for a, b in values["correction"]),
        correction_held=tuple((float(a), float(b)) for a, b in values["correction_held"]),
        costs=_costs(values["costs"]),
        typical=tuple((float(a), float(b), float(c)) for a, b, c in values["typical"]),
        evidence=dict(values["evidence"]),
    )


def _costs(values: JSONMapping) -> Costs:
    fields: JSONObject = {name: tuple(v) if isinstance(v, list) else v for name, v in values.items()}
    return Costs(**fields)


def _levers(values: JSONMapping) -> Levers:
    fields: JSONObject = {name: tuple(v) if isinstance(v, list) else v for name, v in values.items()}
    return Levers(**fields)


def _paper_profile() -> Profile:
    profile = shipped_profile("paper-seva-mvsplat")
    assert isinstance(profile, Profile)
    return profile


PAPER_PROFILE = _paper_profile()
"""The released rules of SEVA + MVSplat for quality 0.98 and 0.95, three clusters; their scores are MUSIQ ratios."""
