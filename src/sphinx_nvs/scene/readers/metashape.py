"""Agisoft Metashape: the cameras exported as XML, photos beside.

A camera's `transform` is camera-to-chunk with OpenCV axes; the calibration counts the principal point from the image's
centre, B1 stretches x, and the tangential terms are OpenCV's with P1 and P2 exchanged. Coordinates are the chunk's own:
its place on Earth is not applied. Reference: Agisoft Metashape user manual, appendix "Camera models".
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import torch
from jaxtyping import Float
from torch import Tensor

from sphinx_nvs.errors import InputError
from sphinx_nvs.scene.capture import Capture
from sphinx_nvs.scene.distortion import Bend, Distortion, Lens
from sphinx_nvs.scene.intrinsics import intrinsics_matrix
from sphinx_nvs.scene.photos import find_photo
from sphinx_nvs.scene.readers.entries import Entry, by_name, capture_of, lost_notes
from sphinx_nvs.scene.textfile import files_ending, head_of, read_text

_FOLDERS = ("images", "photos", "input", ".")
_MOST_BYTES = 256 << 20
_DECLARED = re.compile(rb"\s*<\?xml[^>]*?encoding=[\"']([A-Za-z0-9._-]+)[\"']")
"""The encoding that a document without byte order mark declares."""


@dataclass(frozen=True, kw_only=True)
class _Sensor:
    K: Float[Tensor, "3 3"]
    size: tuple[int, int]
    lens: Bend | None


def cameras_file(folder: Path) -> Path | None:
    """The one XML file of a folder that Metashape wrote, None if there is none."""
    found = [path for path in files_ending(folder, ".xml") if is_metashape(path)]
    if len(found) > 1:
        raise InputError(f"folder {folder}", f"it holds {len(found)} camera files ({found[0].name}, ...)", "name one")
    return found[0] if found else None


def is_metashape(path: Path) -> bool:
    """Whether an XML file holds cameras of Metashape."""
    head = head_of(path)
    return "<document" in head and "<chunk" in head


def read_metashape(path: Path) -> Capture:
    """Reads exported cameras and the photos in `images`, `photos` or `input` beside them, or beside them directly.

    Raises:
        InputError: the file cannot be used, or its cameras are neither frame nor fisheye cameras.
    """
    root = _parsed(path)
    chunks = [root] if root.tag == "chunk" else root.findall(".//chunk")
    if not chunks:
        raise InputError(f"file {path}", "it has no chunk", "export the cameras again")
    # Every chunk has coordinates of its own.
    chunk = max(chunks, key=lambda each: sum(camera.find("transform") is not None for camera in each.iter("camera")))
    sensors = {sensor.get("id"): sensor for sensor in chunk.iter("sensor")}
    known: dict[str | None, _Sensor] = {}
    aligned = [camera for camera in chunk.iter("camera") if camera.find("transform") is not None]
    cameras = [camera for camera in aligned if camera.get("enabled", "true").lower() not in ("false", "0")]
    component, left_out = _largest_component(cameras)
    entries, lost = [], 0
    for camera in (camera for camera in cameras if camera.get("component_id") == component):
        label, number = camera.get("label") or "", camera.get("sensor_id")
        image = next((p for name in _FOLDERS if (p := find_photo(path.parent / name, label)) is not None), None)
        if image is None:
            lost += 1
            continue
        if number not in known:
            known[number] = _sensor(sensors.get(number), f"sensor {number} of {path}")
        sensor = known[number]
        c2w = _matrix(camera.findtext("transform") or "", f"camera {label} of {path}")
        entries.append(Entry(name=label, c2w=c2w, K=sensor.K, size=sensor.size, image=image, lens=sensor.lens))
    notes = lost_notes(lost, len(entries), path.parent, _FOLDERS)
    if len(chunks) > 1:
        notes.append(f"it has {len(chunks)} chunks: {chunk.get('label')}, with the most cameras, is read")
    if len(cameras) < len(aligned):
        notes.append(f"{len(aligned) - len(cameras)} cameras are disabled in Metashape and are left out")
    if left_out:
        notes.append(f"{left_out} cameras belong to other components than the largest and are left out")
    return capture_of(
        by_name(entries), path=path, name=path.parent.resolve().name, layout="Metashape cameras", notes=notes
    )


def _parsed(path: Path) -> ElementTree.Element:
    """The document, without entities: they could unfold to anything."""
    if path.stat().st_size > _MOST_BYTES:
        raise InputError(f"file {path}", "it is larger than any list of cameras", "export the cameras alone")
    data = path.read_bytes()
    declared = _DECLARED.match(data)
    try:
        # As text, because entities are found in it whatever its encoding.
        text = read_text(path) if declared is None else data.decode(declared[1].decode())
        if "<!DOCTYPE" in text or "<!ENTITY" in text:
            raise InputError(f"file {path}", "it declares XML entities", "export the cameras again")
        return ElementTree.fromstring(text)
    except (ElementTree.ParseError, LookupError, ValueError) as error:
        raise InputError(f"file {path}", "it is no XML", "export the cameras again") from error


def _largest_component(cameras: list[ElementTree.Element]) -> tuple[str | None, int]:
    """The component with the most cameras, and how many others have: their coordinates differ."""
    counts = Counter(camera.get("component_id") for camera in cameras)
    if not counts:
        return None, 0
    component, count = counts.most_common(1)[0]
    return component, len(cameras) - count


def _floats(text: str, where: str) -> Iterator[float]:
    for field in text.split():
        try:
            value = float(field)
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            raise InputError(where, f"{field[:40]!r} is no finite number", "export the cameras again")
        yield value


def _matrix(text: str, where: str) -> Float[Tensor, "4 4"]:
    values = list(_floats(text, where))
    if len(values) != 16:
        raise InputError(where, f"its transform has {len(values)} numbers", "give 16")
    return torch.tensor(values, dtype=torch.float64).view(4, 4)


def _sensor(sensor: ElementTree.Element | None, where: str) -> _Sensor:
    """The calibration of a sensor: adjusted if there is one, else initial."""
    if sensor is None:
        raise InputError(where, "there is no such sensor", "export the cameras again")
    kind = sensor.get("type", "frame")
    if kind not in ("frame", "fisheye"):
        raise InputError(where, f"its type is {kind}", "undistort the photos in Metashape (Export > Undistort Photos)")
    found = sensor.findall("calibration")
    calibration = next((each for each in found if each.get("class") == "adjusted"), found[0] if found else None)
    if calibration is None:
        raise InputError(where, "it has no calibration", "export the cameras again")
    values = {
        child.tag: next(_floats(child.text or "", where), 0.0) for child in calibration if child.tag != "resolution"
    }
    resolution = calibration.find("resolution")
    resolution = sensor.find("resolution") if resolution is None else resolution
    if resolution is None:
        raise InputError(where, "it has no resolution", "export the cameras again")
    height, width = (int(next(_floats(resolution.get(key) or "0", where))) for key in ("height", "width"))
    if "f" not in values and "fx" in values:
        raise InputError(
            where, "it has fx and fy, as PhotoScan before 1.2 wrote them", "export it with a later version"
        )
    focal = values.get("f", 0.0)
    if focal <= 0:
        raise InputError(where, f"its focal length is {focal:g}", "give a focal length above 0 pixels")
    if abs(values.get("b2", 0.0)) > 0.005 * focal:
        raise InputError(where, f"its axes are skewed (B2 is {values['b2']:g})", "undistort the photos in Metashape")
    K = intrinsics_matrix(
        focal + values.get("b1", 0.0), focal, width / 2 + values.get("cx", 0.0), height / 2 + values.get("cy", 0.0)
    )
    return _Sensor(K=K, size=(height, width), lens=_lens(kind, values, where))


def _lens(kind: str, values: dict[str, float], where: str) -> Bend | None:
    k1, k2, k3, k4 = (values.get(key, 0.0) for key in ("k1", "k2", "k3", "k4"))
    if kind == "fisheye":
        if values.get("p1") or values.get("p2"):
            hint = "calibrate without P1 and P2, or undistort the photos in Metashape"
            raise InputError(where, "it is a fisheye lens with tangential distortion", hint)
        return Lens(model="OPENCV_FISHEYE", numbers=(k1, k2, k3, k4))
    p1, p2 = values.get("p2", 0.0), values.get("p1", 0.0)
    return Distortion(k1=k1, k2=k2, k3=k3, k4=k4, p1=p1, p2=p2) or None
