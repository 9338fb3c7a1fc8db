"""COLMAP sparse models, text and binary: round trip and mistakes."""

import os
import struct

import pycolmap
import pytest
import torch
from scene_helpers import close, save_photo, sentence, some_cameras

from sphinx_nvs.geometry import se3
from sphinx_nvs.scene.distortion import Distortion
from sphinx_nvs.scene.readers import read_capture

MODELS = {name: int(model.value) for name, model in pycolmap.CameraModelId.__members__.items()}


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
    make(tmp_path / "text", write_text, [("EQUIRECTANGULAR", [16.0, 12])] * 3)
    assert sentence(read_capture, tmp_path / "text").startswith(
        f"{tmp_path}/text/sparse/0/cameras.txt, line 2: its model is EQUIRECTANGULAR; "
        "undistort with COLMAP's image_undistorter first (read here: SIMPLE_PINHOLE, PINHOLE, "
    )


LENSES = [
    ("OPENCV_FISHEYE", [20.0, 20, 8, 6, 0.02, -0.01, 0.003, 0.001]),
    ("FULL_OPENCV", [20.0, 20, 8, 6, 0.02, -0.01, 0.001, 0.002, 0.003, 0.01, 0.002, 0.001]),
    ("FOV", [20.0, 20, 8, 6, 0.3]),
    ("SIMPLE_RADIAL_FISHEYE", [20.0, 8, 6, 0.02]),
    ("RADIAL_FISHEYE", [20.0, 8, 6, 0.02, -0.01]),
    ("THIN_PRISM_FISHEYE", [20.0, 20, 8, 6, 0.02, -0.01, 0.001, 0.002, 0.003, 0.001, 0.001, 0.002]),
    ("RAD_TAN_THIN_PRISM_FISHEYE", [20.0, 20, 8, 6, *[0.01, -0.002, 0.001, 0, 0, 0], 0.001, 0.002, 0, 0, 0, 0]),
    ("SIMPLE_DIVISION", [20.0, 8, 6, -0.02]),
    ("DIVISION", [20.0, 20, 8, 6, -0.02]),
    ("SIMPLE_FISHEYE", [20.0, 8, 6]),
    ("FISHEYE", [20.0, 20, 8, 6]),
    ("EUCM", [20.0, 20, 8, 6, 0.5, 1.1]),
]


@pytest.mark.parametrize(("model", "numbers"), LENSES)
@pytest.mark.parametrize("write", ["text", "binary"])
def test_every_lens_bends_as_colmap_says_and_is_undistorted(tmp_path, model, numbers, write):
    make(tmp_path, write_text if write == "text" else write_binary, [(model, numbers)] * 3)
    view = read_capture(tmp_path).views[0]
    points = torch.tensor([[0.0, 0.0], [0.3, -0.2], [-0.1, 0.25]], dtype=torch.float64)
    camera = pycolmap.Camera(model=model, width=16, height=12, params=numbers)
    rays = torch.cat([points, torch.ones_like(points[:, :1])], dim=1)
    expected = torch.from_numpy(camera.img_from_cam(rays.numpy()))
    bent = view.distortion.apply(points) if view.distortion else points
    close(bent * view.K.diagonal()[:2] + view.K[:2, 2], expected)
    assert view.read().shape == (3, 12, 16)
    assert torch.isfinite(view.pinhole_intrinsics).all()


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


def test_text_with_a_byte_order_mark_is_read(tmp_path):
    cameras = make(tmp_path, write_text)
    for name in ("images.txt", "cameras.txt"):
        path = tmp_path / "sparse" / "0" / name
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    close(read_capture(tmp_path).cameras(range(3), 12, 16).c2w, cameras.c2w[[1, 2, 0]])


def test_which_form_of_a_model_is_read_is_said(tmp_path):
    cameras = make(tmp_path, WRITERS["binary"])
    lenses = [("PINHOLE", pinhole(cameras, i)) for i in range(3)]
    text = tmp_path / "text"
    WRITERS["text"](text, cameras, lenses, NAMES)
    for name in ("cameras.txt", "images.txt"):
        (text / name).rename(tmp_path / "sparse" / "0" / name)
    assert read_capture(tmp_path).notes == ()
    images = tmp_path / "sparse" / "0" / "images.txt"
    images.write_text(images.read_text().replace("c.png", "d.png"))
    os.utime(tmp_path / "sparse" / "0" / "images.bin", (0, 0))
    assert read_capture(tmp_path).notes == (
        "images.bin and cameras.bin are read; images.txt beside is different and newer: remove what is not meant",
    )
