"""Features of photos and their matches, in a COLMAP database that can be filled piece by piece.

Pieces are small enough for progress, and what is in the database already is not computed again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import combinations, groupby
from pathlib import Path
from typing import Any

from sphinx_nvs.posing.colmap_library import colmap, num_threads
from sphinx_nvs.posing.photo_set import Photo

Step = Callable[[int, int], None]

EXHAUSTIVE = 60
"""Up to this many photos every pair is matched."""

_OVERLAP = 8
_LOOP_STEP = 6
_MOST_FEATURES = 4096
_PAIRS_AT_ONCE = 24
_LARGE = 1000
"""Long sides above this have features enough without being doubled first."""


def extract(
    database: Path, folder: Path, photos: Sequence[Photo], *, thorough: bool = False, seed: int, step: Step
) -> None:
    """Finds SIFT features of photos that have none yet.

    Args:
        database: made if it is missing.
        folder: of the working copies.
        photos: all photos.
        thorough: whether affine shapes are estimated and domain sizes pooled, which takes several times as long, and
            finds the same things again from directions further apart.
        seed: of every random choice.
        step: receives photos done and to do.
    """
    _name(database, folder, photos)
    missing = [photo for photo in photos if photo.file not in _known(database)]
    done = len(photos) - len(missing)
    most = 2 * num_threads()
    for start in range(0, len(missing), most):
        step(done + start, len(photos))
        _extract_some(database, folder, missing[start : start + most], thorough, seed)
    step(len(photos), len(photos))


def _name(database: Path, folder: Path, photos: Sequence[Photo]) -> None:
    """Gives photos and their cameras numbers, in their order; threads that find features would, in any order."""
    named = _named(database)
    for camera, run in groupby((p for p in photos if p.file not in named), key=lambda photo: photo.camera):
        some = list(run)
        library, reader, photo = colmap(), colmap().ImageReaderOptions(), some[0]
        reader.camera_model = "SIMPLE_RADIAL"
        if camera in _cameras(database):
            reader.existing_camera_id = camera
        else:
            reader.camera_params = f"{photo.focal}, {photo.width / 2}, {photo.height / 2}, 0"
        names = [each.file for each in some]
        library.import_images(database, folder, library.CameraMode.SINGLE, image_names=names, options=reader)


def _extract_some(database: Path, folder: Path, photos: Sequence[Photo], thorough: bool, seed: int) -> None:
    """Features of photos that have numbers."""
    library = colmap()
    library.set_random_seed(seed)
    options = library.FeatureExtractionOptions()
    options.num_threads, options.use_gpu = num_threads(), False
    options.sift.max_num_features = _MOST_FEATURES
    options.sift.domain_size_pooling = options.sift.estimate_affine_shape = thorough
    options.sift.first_octave = -1 if max(max(photo.width, photo.height) for photo in photos) <= _LARGE else 0
    library.extract_features(
        database,
        folder,
        image_names=[each.file for each in photos],
        extraction_options=options,
        device=library.Device.cpu,
    )


def _cameras(database: Path) -> set[int]:
    """Numbers of the cameras; they are the photos' own, for cameras are written in their order."""
    with colmap().Database.open(database) as opened:
        return {camera.camera_id for camera in opened.read_all_cameras()}


def _named(database: Path) -> set[str]:
    """Names of photos that have numbers; the database is made if it is missing."""
    with colmap().Database.open(database) as opened:
        return {image.name for image in opened.read_all_images()}


def _known(database: Path) -> set[str]:
    """Names of photos whose features are in the database."""
    if not database.is_file():
        return set()
    with colmap().Database.open(database) as opened:
        images = opened.read_all_images()
        return {image.name for image in images if opened.exists_descriptors(image.image_id)}


def feature_counts(database: Path) -> dict[str, int]:
    """Number of features of every photo."""
    with colmap().Database.open(database) as opened:
        images = opened.read_all_images()
        return {image.name: int(opened.num_keypoints_for_image(image.image_id)) for image in images}


def pairs_of(files: Sequence[str], *, in_sequence: bool) -> list[tuple[str, str]]:
    """Which photos are compared: all with all, or in a long sequence neighbours and, for loops, every few ones.

    Args:
        files: names, in order.
        in_sequence: whether they are frames of a video, whose order tells what lies side by side.
    """
    if len(files) <= EXHAUSTIVE and not (in_sequence and len(files) > EXHAUSTIVE // 2):
        return list(combinations(files, 2))
    near = {(i, j) for i, j in combinations(range(len(files)), 2) if j - i <= _OVERLAP}
    spread = set(combinations(range(0, len(files), _LOOP_STEP if in_sequence else 1), 2))
    return [(files[i], files[j]) for i, j in sorted(near | spread)]


def match(
    database: Path, pairs: Sequence[tuple[str, str]], *, ratio: float, lists: Path, seed: int, step: Step
) -> None:
    """Matches features of pairs that have no matches yet; nothing is verified.

    Args:
        database: with features.
        pairs: names of photos.
        ratio: a match must be closer than the second closest by this factor.
        lists: a file for names of pairs.
        seed: of every random choice.
        step: receives pairs done and to do.
    """
    library = colmap()
    options = library.FeatureMatchingOptions()
    options.num_threads, options.use_gpu = num_threads(), False
    options.skip_geometric_verification = True
    options.sift.max_ratio = ratio
    pairing = library.ImportedPairingOptions()
    missing = _unmatched(database, pairs)
    for start in range(0, len(missing), _PAIRS_AT_ONCE):
        step(len(pairs) - len(missing) + start, len(pairs))
        lists.write_text("".join(f"{a} {b}\n" for a, b in missing[start : start + _PAIRS_AT_ONCE]))
        pairing.match_list_path = lists
        library.set_random_seed(seed)
        library.match_image_pairs(
            database, matching_options=options, pairing_options=pairing, device=library.Device.cpu
        )
    step(len(pairs), len(pairs))


def _unmatched(database: Path, pairs: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    with colmap().Database.open(database) as opened:
        ids = {image.name: image.image_id for image in opened.read_all_images()}
        return [(a, b) for a, b in pairs if not opened.exists_matches(ids[a], ids[b])]


def images_by_id(opened: Any) -> dict[int, str]:
    """Names of the photos in an open database."""
    return {image.image_id: image.name for image in opened.read_all_images()}
