"""COLMAP sparse models, text and binary: round trip and mistakes."""

import struct

import pytest
import torch
from scene_helpers import close, save_photo, sentence, some_cameras

from sphinx_nvs.geometry import se3
from sphinx_nvs.scene.distortion import Distortion
from sphinx_nvs.scene.readers import read_capture

MODELS = {"SIMPLE_PINHOLE": 0, "PINHOLE": 1, "SIMPLE_RADIAL": 2, "RADIAL": 3, "OPENCV": 4, "OPENCV_FISHEYE": 5}


def rows(cameras):
    """Quaternion and translation of every world-to-camera pose."""
    w2c = torch.linalg.inv(cameras.c2w)
    return torch.cat([se3.quaternion_from_rotation(w2c[:, :3, :3]), w2c[:, :3, 3]], dim=1).tolist()


def pinhole(cameras, index):
    K = cameras.K[index]
    return [float(v) for v in (K[0, 0], K[1, 1], K[0, 2], K[1, 2])]


def write_text(folder, cameras, lenses, names):
    """A text model; `lenses` are (model, parameters)."""
    folder.mkdir(parents=True)
    lines = [
        f"{i + 1} {model} {cameras.width} {cameras.height} " + " ".join(map(repr, parameters))
        for i, (model, parameters) in enumerate(lenses)
    ]
    (folder / "cameras.txt").write_text("\n".join(["# Camera list", *lines]) + "\n")
    text = "# Image list\n"
    for i, (row, name) in enumerate(zip(rows(cameras), names, strict=True)):
        points = "" if i % 2 else "1.5 2.5 -1 3.0 4.0 7"
        text += f"{i + 1} {' '.join(map(repr, row))} {i + 1} {name}\n{points}\n"
    (folder / "images.txt").write_text(text)


def write_binary(folder, cameras, lenses, names):
    """The same model as bytes."""
    folder.mkdir(parents=True)
    data = struct.pack("<Q", len(lenses))
    for i, (model, parameters) in enumerate(lenses):
        data += struct.pack("<iiQQ", i + 1, MODELS[model], cameras.width, cameras.height)
        data += struct.pack(f"<{len(parameters)}d", *parameters)
    (folder / "cameras.bin").write_bytes(data)
    data = struct.pack("<Q", len(names))
    for i, (row, name) in enumerate(zip(rows(cameras), names, strict=True)):
        data += struct.pack("<i7di", i + 1, *row, i + 1) + name.encode() + b"\0"
        data += struct.pack("<Q", i) + struct.pack("<ddq", 1.5, 2.5, -1) * i
    (folder / "images.bin").write_bytes(data)


NAMES = ["c.png", "a photo.png", "b.png"]
WRITERS = {"text": write_text, "binary": write_binary}


def make(tmp_path, writer, lenses=None, below="sparse/0"):
    cameras = some_cameras()
    lenses = lenses or [("PINHOLE", pinhole(cameras, i)) for i in range(3)]
    writer(tmp_path / below, cameras, lenses, NAMES)
    for name in NAMES:
        save_photo(tmp_path / "images" / name)
    return cameras


@pytest.mark.parametrize("kind", WRITERS)
@pytest.mark.parametrize("below", ["sparse/0", "sparse", "colmap/sparse/0", "."])
def test_what_is_written_is_read_sorted_by_name(tmp_path, kind, below):
    cameras = make(tmp_path / "scene", lambda folder, *rest: WRITERS[kind](folder, *rest), below=below)
    capture = read_capture(tmp_path / "scene")
    assert [view.name for view in capture.views] == ["a photo.png", "b.png", "c.png"]
    read = capture.cameras(range(3), 12, 16)
    close(read.c2w, cameras.c2w[[1, 2, 0]])
    close(read.K, cameras.K[[1, 2, 0]])
    assert capture.load([0], 12, 16).images.shape == (1, 3, 12, 16)


def test_the_models_own_folder_finds_the_photos_above(tmp_path):
    make(tmp_path, write_binary)
    capture = read_capture(tmp_path / "sparse" / "0")
    assert len(capture) == 3
    assert capture.name == tmp_path.name


@pytest.mark.parametrize("kind", WRITERS)
def test_models_with_distortion(tmp_path, kind):
    lenses = [
        ("SIMPLE_RADIAL", [20.0, 8, 6, 0.01]),
        ("RADIAL", [20.0, 8, 6, 0.01, -0.002]),
        ("OPENCV", [20.0, 21, 8, 6, 0.01, -0.002, 0.001, -0.001]),
    ]
    make(tmp_path, WRITERS[kind], lenses)
    c, a, b = (read_capture(tmp_path).views[i] for i in (2, 0, 1))
    assert c.distortion == Distortion(k1=0.01)
    assert a.distortion == Distortion(k1=0.01, k2=-0.002)
    assert b.distortion == Distortion(k1=0.01, k2=-0.002, p1=0.001, p2=-0.001)
    assert b.K.tolist() == [[20, 0, 8], [0, 21, 6], [0, 0, 1]]


def test_simple_pinhole(tmp_path):
    make(tmp_path, write_text, [("SIMPLE_PINHOLE", [20.0, 8, 6])] * 3)
    view = read_capture(tmp_path).views[0]
    assert view.distortion is None
    assert view.K.tolist() == [[20, 0, 8], [0, 20, 6], [0, 0, 1]]


def test_unknown_model(tmp_path):
    lenses = [("OPENCV_FISHEYE", [20.0, 20, 8, 6, 0, 0, 0, 0])] * 3
    make(tmp_path / "text", write_text, lenses)
    assert sentence(read_capture, tmp_path / "text") == (
        f"{tmp_path}/text/sparse/0/cameras.txt, line 2: its model is OPENCV_FISHEYE; undistort with COLMAP first "
        "(read here: SIMPLE_PINHOLE, PINHOLE, SIMPLE_RADIAL, RADIAL, OPENCV)"
    )
    make(tmp_path / "binary", write_binary, lenses)
    assert sentence(read_capture, tmp_path / "binary") == (
        f"camera 1 of {tmp_path}/binary/sparse/0/cameras.bin: its model is number 5; undistort with COLMAP first "
        "(read here: SIMPLE_PINHOLE, PINHOLE, SIMPLE_RADIAL, RADIAL, OPENCV)"
    )


def test_wrong_number_of_parameters_and_negative_focal(tmp_path):
    make(tmp_path / "a", write_text, [("PINHOLE", [20.0, 8, 6])] * 3)
    assert sentence(read_capture, tmp_path / "a") == (
        f"{tmp_path}/a/sparse/0/cameras.txt, line 2: PINHOLE has 3 parameters; give 4: fx, fy, cx, cy"
    )
    make(tmp_path / "b", write_text, [("PINHOLE", [-20.0, 20, 8, 6])] * 3)
    assert sentence(read_capture, tmp_path / "b") == (
        f"{tmp_path}/b/sparse/0/cameras.txt, line 2: its focal length is -20; give a focal length above 0 pixels"
    )


def test_truncated_binary(tmp_path):
    make(tmp_path, write_binary)
    path = tmp_path / "sparse/0/images.bin"
    path.write_bytes(path.read_bytes()[:100])
    assert sentence(read_capture, tmp_path) == f"file {path}: it is truncated at 100 bytes; copy it again"


def test_malformed_text_line(tmp_path):
    make(tmp_path, write_text)
    path = tmp_path / "sparse/0/images.txt"
    path.write_text("1 0.5 nonsense\n\n")
    assert sentence(read_capture, tmp_path) == (
        f"{path}, line 1: cannot be understood ('1 0.5 nonsense'); it must read "
        "IMAGE_ID QW QX QY QZ TX TY TZ CAMERA_ID NAME"
    )


def test_missing_camera_photo_folder_and_file(tmp_path):
    make(tmp_path, write_text)
    sparse = tmp_path / "sparse/0"
    (tmp_path / "images/b.png").unlink()
    assert sentence(read_capture, tmp_path) == (
        f"image b.png of COLMAP model {sparse}: there is no file {tmp_path}/images/b.png; "
        "restore the image or remove it from the model"
    )
    text = (sparse / "cameras.txt").read_text().splitlines()
    (sparse / "cameras.txt").write_text("\n".join(text[:-1]))
    assert sentence(read_capture, tmp_path) == (
        f"image b.png of COLMAP model {sparse}: its camera 3 is not in cameras; export the model again"
    )
    (sparse / "cameras.txt").unlink()
    assert sentence(read_capture, tmp_path) == (
        f"file {sparse}/cameras.txt: there is no such file; give the whole COLMAP model"
    )


def test_zero_images_and_zero_quaternion(tmp_path):
    make(tmp_path, write_text)
    sparse = tmp_path / "sparse/0"
    (sparse / "images.txt").write_text("1 0 0 0 0 0 0 0 1 c.png\n\n")
    assert sentence(read_capture, tmp_path) == (
        f"pose of image c.png of COLMAP model {sparse}: its quaternion is zero; give a unit quaternion"
    )
    (sparse / "images.txt").write_text("# empty\n")
    assert sentence(read_capture, tmp_path) == (
        f"COLMAP model {sparse}: it has 0 images; give a model with at least one image"
    )
