"""Uploads without cameras: photos or a video, whose cameras are found in a process with limits.

    folder/upload.json   what was sent          folder/incoming/   the files as they were sent
    folder/stages/       finished stages        folder/posed/      the scene with cameras, before it is stored

What is there after an interruption is used again.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import time
from dataclasses import asdict, dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path

from sphinx_nvs import media
from sphinx_nvs.errors import InputError
from sphinx_nvs.json_types import JSONObject
from sphinx_nvs.posing import pose_photos
from sphinx_nvs.posing.colmap_library import muted
from sphinx_nvs.posing.photo_sources import pose_video
from sphinx_nvs.posing.posing_progress import Report
from sphinx_nvs.scene.photos import natural_key
from sphinx_nvs.server.scenes import limited_process
from sphinx_nvs.server.scenes.archives import CAMERA_SUFFIXES
from sphinx_nvs.server.scenes.ingest import SceneRequest, StoredScene, check_photo, client_errors, make_scene
from sphinx_nvs.server.scenes.ingest_pool import answer_with
from sphinx_nvs.server.server_config import UploadLimits

HINT = "send fewer or smaller photos, or a shorter video"
"""What to do about photos that take more than they may."""

_UPLOAD, _STAGES, _POSED, INCOMING = "upload.json", "stages", "posed", "incoming"

POINTS = "points.ply"
"""Points that were found with the cameras, in their coordinates."""
_REPORT_EVERY_S = 0.5
_NICE = 10


@dataclass(frozen=True, kw_only=True)
class PlainUpload:
    """What is posed.

    Args:
        photos: names of the photos below the files that were sent, in order; empty for a video.
        video: the video's name there; None for photos.
        request: options of the upload.
    """

    photos: tuple[str, ...] = ()
    video: str | None = None
    request: SceneRequest


@dataclass(frozen=True, kw_only=True)
class PosingWork:
    """What a process does."""

    folder: Path
    limits: UploadLimits


def plain_upload(source: Path, request: SceneRequest) -> PlainUpload | None:
    """The photos or the video of an upload, None if it has files of cameras or no photos.

    Args:
        source: folder with the files, whose names are safe.
        request: options of the upload.

    Raises:
        InputError: there are too few photos or several videos, or the request is for scenes with cameras.
    """
    files = {path.relative_to(source).as_posix(): path.suffix.lower() for path in source.rglob("*") if path.is_file()}
    videos = [name for name, suffix in files.items() if suffix in media.VIDEO_SUFFIXES]
    photos = [name for name, suffix in files.items() if suffix in media.IMAGE_SUFFIXES]
    if any(suffix in CAMERA_SUFFIXES for suffix in files.values()) or not (photos or videos):
        return None
    if request.split is not None:
        raise InputError("split", "photos without cameras have none", "leave it out")
    if photos:
        if len(photos) < 2:
            raise InputError("photos", "there is 1 photo", "give at least two, of the same things")
        return PlainUpload(photos=_ordered(photos, request), request=request)
    if len(videos) > 1:
        raise InputError("video", f"there are {len(videos)}", "send one video, or photos")
    return PlainUpload(video=videos[0], request=request)


def _ordered(photos: list[str], request: SceneRequest) -> tuple[str, ...]:
    """The form's order, that of names for an archive."""
    if request.photos is not None:
        return tuple(f"images/{name}" for name in request.photos)
    return tuple(sorted(photos, key=natural_key))


def write_upload(folder: Path, upload: PlainUpload) -> None:
    """Notes what is to be posed in a scene's folder."""
    media.write_bytes(folder / _UPLOAD, json.dumps(asdict(upload)).encode())


def _read_upload(folder: Path) -> PlainUpload:
    value = json.loads((folder / _UPLOAD).read_bytes())
    request = value["request"]
    names = request["photos"]
    request |= {"notes": tuple(request["notes"]), "photos": None if names is None else tuple(names)}
    return PlainUpload(photos=tuple(value["photos"]), video=value["video"], request=SceneRequest(**request))


def discard_upload(folder: Path) -> None:
    """Removes all but the stored scene."""
    for name in (INCOMING, _STAGES, _POSED):
        shutil.rmtree(folder / name, ignore_errors=True)
    (folder / _UPLOAD).unlink(missing_ok=True)


# In the process -------------------------------------------------------------------------------------------------------


def pose(connection: Connection, work: PosingWork) -> None:
    """The process: finds cameras, makes a scene, and sends progress and the answer."""
    limits = work.limits
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    limited_process.begin(
        connection,
        cpu_seconds=round(limits.posing_seconds * cores),
        memory_bytes=limits.posing_memory_bytes,
        niceness=_NICE,
    )
    with muted():
        answer_with(connection, lambda: posed_scene(work.folder, limits, _reporter(connection)), HINT)


def _reporter(connection: Connection) -> Report:
    """Sends progress now and then."""
    last_stage, last_at = "", -math.inf

    def report(stage: str, share: float, left_s: float) -> None:
        nonlocal last_stage, last_at
        now = time.monotonic()
        if stage == last_stage and now - last_at < _REPORT_EVERY_S:
            return
        last_stage, last_at = stage, now
        left = None if math.isnan(left_s) else round(left_s, 1)
        message = {"kind": limited_process.PROGRESS, "stage": stage, "share": round(share, 3), "left_s": left}
        limited_process.send(connection, message)

    return report


def posed_scene(folder: Path, limits: UploadLimits, progress: Report) -> StoredScene:
    """Finds the cameras of an upload and stores the scene.

    Raises:
        InputError: the photos cannot be read, or do not determine cameras.
    """
    upload, source = _read_upload(folder), folder / INCOMING
    with client_errors(source / "images", source), media.pixels_at_most(limits.photo_pixels):
        for name in upload.photos:
            check_photo(source / name, limits)
        report = _report(folder, upload, progress)
    notes = [f"{report['registered']} of {report['photos']} photos have a camera", *report["notes"]]
    request = replace(
        upload.request,
        contexts=_contexts_of_posed(upload.request.contexts, report),
        notes=(*upload.request.notes, *notes),
        photos=None,
    )
    shutil.copyfile(folder / _POSED / POINTS, folder / POINTS)
    return make_scene(folder / _POSED, folder, request, limits)


def _report(folder: Path, upload: PlainUpload, progress: Report) -> JSONObject:
    """The report of the posed scene, which is made unless it is there."""
    posed, source, stages = folder / _POSED, folder / INCOMING, folder / _STAGES
    focal_mm = upload.request.focal_mm
    if not (posed / "poses.json").is_file():
        if upload.video is not None:
            pose_video(source / upload.video, posed, focal_mm=focal_mm, stages=stages, progress=progress)
        else:
            photos = [source / name for name in upload.photos]
            pose_photos(photos, posed, focal_mm=focal_mm, stages=stages, progress=progress)
    return dict(json.loads((posed / "poses.json").read_bytes()))


def _contexts_of_posed(contexts: str | None, report: JSONObject) -> str | None:
    """Numbers of photos as they were sent, as numbers among those that have a camera.

    Raises:
        InputError: a photo has no camera, or does not exist.
    """
    if contexts is None or "," not in contexts:
        return contexts
    missing = {entry["photo"] for entry in report["left_out"]}
    names = list(report["source_names"].values())
    numbers = [part.strip() for part in contexts.split(",") if part.strip()]
    known = {str(number): name for number, name in enumerate(names)}
    lost = next((number for number in numbers if known.get(number, "") in missing), None)
    if lost is not None:
        raise InputError("contexts", f"photo {lost} ({known[lost]}) has no camera", "choose among the others")
    kept = [str(number) for number, name in enumerate(names) if name not in missing]
    return ",".join(str(kept.index(number)) if number in kept else number for number in numbers) + ","
