"""Oddities of files that people have, on the base scene: each is read as the base scene is, or refused by name."""

import json
import shutil

import pytest
import torch
from PIL import Image

from sphinx_nvs.cli.main import main
from sphinx_nvs.errors import InputError, spans
from sphinx_nvs.geometry import se3
from sphinx_nvs.scene.camera_files import read_targets
from sphinx_nvs.scene.conventions import with_checked_poses
from sphinx_nvs.scene.readers import read_capture
from sphinx_nvs.scene.transforms import flip_yz


@pytest.fixture
def scene(field_dir, tmp_path):
    """A copy of the base scene that may be changed."""
    shutil.copytree(field_dir / "a_base", tmp_path / "scene", copy_function=shutil.copyfile)
    for folder in (tmp_path / "scene", tmp_path / "scene" / "images"):
        folder.chmod(0o755)
    return tmp_path / "scene"


def changed(scene, change):
    """The base scene with its frames changed one by one."""
    transforms = scene / "transforms.json"
    data = json.loads(transforms.read_text())
    for index, frame in enumerate(data["frames"]):
        change(index, frame)
    transforms.write_text(json.dumps(data))
    return scene


def opened(scene):
    return with_checked_poses(read_capture(scene))


def refused(scene, message):
    with pytest.raises(InputError, match=message):
        opened(scene)


def test_names_that_are_urls(scene):
    names = [f"my photo {index}.jpg" for index in range(5)]
    for index, name in enumerate(names):
        (scene / "images" / f"{index:04d}.jpg").rename(scene / "images" / name)

    def encoded(index, frame):
        frame["file_path"] = f"images/my%20photo%20{index}.jpg"

    assert [view.image.name for view in read_capture(changed(scene, encoded)).views] == names

    def url(index, frame):
        frame["file_path"] = f"file://{scene}/images/{names[index]}"

    assert [view.image.name for view in read_capture(changed(scene, url)).views] == names


def test_a_name_without_ending_for_a_photo_and_its_mask(scene):
    Image.new("L", (384, 288), 255).save(scene / "images" / "0001.png")

    def without_ending(index, frame):
        frame["file_path"] = f"images/{index:04d}"

    refused(changed(scene, without_ending), r"0001: it could be 0001\.png or 0001\.jpg")


@pytest.mark.parametrize(("unit", "factor"), [("normalised", 1 / 384), ("millimetres", 36 / 384)])
def test_focal_lengths_in_other_units(scene, unit, factor):
    def converted(index, frame):
        for key in ("fl_x", "fl_y", "cx", "cy"):
            frame[key] *= factor

    refused(changed(scene, converted), "fx is .* pixels for an image of 384x288; give it in pixels")


@pytest.mark.parametrize("place", [0.0, 1000.0])
def test_principal_points_elsewhere(scene, place):
    def moved(index, frame):
        frame["cx"] = frame["cy"] = place

    refused(changed(scene, moved), "only with principal points in the middle")


def test_intrinsics_of_photos_before_they_were_scaled(scene):
    def halved(index, frame):
        path = scene / frame["file_path"]
        Image.open(path).resize((192, 144)).save(path, quality=95)
        del frame["w"], frame["h"]

    refused(changed(scene, halved), "only with intrinsics for photos 2 times as large")


def test_photos_that_were_cropped(scene):
    def cropped(index, frame):
        path = scene / frame["file_path"]
        Image.open(path).crop((48, 36, 336, 252)).save(path, quality=97)

    assert "with a focal length about 1.4 times as long" in opened(changed(scene, cropped)).notes[-1]


@pytest.mark.parametrize("k1", [-0.9, 35.0])
def test_distortion_of_photos_that_have_none(scene, k1):
    def bent(index, frame):
        frame["k1"] = k1

    refused(changed(scene, bent), "only without lens distortion")


def colmap(scene, written):
    """The base scene as a COLMAP model, each pose by a function of c2w."""
    capture = read_capture(scene)
    model = scene / "sparse" / "0"
    model.mkdir(parents=True)
    K = capture.views[0].K
    (model / "cameras.txt").write_text(f"1 PINHOLE 384 288 {K[0, 0]} {K[1, 1]} {K[0, 2]} {K[1, 2]}\n")
    lines = [
        " ".join(map(str, [index + 1, *written(view.c2w), 1, view.image.name])) + "\n\n"
        for index, view in enumerate(capture.views)
    ]
    (model / "images.txt").write_text("".join(lines))
    (scene / "transforms.json").unlink()
    return scene


def numbers(pose, order=(0, 1, 2, 3)):
    quaternion = se3.quaternion_from_rotation(pose[None, :3, :3])[0].tolist()
    return [*(quaternion[place] for place in order), *pose[:3, 3].tolist()]


@pytest.mark.parametrize(
    ("written", "message"),
    [
        (lambda c2w: numbers(c2w), "only inverted"),
        (lambda c2w: numbers(se3.inverse(c2w), (1, 2, 3, 0)), "only with the numbers of quaternions in another order"),
        (lambda c2w: numbers(se3.inverse(flip_yz(c2w))), "only with y and z axes of the cameras reversed"),
    ],
)
def test_colmap_models_that_are_written_by_another_convention(scene, written, message):
    refused(colmap(scene, written), message)


def test_a_colmap_model_that_is_right(scene):
    base = read_capture(scene).cameras(range(5), 96, 128)
    read = opened(colmap(scene, lambda c2w: numbers(se3.inverse(c2w)))).cameras(range(5), 96, 128)
    torch.testing.assert_close(read.c2w, base.c2w, atol=1e-6, rtol=0)


def bundler(scene, names):
    capture = read_capture(scene)
    lines = ["# Bundle file v0.3", "5 0"]
    for view in capture.views:
        w2c = se3.inverse(flip_yz(view.c2w))
        rows = [" ".join(map(repr, row)) for row in w2c[:3, :3].tolist()]
        lines += [f"{float(view.K[0, 0])} 0 0", *rows, " ".join(map(repr, w2c[:3, 3].tolist()))]
    (scene / "bundle.out").write_text("\n".join(lines))
    (scene / "list.txt").write_text("".join(f"images/{name}\n" for name in names))
    (scene / "transforms.json").unlink()
    return scene


def test_bundlers_list_in_reverse(scene):
    names = [f"{index:04d}.jpg" for index in range(5)]
    refused(bundler(scene, names[::-1]), "only in reverse order; photos and poses are paired in the wrong order")


def test_bundlers_list(scene):
    assert len(opened(bundler(scene, [f"{index:04d}.jpg" for index in range(5)]))) == 5


def test_masks_in_place_of_photos(scene):
    def masked(index, frame):
        path = scene / frame["file_path"]
        mask = Image.open(path).convert("L").point(lambda level: 255 * (level > 128))
        frame["file_path"] = f"images/{index:04d}.png"
        mask.save(scene / frame["file_path"])
        path.unlink()

    assert "look like masks or depth maps" in opened(changed(scene, masked)).notes[-1]


def test_depth_maps_in_place_of_photos(scene):
    def deep(index, frame):
        path = scene / frame["file_path"]
        frame["file_path"] = f"images/{index:04d}.png"
        Image.open(path).convert("I;16").save(scene / frame["file_path"])
        path.unlink()

    assert "look like masks or depth maps" in opened(changed(scene, deep)).notes[-1]


@pytest.mark.parametrize("command", ["render", "plan"])
def test_the_command_line_refuses_other_conventions(scene, tmp_path, capsys, command):
    def inverted(index, frame):
        frame["transform_matrix"] = torch.linalg.inv(torch.tensor(frame["transform_matrix"])).tolist()

    out = ["--out", str(tmp_path / "out")] if command == "render" else []
    assert main([command, str(changed(scene, inverted)), *out]) == 2
    message = capsys.readouterr().err
    assert "only inverted" in message
    assert "Traceback" not in message
    assert not (tmp_path / "out").exists()


def test_the_command_line_tells_of_doubts(scene, tmp_path, capsys):
    def cropped(index, frame):
        path = scene / frame["file_path"]
        Image.open(path).crop((48, 36, 336, 252)).save(path, quality=97)

    words = ["--contexts", "0,4", "--targets", "test", "--frames", "1", "--size", "64x48", "--method", "regression"]
    out = tmp_path / "out"
    assert main(["render", str(changed(scene, cropped)), *words, "--out", str(out)]) == 0
    assert "focal length about 1.4 times" in capsys.readouterr().err
    assert "focal length about 1.4 times" in (out / "report.json").read_text()


def test_heic_photos_are_the_base_scene_here_and_on_a_server(scene, field_dir, tmp_path):
    heif = pytest.importorskip("pillow_heif", reason="HEIC needs pillow-heif (the extra heic)")
    ingest = pytest.importorskip("sphinx_nvs.server.scenes.ingest", reason="needs the extra serve")
    from sphinx_nvs.server.server_config import UploadLimits

    def heic(index, frame):
        path = scene / frame["file_path"]
        frame["file_path"] = f"images/{index:04d}.heic"
        heif.from_pillow(Image.open(path)).save(scene / frame["file_path"], quality=95)
        path.unlink()

    base = read_capture(field_dir / "a_base").load(range(5), 96, 128)
    ingest.make_scene(changed(scene, heic), tmp_path / "kept", ingest.SceneRequest(), UploadLimits())
    for folder in (scene, tmp_path / "kept"):
        found = opened(folder).load(range(5), 96, 128)
        torch.testing.assert_close(found.cameras.c2w, base.cameras.c2w, atol=1e-6, rtol=0)
        assert float((found.images - base.images).abs().mean()) < 0.01


def test_archives_and_layouts_that_are_not_read_are_named(tmp_path):
    (tmp_path / "scene.zip").write_bytes(b"PK\5\6" + bytes(18))
    refused(tmp_path / "scene.zip", "it is an archive; unpack it")
    for name, layout in (("sfm_data.json", "OpenMVG"), ("cameras.sfm", "Meshroom"), ("frame_00000.json", "3D Scanner")):
        folder = tmp_path / layout
        folder.mkdir()
        (folder / name).write_text("{}")
        Image.new("RGB", (4, 4)).save(folder / "0.png")
        refused(folder, f"it is .*{layout}")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ([0, 1, 2], "0, 1, 2"),
        (range(46), "0 to 45"),
        ([*range(8), 11, *range(20, 23)], "0 to 7, 11, 20 to 22"),
        (range(0, 40, 2), "0, 2, 4, 6, 8, ... (20 in all)"),
    ],
)
def test_many_numbers_are_short_in_a_sentence(given, said):
    assert spans(given) == said


@pytest.mark.parametrize(("fov", "message"), [(0.87, "it sees 1.09 degrees"), (175.0, "it sees 17[0-9] degrees")])
def test_angles_of_target_cameras_in_other_units(field_dir, tmp_path, fov, message):
    path = {"render_height": 96, "render_width": 120, "camera_path": []}
    path["camera_path"] = [{"camera_to_world": torch.eye(4).flatten().tolist(), "fov": fov}]
    (tmp_path / "path.json").write_text(json.dumps(path))
    with pytest.raises(InputError, match=message):
        read_targets(tmp_path / "path.json")
