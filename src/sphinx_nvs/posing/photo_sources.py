"""What plain photos are: a folder of them without cameras, some files, or a video; and the one way to pose each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from sphinx_nvs import media
from sphinx_nvs.errors import InputError
from sphinx_nvs.posing.advice import UnposedError
from sphinx_nvs.posing.posing import PosedScene, pose_photos
from sphinx_nvs.posing.posing_progress import Report
from sphinx_nvs.posing.video_frames import choose_frames
from sphinx_nvs.posing.work_folder import cache_folder, content_key, forget, work_folder
from sphinx_nvs.scene.photos import photos_in
from sphinx_nvs.scene.readers import holds_scene

_INNER = ("", "images", "input")


def is_video(path: Path) -> bool:
    """Whether a file is a video, by its name."""
    return path.suffix.lower() in media.VIDEO_SUFFIXES and path.is_file()


def is_plain(path: Path) -> bool:
    """Whether a path is a video, or a folder with photos (or one video) and no cameras."""
    if is_video(path):
        return True
    return path.is_dir() and not holds_scene(path) and bool(_photos(path) or _video_in(path))


def _photos(folder: Path) -> list[Path]:
    """Photos of a folder, or of its images or input."""
    return next((found for inner in _INNER if (found := photos_in(folder / inner))), [])


def _video_in(folder: Path) -> Path | None:
    """The only video of a folder."""
    videos = [path for path in sorted(folder.iterdir()) if is_video(path)]
    return videos[0] if len(videos) == 1 else None


def pose_source(
    source: Path,
    out: Path,
    *,
    focal_mm: float | None = None,
    seed: int = 0,
    progress: Report | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> PosedScene:
    """Poses a folder of photos or a video.

    Args:
        source: see `is_plain`.
        out: see `pose_photos`, as the other arguments.
        focal_mm: see `pose_photos`.
        seed: of every random choice.
        progress: receives the work's state.
        cancelled: asked now and then whether to stop.

    Raises:
        InputError: there are no photos and no video, or see `pose_photos`.
    """
    if not source.exists():
        raise InputError(f"photos {source}", "there is no such file or folder", "correct the path")
    photos = [] if source.is_file() else _photos(source)
    video = source if is_video(source) else None if photos or source.is_file() else _video_in(source)
    if video is not None:
        return pose_video(video, out, focal_mm=focal_mm, seed=seed, progress=progress, cancelled=cancelled)
    if not photos:
        raise InputError(
            f"photos {source}", "it holds no photos and is no video", "give a folder of photos, or a video"
        )
    return pose_photos(
        photos, out, name=source.resolve().name, focal_mm=focal_mm, seed=seed, progress=progress, cancelled=cancelled
    )


def pose_video(
    video: Path,
    out: Path,
    *,
    focal_mm: float | None = None,
    seed: int = 0,
    stages: Path | None = None,
    progress: Report | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> PosedScene:
    """Poses frames of a video.

    Args:
        video: the file.
        out: see `pose_photos`, as the other arguments.
        focal_mm: see `pose_photos`.
        seed: of every random choice.
        stages: folder of finished stages.
        progress: receives the work's state.
        cancelled: asked now and then whether to stop.

    Raises:
        InputError: the video cannot be decoded, its camera does not move, or see `pose_photos`.
    """
    work = work_folder(content_key([video], "frames"), stages)
    chosen = choose_frames(video, work, cancelled=cancelled, progress=progress)
    try:
        scene = pose_photos(
            chosen.files,
            out,
            name=video.stem,
            in_sequence=True,
            notes=[chosen.note],
            focal_mm=focal_mm,
            seed=seed,
            stages=stages,
            progress=progress,
            cancelled=cancelled,
        )
    except UnposedError as error:
        raise UnposedError(f"video {video}", error.found, error.hint, error.reasons) from error
    forget(work)
    return scene


def cached_scene(
    source: Path,
    *,
    focal_mm: float | None = None,
    seed: int = 0,
    progress: Report | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> tuple[Path, bool]:
    """The scene of plain photos or a video: posed once, found again by their content.

    Returns:
        Its folder, and whether it was there already.

    Raises:
        InputError: see `pose_source`.
    """
    files: Sequence[Path] = [source] if source.is_file() else _photos(source) or [_video_in(source) or source]
    folder = cache_folder() / f"{source.resolve().stem}-{content_key(files, seed, focal_mm)[:12]}"
    if (folder / "transforms.json").is_file():
        return folder, True
    pose_source(source, folder, focal_mm=focal_mm, seed=seed, progress=progress, cancelled=cancelled)
    return folder, False
