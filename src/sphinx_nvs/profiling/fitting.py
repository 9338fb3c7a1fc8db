"""Fitting of a profile to scene records: bins, monotone tables, clusters, and the calibration of predictions.

    loss_L[k, b, s] = mean of d over cells of score bin k and region signal bin b that started at s under levers L

with d the distance to full diffusion's frames over the mean distance of the renders (against truth: how much greater
the error is than full diffusion's, over the same of the renders). A bin with few observations is shrunk towards the
pooled ratio of its run to keeping the render. Tables are made monotone: a stronger signal or a worse score never loses
less (isotonic regression, one axis after the other). A later start may: where steps are few, those that it skips are
the widest. The number of clusters is the one whose tables, fitted on four fifths of the scenes, best predict the loss
of runs on the last fifth; so are the score, the view's or the cell's, and its number of bins.

Shapes: N observations, K score bins, B signal bins, S start options, G clusters, D descriptor length.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from scipy.cluster.vq import kmeans2
from scipy.optimize import isotonic_regression

from sphinx_nvs.errors import InputError
from sphinx_nvs.plan.profile import CONTRAST, FRAME_SCORE, FittedProfile
from sphinx_nvs.plan.search import Cluster, Costs
from sphinx_nvs.profiling.measuring import ProfileConfig, Record

SIGNAL_BINS = 24
MOST_CLUSTERS = 3
SCORES = ((FRAME_SCORE, 1), (FRAME_SCORE, 2), (FRAME_SCORE, 3), (CONTRAST, 2), (CONTRAST, 3), (CONTRAST, 5))
"""Candidate scores, each with its candidate numbers of bins."""
FOLDS = 5
PRIOR_CELLS = 60.0
"""Weight of the pooled ratio in each bin, in observations."""

CLUSTER_PRIOR_SCENES = 6.0
"""Weight of the tables of all clusters together in each cluster, in scenes."""

LEAST_SCENES = 5

CHECKED = (0.80, 1.0)
"""Range of predicted quality in which errors on held-out scenes count."""

Tables = tuple[Float[np.ndarray, "K B S"], ...]
"""One table per lever set."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Bins:
    """Borders between bins.

    Args:
        signal: borders of the region signal, ascending.
        score: borders of the score, ascending.
        score_name: which score.
    """

    signal: tuple[float, ...]
    score: tuple[float, ...]
    score_name: str

    @property
    def shape(self) -> tuple[int, int]:
        """K, B."""
        return len(self.score) + 1, len(self.signal) + 1

    def of(self, record: Record, signal: str) -> Int[np.ndarray, "V h w"]:
        """The flat bin index of every cell: k B + b."""
        region = np.digitize(record.signals[signal].double().numpy(), np.asarray(self.signal))
        score = np.digitize(record.score(self.score_name).double().numpy(), np.asarray(self.score))
        return score * self.shape[1] + region


@dataclass(frozen=True, kw_only=True)
class Choice:
    """Prediction error of a profile shape on scenes it was not fitted to.

    Args:
        clusters: G.
        score: which score.
        score_bins: K.
        error: mean absolute error of a run's loss, over runs whose predicted quality is in `CHECKED`.
    """

    clusters: int
    score: str
    score_bins: int
    error: float


def fit_profile(
    records: Sequence[Record], config: ProfileConfig, costs: Costs, name: str
) -> tuple[FittedProfile, list[Choice]]:
    """Fits a profile without correction; returns it with the tried shapes and their errors.

    Args:
        records: records of at least `LEAST_SCENES` scenes.
        config: how they were measured.
        costs: costs of calls, for the planner.
        name: name of the profile.

    Raises:
        InputError: there are too few scenes.
    """
    if len(records) < LEAST_SCENES:
        found = f"{len(records)} scenes were measured"
        raise InputError("--scenes", found, f"give at least {LEAST_SCENES}: rules are checked on held-out scenes")
    choices = [
        Choice(clusters=g, score=score, score_bins=k, error=_held_out_error(records, config, g, score, k))
        for g in range(1, MOST_CLUSTERS + 1)
        for score, k in SCORES
        # At least eight scenes a cluster: with fewer, a cluster's tables are its scenes.
        if g == 1 or len(records) >= 8 * g
    ]
    best = _simplest_good(choices)
    shape = {"clusters": best.clusters, "score_bins": best.score_bins}
    return fitted(records, config, costs, name, score=best.score, **shape), choices


def fitted(
    records: Sequence[Record],
    config: ProfileConfig,
    costs: Costs,
    name: str,
    *,
    clusters: int,
    score: str,
    score_bins: int,
) -> FittedProfile:
    """A profile of a given shape, without correction; see `fit_profile`."""
    bins = _bins(records, config, score, score_bins)
    scale = _scale(records, config)
    centres, members = _clustered(records, clusters)
    pooled = _tables(records, config, bins, scale)
    made = []
    for group in range(clusters):
        # Small clusters are shrunk towards the pooled tables by their number of scenes.
        own = [record for record, member in zip(records, members, strict=True) if member == group]
        weight = len(own) / (len(own) + CLUSTER_PRIOR_SCENES) if clusters > 1 else 0.0
        tables = _tables(own, config, bins, scale) if weight else pooled
        losses, whole = (_mixed(part, shared, weight) for part, shared in zip(tables, pooled, strict=True))
        centre = None if clusters == 1 else torch.from_numpy(centres[group]).float()
        made.append(Cluster(centre=centre, losses=losses, whole=whole))
    return FittedProfile(
        name=name,
        preset=config.preset,
        metric=config.metric,
        against=config.against,
        scale=scale,
        signal=config.signal,
        score=score,
        num_steps=config.num_steps,
        starts=config.starts,
        signal_edges=bins.signal,
        score_edges=bins.score,
        levers=config.levers,
        clusters=tuple(made),
        correction=((0.0, 0.0), (1.0, 1.0)),
        correction_held=((0.0, 0.0), (1.0, 1.0)),
        costs=costs,
    )


def _mixed(own: Tables, shared: Tables, weight: float) -> Tables:
    """Weighted mean of a cluster's tables and those of all scenes, made monotone again."""
    return tuple(_monotone(weight * a + (1 - weight) * b) for a, b in zip(own, shared, strict=True))


def run_losses(
    record: Record, profile: FittedProfile, config: ProfileConfig
) -> tuple[Float[np.ndarray, "R"], Float[np.ndarray, "R"]]:
    """Predicted and delivered loss of keeping a scene's render (first) and of each of its runs."""
    bins = Bins(signal=profile.signal_edges, score=profile.score_edges, score_name=profile.score)
    flat = bins.of(record, config.signal)
    cluster = profile.clusters[profile.cluster(record.descriptor)]
    last = len(profile.starts) - 1
    predicted = [float(cluster.whole[0].reshape(-1, last + 1)[flat, last].mean())]
    delivered = [_kept_loss(record, config).mean() / profile.scale]
    for run in record.runs:
        # Start steps become option indices; the last option keeps the render.
        option = np.searchsorted(np.asarray(profile.starts), run.start_step.numpy())
        table = cluster.table(run.lever, float((option == last).mean()))
        predicted.append(float(table.reshape(-1, last + 1)[flat, option].mean()))
        delivered.append(_run_loss(record, run.to_full.numpy(), run.to_truth.numpy(), config).mean() / profile.scale)
    return np.array(predicted), np.array(delivered)


Losses = tuple[Float[np.ndarray, "R"], Float[np.ndarray, "R"]]
"""Predicted and delivered losses of a scene's render and runs."""


def refitted(profile: FittedProfile, records: Sequence[Record], config: ProfileConfig) -> FittedProfile:
    """A profile of the same shape, fitted to other records."""
    return fitted(
        records,
        config,
        profile.costs,
        profile.name,
        clusters=len(profile.clusters),
        score=profile.score,
        score_bins=len(profile.score_edges) + 1,
    )


def held_out_losses(profile: FittedProfile, records: Sequence[Record], config: ProfileConfig) -> list[Losses]:
    """Losses of every scene's runs, predicted by a profile of the same shape that was fitted without the scene."""
    found: dict[str, Losses] = {}
    for fitting, held_out in folds_of(records):
        fold = refitted(profile, fitting, config)
        # Relative to the whole profile's scale: each fold has a slightly different one.
        change = fold.scale / profile.scale
        for record in held_out:
            predicted, delivered = run_losses(record, fold, config)
            found[record.name] = (predicted * change, delivered * change)
    return [found[record.name] for record in records]


def partly_held(record: Record, config: ProfileConfig) -> Bool[np.ndarray, "R"]:
    """Marks the runs (after the render) that hold some cells and refine others."""
    held = [bool((run.start_step == config.num_steps).any()) for run in record.runs]
    return np.array([False, *held])


def correction_from(
    predicted: Float[np.ndarray, "N"], delivered: Float[np.ndarray, "N"], num_knots: int = 8
) -> tuple[tuple[float, float], ...]:
    """A monotone map from predicted to delivered losses, through (0, 0) and means of equally many pairs."""
    order = np.argsort(predicted, kind="stable")
    groups = [g for g in np.array_split(order, min(num_knots, max(1, len(order) // 5))) if len(g)]
    x = np.array([predicted[g].mean() for g in groups])
    # Monotone: a plan that is predicted to be better must not be corrected to be worse.
    y = isotonic_regression(np.array([delivered[g].mean() for g in groups]), weights=[len(g) for g in groups]).x
    # Knots are strictly increasing in x and non-decreasing in y, so that the map can be interpolated.
    knots = [(0.0, 0.0)]
    for a, b in zip(x, np.maximum(y, 0.0), strict=True):
        if a > knots[-1][0] + 1e-9:
            knots.append((round(float(a), 6), round(max(float(b), knots[-1][1]), 6)))
    return tuple(knots) if len(knots) > 1 else ((0.0, 0.0), (1.0, 1.0))


def folds_of(records: Sequence[Record], num_folds: int = FOLDS) -> list[tuple[list[Record], list[Record]]]:
    """Pairs of fitting and held-out scenes; every scene is held out once."""
    num_folds = min(num_folds, len(records))
    return [
        (
            [r for i, r in enumerate(records) if i % num_folds != fold],
            [r for i, r in enumerate(records) if i % num_folds == fold],
        )
        for fold in range(num_folds)
    ]


def _held_out_error(
    records: Sequence[Record], config: ProfileConfig, clusters: int, score: str, score_bins: int
) -> float:
    errors = []
    for fitting, held_out in folds_of(records):
        profile = fitted(fitting, config, _NO_COSTS, "fold", clusters=clusters, score=score, score_bins=score_bins)
        for record in held_out:
            predicted, delivered = run_losses(record, profile, config)
            # Only qualities that are requested in practice: errors far below would decide the shape otherwise.
            errors.append(np.abs(predicted - delivered)[predicted <= 1 - CHECKED[0]])
    counted = np.concatenate(errors)
    return float(counted.mean()) if len(counted) else float("inf")


def _simplest_good(choices: Sequence[Choice]) -> Choice:
    """The simplest shape whose error is within 2 % of the least: clusters and bins must reduce the error."""
    least = min(choice.error for choice in choices)
    good = [choice for choice in choices if choice.error <= 1.02 * least]
    return min(good, key=lambda choice: (choice.clusters, choice.score_bins))


def _bins(records: Sequence[Record], config: ProfileConfig, score: str, score_bins: int) -> Bins:
    """Bin borders; half of the signal's split cells into equal numbers, half split its sum into equal parts."""
    # Equal counts resolve the many weak cells, equal mass the few strong ones, where most of the loss is.
    signal = np.sort(np.concatenate([r.signals[config.signal].double().numpy().ravel() for r in records]))
    mass = np.cumsum(signal.clip(min=0))
    half = SIGNAL_BINS // 2
    by_count = np.quantile(signal, np.linspace(0, 1, half + 1)[1:-1])
    levels = np.searchsorted(mass, mass[-1] * np.linspace(0, 1, half + 2)[1:-1])
    by_mass = signal[levels.clip(max=len(signal) - 1)]
    # Rounded, so that edges that are equal but for rounding become one.
    edges = np.unique(np.round(np.concatenate([by_count, by_mass]), 7))
    scores = np.concatenate([r.score(score).double().numpy().ravel() for r in records])
    cuts = np.unique(np.round(np.quantile(scores, np.linspace(0, 1, score_bins + 1)[1:-1]), 6))
    return Bins(signal=tuple(map(float, edges)), score=tuple(map(float, cuts)), score_name=score)


def _scale(records: Sequence[Record], config: ProfileConfig) -> float:
    """The distance that counts as a loss of 1: that of the renders, on average over scenes.

    Raises:
        InputError: full diffusion's error is not less than the renders'.
    """
    scale = float(np.mean([_kept_loss(record, config).mean(dtype=np.float64) for record in records]))
    if scale <= 0:
        hint = "give other scenes, or fit against full diffusion"
        raise InputError("--against", "full diffusion is no better than the render on these scenes", hint)
    return scale


def _kept_loss(record: Record, config: ProfileConfig) -> Float[np.ndarray, "V h w"]:
    return _run_loss(record, record.kept.numpy(), record.kept_truth.numpy(), config)


def _run_loss(
    record: Record, to_full: np.ndarray, to_truth: np.ndarray, config: ProfileConfig
) -> Float[np.ndarray, "V h w"]:
    return to_full if config.against == "full" else to_truth - record.full_truth.numpy()


def _tables(records: Sequence[Record], config: ProfileConfig, bins: Bins, scale: float) -> tuple[Tables, Tables]:
    """Mean losses of every bin for each lever set: with some cells held, and with none held.

    With held cells only starts from noise were run: a later start's extra loss is taken from runs without held cells.
    Held cells gain slightly from refined neighbours, independently of the lever set.
    """
    kept = _kept_table(records, config, bins)
    whole = [_filled_options(*sums, kept) for sums in _sums(records, config, bins)]
    beside = _sums(records, config, bins, whole)
    held_sums, held_counts = (np.sum([pair[i][:, -1] for pair in beside], axis=0) for i in (0, 1))
    held = _shrunk_means(held_sums, held_counts, kept)
    masked = []
    for (sums, counts), unheld in zip(beside, whole, strict=True):
        from_noise = _shrunk_means(sums[:, 0], counts[:, 0], kept)
        later = from_noise[:, None] + unheld[:, :-1] - unheld[:, :1]
        masked.append(np.concatenate([later.clip(min=0.0), held[:, None]], axis=1))
    shape = (*bins.shape, len(config.starts))
    return (
        tuple(_monotone(table.reshape(shape) / scale) for table in masked),
        tuple(_monotone(table.reshape(shape) / scale) for table in whole),
    )


def _kept_table(records: Sequence[Record], config: ProfileConfig, bins: Bins) -> Float[np.ndarray, "KB"]:
    """Mean loss of every bin if the render is kept."""
    num_bins = bins.shape[0] * bins.shape[1]
    sums, counts = np.zeros(num_bins), np.zeros(num_bins)
    for record in records:
        flat = bins.of(record, config.signal)
        sums += np.bincount(flat.ravel(), _kept_loss(record, config).ravel(), num_bins)
        counts += np.bincount(flat.ravel(), minlength=num_bins)
    return _filled(sums, counts, bins.shape)


def _sums(
    records: Sequence[Record],
    config: ProfileConfig,
    bins: Bins,
    whole: Sequence[Float[np.ndarray, "KB S"]] | None = None,
) -> list[tuple[Float[np.ndarray, "KB S"], Float[np.ndarray, "KB S"]]]:
    """Sums of losses and numbers of cells by bin and start, for each lever set.

    Without `whole`, over runs without held cells. With `whole`, the losses of those, over runs with some: the extra
    loss of refined cells grows with the share of held ones; it is extrapolated to a share of nearly 1.
    """
    num_bins, num_starts = bins.shape[0] * bins.shape[1], len(config.starts)
    size = num_bins * num_starts
    found = [(np.zeros((num_bins, num_starts)), np.zeros((num_bins, num_starts))) for _ in config.levers]
    for record in records:
        flat = bins.of(record, config.signal).ravel()
        for run in record.runs:
            start_step = run.start_step.numpy().ravel()
            held = float((start_step == config.num_steps).mean())
            if (held > 0) != (whole is not None):
                continue
            option = np.searchsorted(np.asarray(config.starts), start_step)
            index = flat * num_starts + option
            loss = _run_loss(record, run.to_full.numpy(), run.to_truth.numpy(), config).ravel()
            if whole is not None:
                unheld = whole[run.lever][flat, option]
                # Linear in the share of held cells, as `_between` reads the tables; the kept cells themselves have
                # their loss anyway.
                loss = np.where(option < num_starts - 1, unheld + (loss - unheld) / held, loss)
            sums, counts = found[run.lever]
            sums += np.bincount(index, loss, size).reshape(num_bins, num_starts)
            counts += np.bincount(index, minlength=size).reshape(num_bins, num_starts)
    return found


def _filled_options(
    sums: Float[np.ndarray, "KB S"], counts: Float[np.ndarray, "KB S"], kept: Float[np.ndarray, "KB"]
) -> Float[np.ndarray, "KB S"]:
    """Mean losses of every start; the last one keeps the render."""
    made = [_shrunk_means(sums[:, option], counts[:, option], kept) for option in range(sums.shape[1] - 1)]
    return np.stack([*made, kept], axis=1)


def _shrunk_means(
    sums: Float[np.ndarray, "KB"], counts: Float[np.ndarray, "KB"], kept: Float[np.ndarray, "KB"]
) -> Float[np.ndarray, "KB"]:
    """Means shrunk towards the pooled ratio to keeping the render, for bins with few cells."""
    ratio = sums.sum() / max(float((counts * kept).sum()), 1e-12) if counts.any() else 1.0
    return (sums + PRIOR_CELLS * kept * ratio) / (counts + PRIOR_CELLS)


def _filled(sums: np.ndarray, counts: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Means; an empty bin takes the mean over scores, or interpolates along the signal."""
    sums, counts = sums.reshape(shape), counts.reshape(shape)
    over_scores = np.divide(sums.sum(0), counts.sum(0), out=np.full(shape[1], np.nan), where=counts.sum(0) > 0)
    known = np.flatnonzero(np.isfinite(over_scores))
    over_scores = np.interp(np.arange(shape[1]), known, over_scores[known])
    return ((sums + PRIOR_CELLS * over_scores) / (counts + PRIOR_CELLS)).ravel()


def _monotone(table: Float[np.ndarray, "K B S"]) -> Float[np.ndarray, "K B S"]:
    """Makes losses increase with the signal and decrease with the score."""
    table = np.apply_along_axis(lambda row: isotonic_regression(row).x, 1, table)
    return np.apply_along_axis(lambda row: isotonic_regression(row, increasing=False).x, 0, table)


def _clustered(records: Sequence[Record], clusters: int) -> tuple[Float[np.ndarray, "G D"], Int[np.ndarray, "N"]]:
    """Unit centres by k-means on unit descriptors, and the nearest centre of each scene by cosine similarity."""
    descriptors = torch.stack([record.descriptor for record in records]).double().numpy()
    if clusters == 1:
        return descriptors.mean(0, keepdims=True), np.zeros(len(records), dtype=int)
    centres, _ = kmeans2(descriptors, clusters, minit="++", seed=0)
    centres = centres / np.maximum(np.linalg.norm(centres, axis=1, keepdims=True), 1e-12)
    return centres, (descriptors @ centres.T).argmax(1)


_NO_COSTS = Costs(fixed=0.0, sparse_base=1.0, sparse_slope=0.0)
