"""Plain photos as a scene: cameras in files that are not read are named before any are found anew."""

import pytest
from PIL import Image

from sphinx_nvs.cli import poses
from sphinx_nvs.errors import InputError


@pytest.fixture
def photos(tmp_path, monkeypatch):
    """Photos whose cameras are never really found."""
    (tmp_path / "images").mkdir()
    for index in range(3):
        Image.new("RGB", (80, 64), (index, 0, 0)).save(tmp_path / "images" / f"{index}.png")
    monkeypatch.setattr(poses, "cached_scene", lambda *args, **options: (tmp_path / "cache", False))
    return tmp_path


@pytest.mark.parametrize(
    ("name", "layout"),
    [("reconstruction.json", "OpenSfM"), ("model.nvm", "VisualSFM"), ("groundtruth.txt", "TUM RGB-D")],
)
def test_cameras_in_a_layout_that_is_not_read_are_not_passed_over(photos, name, layout):
    (photos / name).write_text("{}")
    with pytest.raises(InputError, match=f"it is {layout}, a layout that is not read") as refused:
        poses.posed(str(photos))
    assert f"; or find the cameras anew: sphinx-nvs poses {photos} --out OUT" in refused.value.hint


@pytest.mark.parametrize(
    ("name", "content", "layout"),
    [
        ("images/0.xmp", '<rdf:Description xcr:Version="3"><xcr:Rotation>1 0 0', "RealityCapture's XMP files"),
        ("x_calibrated_camera_parameters.txt", "", "Pix4D's camera parameters"),
        ("blocks.xml", '<?xml version="1.0"?><BlocksExchange>', "ContextCapture's BlocksExchange"),
        ("truck.log", "0 0 0\n1 0 0 0\n", "a trajectory of Open3D / Tanks and Temples"),
        ("data.csv", "#timestamp, p_RS_R_x [m]", "EuRoC"),
    ],
)
def test_files_that_are_known_by_their_content(photos, name, content, layout):
    (photos / name).write_text("started\n")
    if "calibrated" not in name:
        assert poses.posed(str(photos)) == str(photos / "cache")
    (photos / name).write_text(content)
    with pytest.raises(InputError, match=f"it is {layout}, a layout that is not read"):
        poses.posed(str(photos))


def test_files_that_may_be_cameras_are_said(photos, capsys):
    (photos / "database.db").write_bytes(b"")
    for name in ("my_poses.csv", "Transforms.JSON", "README.txt"):
        (photos / name).write_text("1 2 3")
    assert poses.posed(str(photos)) == str(photos / "cache")
    said = capsys.readouterr().err
    assert "files beside the photos are in no layout of cameras that is read: Transforms.JSON, my_poses.csv\n" in said


@pytest.mark.parametrize("place", ["file", "file/below", "file/far/below"])
def test_a_home_that_cannot_be_used_is_named(run, tmp_path, monkeypatch, place):
    (tmp_path / "images").mkdir()
    for index in range(3):
        Image.new("RGB", (80, 64), (index, 0, 0)).save(tmp_path / "images" / f"{index}.png")
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SPHINX_NVS_HOME", str(tmp_path / place))
    for words in (("render", tmp_path / "images"), ("poses", tmp_path / "images")):
        outcome = run(*words, "--out", tmp_path / "out")
        assert outcome.code == 2
        assert "Not a directory; set SPHINX_NVS_HOME to a folder that you may write to" in outcome.err
