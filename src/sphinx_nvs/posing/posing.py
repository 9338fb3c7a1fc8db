"""Photos in, a checked scene with cameras out; stages that are done are kept, and an interrupted run continues."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sphinx_nvs import media
from sphinx_nvs.errors import InputError
from sphinx_nvs.posing import features, gates
from sphinx_nvs.posing.adjustment import adjust, with_focal
from sphinx_nvs.posing.advice import left_out
from sphinx_nvs.posing.colmap_library import colmap
from sphinx_nvs.posing.connection import keep_connected
from sphinx_nvs.posing.findings import Findings, findings_of
from sphinx_nvs.posing.focal_prior import ASSUMED, check_focal
from sphinx_nvs.posing.held_out import PairMatches, pair_matches, split_matches
from sphinx_nvs.posing.levelling import UNITS, levelled
from sphinx_nvs.posing.mapping import models
from sphinx_nvs.posing.photo_set import Photo, prepare_photos
from sphinx_nvs.posing.posing_progress import Progress, Report
from sphinx_nvs.posing.scene_files import write_scene
from sphinx_nvs.posing.work_folder import content_key, forget, work_folder


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """One way to match photos.

    Args:
        ratio: how much closer a match must be than the next one.
        thorough: see `features.extract`.
    """

    ratio: float
    thorough: bool = False


ATTEMPTS = (
    Attempt(ratio=0.8),
    Attempt(ratio=0.9),
    Attempt(ratio=0.8, thorough=True),
    Attempt(ratio=0.9, thorough=True),
)
"""Tried in turn while photos are left out: looser matches, then features that take longer."""

MOST_THOROUGH = 60
"""Up to this many photos get thorough features."""

_MOST = 400
_PAIR = 2


@dataclass(frozen=True, kw_only=True)
class PosedScene:
    """A scene that was made.

    Args:
        folder: with images/, transforms.json, sparse/0, points.ply, cameras.png, poses.json and poses.md.
        report: the content of poses.json.
    """

    folder: Path
    report: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class _Candidate:
    """A model with what is measured of it."""

    model: Any
    findings: Findings
    pairs: list[PairMatches]

    @property
    def merit(self) -> tuple[bool, int, int]:
        """Believed ones first, then those with more photos and more points."""
        return gates.failed(self.findings) is None, len(self.findings.registered), self.findings.points


def pose_photos(
    photos: Sequence[Path],
    out: Path,
    *,
    name: str | None = None,
    in_sequence: bool = False,
    notes: Sequence[str] = (),
    focal_mm: float | None = None,
    seed: int = 0,
    stages: Path | None = None,
    progress: Report | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> PosedScene:
    """Finds the cameras of photos and writes a scene, all of it or nothing.

    Args:
        photos: image files, at least two; names must differ.
        out: the scene's folder, which must not exist.
        name: of the scene, None for that of `out`.
        in_sequence: whether they are frames of a video, in order.
        notes: sentences to begin the report's with.
        focal_mm: focal length of the camera, as that of 35 mm film with the same angle of view; None for EXIF's.
        seed: of every random choice.
        stages: folder of finished stages, for a run that continues; None for the cache's.
        progress: receives the activity, the share of the work that is done and the seconds left.
        cancelled: asked now and then whether to stop.

    Returns:
        The scene; its report says what was found, assumed and left out.

    Raises:
        InputError: the photos do not determine cameras; it says why and what to photograph instead.
        OutputError: the scene cannot be written.
        PosingCancelledError: `cancelled` said so.
    """
    _check_photos(photos)
    check_focal(focal_mm)
    state = Progress(report=progress, cancelled=cancelled)
    started = time.monotonic()
    state.step("reading photos", 0.0)
    work = work_folder(content_key(photos, seed, in_sequence, focal_mm), stages)
    prepared = prepare_photos(photos, work / "photos", focal_mm, state.within("reading photos", 0.0, 0.1))
    try:
        best = _best(work, prepared, in_sequence, seed, state)
    except InputError:
        # The same photos would be refused again.
        forget(work)
        raise
    state.step("writing the scene", 0.95)
    report = _report(name or out.name, prepared, best, notes, time.monotonic() - started)
    levelled(best.model)
    with media.written_beside(out) as part:
        part.mkdir()
        write_scene(part, best.model, work / "photos", report)
    forget(work)
    state.step("done", 1.0)
    return PosedScene(folder=out, report=report)


def _check_photos(photos: Sequence[Path]) -> None:
    if len(photos) < _PAIR:
        count = "1 photo" if photos else "no photos"
        raise InputError(
            "photos", f"there is {count}" if photos else f"there are {count}", "give at least two, of the same things"
        )
    if len(photos) > _MOST:
        raise InputError("photos", f"there are {len(photos)}", f"give {_MOST} at most, spread over the scene")


def _best(work: Path, photos: Sequence[Photo], in_sequence: bool, seed: int, state: Progress) -> _Candidate:
    """The best model that passes every gate."""
    candidates: list[_Candidate] = []
    strict: list[PairMatches] | None = None
    for attempt in _attempts(photos):
        database = _matched(work, photos, attempt, in_sequence, seed, state)
        pairs = pair_matches(database, database.with_suffix(".mapping"))
        strict = pairs if strict is None else strict
        if not strict or gates.stands_still(strict):
            break
        for model in _models(work, database, photos, seed, state):
            candidates.append(_candidate(model, photos, pairs, verification_px(photos)))
            state.step("finding cameras", 0.8)
            if _is_whole(candidates[-1]):
                return candidates[-1]
        # Looser matches place more photos; they do not tell what all of them together leave open.
        if any(len(candidate.findings.registered) == len(photos) for candidate in candidates):
            break
    best = max(candidates, key=lambda candidate: candidate.merit, default=None)
    if best is None or gates.failed(best.findings) is not None:
        gates.check_overlap(photos, strict or [])
    if best is None:
        raise gates.without_cameras(photos, strict or [])
    gates.check(best.findings, among=gates.MOVED)
    gates.check_registered(photos, best.findings.registered, best.pairs)
    gates.check(best.findings)
    return best


def _attempts(photos: Sequence[Photo]) -> list[Attempt]:
    return [each for each in ATTEMPTS if not each.thorough or len(photos) <= MOST_THOROUGH]


def _models(work: Path, database: Path, photos: Sequence[Photo], seed: int, state: Progress) -> Iterator[Any]:
    return models(
        database.with_suffix(".mapping"),
        work / "photos",
        num_photos=len(photos),
        seed=seed,
        tick=lambda: state.step("finding cameras", 0.7),
    )


def _is_whole(candidate: _Candidate) -> bool:
    findings = candidate.findings
    return gates.failed(findings) is None and len(findings.registered) == findings.photos


def _matched(
    work: Path, photos: Sequence[Photo], attempt: Attempt, in_sequence: bool, seed: int, state: Progress
) -> Path:
    """The database of an attempt's matches; beside it lies the mapper's."""
    kind = "thorough" if attempt.thorough else "plain"
    found = work / f"features-{kind}.db"
    step = state.within("finding features", 0.1, 0.3)
    features.extract(found, work / "photos", photos, thorough=attempt.thorough, seed=seed, step=step)
    gates.check_features(photos, features.feature_counts(found))
    database = work / f"matches-{kind}-{attempt.ratio}.db"
    if not database.is_file():
        _copy(found, database)
    pairs = features.pairs_of([photo.file for photo in photos], in_sequence=in_sequence)
    step = state.within("comparing photos", 0.3, 0.6)
    features.match(database, pairs, ratio=attempt.ratio, lists=work / "pairs.txt", seed=seed, step=step)
    if not database.with_suffix(".mapping").is_file():
        split_matches(
            database,
            database.with_suffix(".mapping"),
            error_px=verification_px(photos),
            seed=seed,
            tick=lambda: state.step("checking matches", 0.6),
        )
    return database


def _copy(source: Path, target: Path) -> None:
    """A database's copy, whole or not at all."""
    with media.written_beside(target) as part:
        part.write_bytes(source.read_bytes())


def verification_px(photos: Sequence[Photo]) -> float:
    """Most pixels between a match and its epipolar line: a 400th of the long side, within COLMAP's 4 and 1.5."""
    longest = max(max(photo.width, photo.height) for photo in photos)
    return min(4.0, max(1.5, longest / 400))


def _candidate(model: Any, photos: Sequence[Photo], pairs: list[PairMatches], error: float) -> _Candidate:
    fixed = len(photos) == _PAIR
    model = adjust(model, fixed_focal=fixed)
    if keep_connected(model, pairs, error):
        model = adjust(model, fixed_focal=fixed)
    findings = findings_of(model, photos, pairs, error=error, fixed_focal=fixed)
    if gates.may_keep_exif(findings):
        model = with_focal(model, {photo.camera: photo.focal for photo in photos})
        findings = findings_of(model, photos, pairs, error=error, fixed_focal=True)
    return _Candidate(model=model, findings=findings, pairs=pairs)


def _report(
    name: str, photos: Sequence[Photo], best: _Candidate, notes: Sequence[str], seconds: float
) -> dict[str, Any]:
    """The content of poses.json."""
    findings = best.findings
    missing = left_out(photos, findings.registered, best.pairs)
    return {
        "name": name,
        **findings.to_json(),
        "left_out": [{"photo": each.photo, "why": each.found, "hint": each.hint} for each in missing],
        "source_names": {photo.file: photo.name for photo in photos},
        "seconds": round(seconds, 1),
        "colmap": colmap().__version__,
        "notes": [*notes, *_focal_notes(photos, findings), UNITS, *(f"{each.found}; {each.hint}" for each in missing)],
    }


def _focal_notes(photos: Sequence[Photo], findings: Findings) -> list[str]:
    """How the focal length was found."""
    unknown = sum(photo.prior.focal is None for photo in photos)
    notes = []
    if unknown:
        notes.append(
            f"{unknown} of {len(photos)} photos do not say their focal length: {ASSUMED} of the long side to begin with"
        )
    if len(photos) == _PAIR:
        how = "assumed" if unknown else "the given one"
        notes.append(f"two photos: the focal length is {how}, and distances are known up to a common factor")
    elif findings.focal_within is None:
        notes.append("the photos leave the focal length open: the given one is kept, and depths are as exact as it is")
    else:
        notes.append(f"the focal length is known to +-{findings.focal_within:.1%}")
    return notes
