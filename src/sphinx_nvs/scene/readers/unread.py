"""Layouts that are known and not read: what they are, and what makes a readable one of them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from sphinx_nvs import media
from sphinx_nvs.errors import InputError
from sphinx_nvs.scene.photos import photos_in
from sphinx_nvs.scene.textfile import head_of

_NS = "ns-process-data"
_DATABASE = "database.db"
_ARCHIVES = (".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".7z", ".rar", ".zst")


@dataclass(frozen=True, kw_only=True)
class _Unread:
    """A layout by a file pattern, its name, and the command that converts it.

    Args:
        pattern: of a file below the scene's folder.
        name: of the layout.
        command: what to do.
        holds: what the beginning of such a file has, None for any.
    """

    pattern: str
    name: str
    command: str
    holds: re.Pattern[str] | None = None

    def is_in(self, folder: Path) -> bool:
        """Whether a folder holds it."""
        found = folder.glob(self.pattern)
        return next((True for path in found if self.holds is None or self.holds.search(head_of(path))), False)


_SIDECAR = re.compile("xcr:(Rotation|Position)")
_AS_CSV = "export the registration as CSV"


_KNOWN = (
    _Unread(pattern="camera/*.json", name="Nerfies / HyperNeRF", command="convert its cameras to a transforms.json"),
    _Unread(pattern="cameras_sphere.npz", name="NeuS / DTU", command="run SDFStudio's scripts/datasets on it"),
    _Unread(pattern="cameras.npz", name="IDR / DTU", command="run SDFStudio's scripts/datasets on it"),
    _Unread(pattern="pose/*.txt", name="ScanNet / NSVF", command="convert its poses to a transforms.json"),
    _Unread(pattern="reconstruction.json", name="OpenSfM", command="opensfm export_colmap DATA"),
    _Unread(
        pattern="opensfm/reconstruction.json", name="OpenDroneMap", command=f"{_NS} odm --data DATA --output-dir OUT"
    ),
    _Unread(pattern="*.nvm", name="VisualSFM", command="colmap model_converter, or export bundle.out"),
    _Unread(pattern="*.psx", name="a Metashape project", command="File > Export > Export Cameras as XML"),
    _Unread(pattern="*.rcproj", name="a RealityCapture project", command=_AS_CSV),
    _Unread(pattern="*.xmp", name="RealityCapture's XMP files", command=_AS_CSV, holds=_SIDECAR),
    _Unread(pattern="images/*.xmp", name="RealityCapture's XMP files", command=_AS_CSV, holds=_SIDECAR),
    _Unread(
        pattern="*calibrated_camera_parameters*.txt",
        name="Pix4D's camera parameters",
        command="convert them to a transforms.json",
    ),
    _Unread(
        pattern="*.xml",
        name="ContextCapture's BlocksExchange",
        command="convert it to a transforms.json, or export cameras of Metashape as XML",
        holds=re.compile("<BlocksExchange"),
    ),
    _Unread(
        pattern="*.log",
        name="a trajectory of Open3D / Tanks and Temples",
        command="convert its poses to a transforms.json",
        holds=re.compile(r"\A\s*\d+\s+\d+\s+\d+\s*\n"),
    ),
    _Unread(
        pattern="*.csv",
        name="EuRoC",
        command="convert its poses to a transforms.json",
        holds=re.compile("p_RS_R_x"),
    ),
    _Unread(pattern="*.r3d", name="a Record3D recording", command="export it from the app as EXR + RGBD"),
    _Unread(
        pattern="**/images.bin", name="a COLMAP model in an unusual place", command="name the folder with images.bin"
    ),
    _Unread(
        pattern="**/images.txt", name="a COLMAP model in an unusual place", command="name the folder with images.txt"
    ),
    _Unread(pattern=_DATABASE, name="a COLMAP database without a model", command="colmap mapper"),
    _Unread(pattern="transforms_test.json", name="Blender without transforms_train.json", command="add that file"),
    _Unread(pattern="sfm_data*.json", name="OpenMVG", command="openMVG_main_openMVG2Colmap -i sfm_data.json -o OUT"),
    _Unread(pattern="*.sfm", name="Meshroom (AliceVision)", command="aliceVision_exportColmap"),
    _Unread(
        pattern="frame_*.json", name="an export of 3D Scanner App", command="convert its frames to a transforms.json"
    ),
    _Unread(
        pattern="cameras.json",
        name="a list of cameras such as 3D Gaussian Splatting's results have",
        command="name the folder that it was made of",
    ),
    _Unread(pattern="groundtruth.txt", name="TUM RGB-D", command="convert its poses to a transforms.json"),
    _Unread(pattern="*.pose.txt", name="7-Scenes", command="convert its poses to a transforms.json"),
    _Unread(pattern="traj.txt", name="Replica", command="convert its poses to a transforms.json"),
    _Unread(pattern="*.camera", name="Strecha's benchmark", command="convert its cameras to a transforms.json"),
    _Unread(pattern="*_par.txt", name="Middlebury multi-view", command="convert its cameras to a transforms.json"),
    _Unread(pattern="mav0/*", name="EuRoC", command="convert its poses to a transforms.json"),
    _Unread(pattern="calib.txt", name="KITTI odometry", command="convert its poses to a transforms.json"),
    _Unread(pattern="sensor_data/*", name="kapture", command="kapture_export_colmap.py"),
)


_MAY_BE_CAMERAS = (".json", ".txt", ".csv", ".xml", ".npy", ".npz", ".bin", ".out", ".nvm", ".yaml", ".yml")
_NO_CAMERAS = ("readme", "license", "licence", "credits", "notes", "requirements")


def check_layout(folder: Path, *, is_plain: bool = False) -> None:
    """Raises InputError if a folder holds a known layout that is not read.

    Args:
        folder: the scene's.
        is_plain: whether cameras of its photos could be found: a database without a model is no reason against it.
    """
    for known in _KNOWN:
        if (is_plain and known.pattern == _DATABASE) or not known.is_in(folder):
            continue
        anew = f"; or find the cameras anew: sphinx-nvs poses {folder} --out OUT" if is_plain else ""
        raise InputError(f"scene {folder}", f"it is {known.name}, a layout that is not read", known.command + anew)


def files_like_cameras(folder: Path) -> list[str]:
    """Names of files beside photos that may hold cameras."""
    found = (path for path in folder.iterdir() if path.suffix.lower() in _MAY_BE_CAMERAS and path.is_file())
    return sorted(path.name for path in found if not path.stem.lower().startswith((".", *_NO_CAMERAS)))


def check_unread(folder: Path) -> None:
    """Raises InputError if a folder holds a known layout that is not read, photos alone, or a video alone."""
    check_layout(folder)
    photos = photos_in(folder) or photos_in(folder / "images") or photos_in(folder / "input")
    if photos:
        count = "1 photo" if len(photos) == 1 else f"{len(photos)} photos"
        hint = f"find them: sphinx-nvs poses {folder} --out OUT"
        raise InputError(f"scene {folder}", f"no known layout is found: there are {count} but no cameras", hint)
    within = [child for child in sorted(folder.iterdir()) if child.is_dir() and photos_in(child)]
    if within:
        names = ", ".join(child.name for child in within[:3]) + (", ..." if len(within) > 3 else "")
        raise InputError(f"scene {folder}", f"its photos lie in folders within it: {names}", f"give {within[0]}")
    video = next((path for path in sorted(folder.iterdir()) if path.suffix.lower() in media.VIDEO_SUFFIXES), None)
    if video is not None:
        check_video(video)


def check_archive(path: Path) -> None:
    """Raises InputError if a file is an archive, which may hold a scene."""
    if path.suffix.lower() in _ARCHIVES:
        raise InputError(
            f"scene {path}", "it is an archive", "unpack it and name the folder; servers take zip as it is"
        )


def check_video(path: Path) -> None:
    """Raises InputError if a file is a video, which has no cameras."""
    if path.suffix.lower() in media.VIDEO_SUFFIXES:
        hint = f"find them: sphinx-nvs poses {path} --out OUT"
        raise InputError(f"scene {path}", "it is a video, which has no cameras", hint)
