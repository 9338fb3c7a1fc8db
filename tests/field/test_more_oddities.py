"""More oddities of files and places: what was lost, refused for no reason, or not named."""

import contextlib
import json
import random
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image
from PIL.TiffImagePlugin import IFDRational

from sphinx_nvs import media
from sphinx_nvs.cli.output import check_output
from sphinx_nvs.errors import InputError, OutputError
from sphinx_nvs.geometry import se3
from sphinx_nvs.posing.focal_prior import camera_prior
from sphinx_nvs.scene.camera_files import read_targets
from sphinx_nvs.scene.diagnostics import warnings_for
from sphinx_nvs.scene.readers import read_capture
from sphinx_nvs.scene.transforms import flip_yz
from sphinx_nvs.visualization.heatmap import plan_picture

APPLE_DOUBLE = b"\0\5\x16\7\0\2\0\0Mac OS X        \xff\xfe"


@pytest.fixture
def base(field_dir):
    return read_capture(field_dir / "a_base")


def same(base, folder):
    read = read_capture(folder)
    found, true = (capture.cameras(range(5), 96, 128).c2w for capture in (read, base))
    torch.testing.assert_close(found, true, atol=1e-6, rtol=0)
    return read


@pytest.mark.parametrize("inner", ["", "scene"])
def test_no_result_replaces_the_scene_that_it_is_made_of(tmp_path, inner):
    scene = tmp_path / inner
    scene.mkdir(exist_ok=True)
    (scene / "transforms.json").write_text("{}")
    (tmp_path / "report.json").write_text("{}")
    with pytest.raises(OutputError, match="is in it and would be lost"):
        check_output(tmp_path, True, scene)


def test_no_result_replaces_another_scene(tmp_path):
    (tmp_path / "transforms.json").write_text("{}")
    with pytest.raises(OutputError, match="holds no earlier result"):
        check_output(tmp_path, True)


def test_places_that_cannot_be(tmp_path):
    (tmp_path / "a").symlink_to(tmp_path / "b")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    for out in (Path("~/out"), tmp_path / "a", tmp_path / "a" / "x", tmp_path / ("x" * 300)):
        with pytest.raises(OutputError):
            check_output(out, True)


@pytest.mark.parametrize(("mark", "end"), [(b"\xef\xbb\xbf", b""), (b"", b"https://caf\xe9\n")])
def test_realestate10k_text_of_other_editors(base, tmp_path, mark, end):
    lines = ["https://example.com"]
    for index, view in enumerate(base.views):
        size = torch.tensor([view.width, view.height, view.width, view.height])
        K = (torch.stack([view.K[0, 0], view.K[1, 1], view.K[0, 2], view.K[1, 2]]) / size).tolist()
        lines.append(" ".join(map(str, [index, *K, 0, 0, *se3.inverse(view.c2w)[:3].flatten().tolist()])))
        shutil.copyfile(view.image, tmp_path / f"{index}.jpg")
    (tmp_path / "clip.txt").write_bytes(mark + "\r\n".join(lines).encode() + b"\r\n" + end)
    same(base, tmp_path)


def test_files_that_macos_adds_are_no_cameras(base, tmp_path):
    for part in ("polycam/keyframes/cameras", "polycam/keyframes/images", "mvsnet/cams", "mvsnet/images"):
        (tmp_path / part).mkdir(parents=True)
    polycam, mvsnet = tmp_path / "polycam" / "keyframes", tmp_path / "mvsnet"
    for index, view in enumerate(base.views):
        pose, K = flip_yz(view.c2w), view.K
        camera = {f"t_{row}{column}": float(pose[row, column]) for row in range(3) for column in range(4)}
        camera |= {"fx": float(K[0, 0]), "fy": float(K[1, 1]), "cx": float(K[0, 2]), "cy": float(K[1, 2])}
        camera |= {"width": view.width, "height": view.height}
        (polycam / "cameras" / f"{index}.json").write_text(json.dumps(camera))
        (polycam / "cameras" / f"._{index}.json").write_bytes(APPLE_DOUBLE)
        shutil.copyfile(view.image, polycam / "images" / f"{index}.jpg")
        numbers = " ".join(map(str, se3.inverse(view.c2w).flatten().tolist()))
        text = f"extrinsic\n{numbers}\nintrinsic\n{' '.join(map(str, K.flatten().tolist()))}\n"
        (mvsnet / "cams" / f"{index:08d}_cam.txt").write_text(text)
        (mvsnet / "cams" / f"._{index:08d}_cam.txt").write_bytes(APPLE_DOUBLE)
        shutil.copyfile(view.image, mvsnet / "images" / f"{index:08d}.jpg")
    same(base, tmp_path / "polycam")
    same(base, mvsnet)


def test_the_largest_chunk_of_metashape_is_read(base, tmp_path):
    shutil.copytree(Path(base.views[0].image).parent, tmp_path / "images", copy_function=shutil.copyfile)
    text = "<document>"
    for label, views in (("first", base.views[:2]), ("second", base.views)):
        K, width, height = views[0].K, views[0].width, views[0].height
        text += f'<chunk label="{label}"><sensors><sensor id="0"><resolution width="{width}" height="{height}"/>'
        text += f"<calibration><f>{float(K[0, 0])}</f></calibration></sensor></sensors><cameras>"
        for view in views:
            numbers = " ".join(map(str, view.c2w.flatten().tolist()))
            text += f'<camera sensor_id="0" label="{view.image.name}"><transform>{numbers}</transform></camera>'
        text += "</cameras></chunk>"
    (tmp_path / "cameras.xml").write_text(text + "</document>")
    assert "2 chunks: second" in same(base, tmp_path).notes[0]


def test_fields_that_are_null_are_those_that_are_missing(base, field_dir, tmp_path):
    shutil.copytree(field_dir / "a_base", tmp_path / "scene", copy_function=shutil.copyfile)
    data = json.loads((field_dir / "a_base" / "transforms.json").read_text())
    for frame in data["frames"]:
        frame |= {"k1": None, "p1": None}
    (tmp_path / "scene").chmod(0o755)
    (tmp_path / "scene" / "transforms.json").write_text(json.dumps(data))
    same(base, tmp_path / "scene")


def test_a_name_too_long_for_a_file():
    with pytest.raises(InputError, match="no such file or folder"):
        read_capture("x" * 300)


def test_two_files_of_one_split_are_refused(field_dir, tmp_path):
    shutil.copytree(field_dir / "a_base", tmp_path / "scene", copy_function=shutil.copyfile)
    (tmp_path / "scene").chmod(0o755)
    for name in ("train_test_split_2.json", "train_test_split_02.json"):
        (tmp_path / "scene" / name).write_text('{"train_ids": [0, 4], "test_ids": [1]}')
    message = r"train_test_split_02\.json and train_test_split_2\.json are both its split 2; keep one of them"
    with pytest.raises(InputError, match=message):
        read_capture(tmp_path / "scene")


def test_a_split_that_a_file_replaces_is_told(field_dir, tmp_path):
    shutil.copytree(field_dir / "a_base", tmp_path / "scene", copy_function=shutil.copyfile)
    for folder in (tmp_path / "scene", tmp_path / "scene" / "images"):
        folder.chmod(0o755)
    path = tmp_path / "scene" / "transforms.json"
    data = json.loads(path.read_text())
    names = [frame["file_path"] for frame in data["frames"]]
    path.unlink()
    path.write_text(json.dumps({**data, "train_filenames": names[:2], "test_filenames": names[2:]}))
    (tmp_path / "scene" / "train_test_split_2.json").write_text('{"train_ids": [0, 4], "test_ids": [1]}')
    capture = read_capture(tmp_path / "scene")
    assert capture.splits[2].train_ids == (0, 4)
    assert "train_test_split_2.json is split 2, not train_filenames, which names as many" in capture.notes


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("images.txt", b"# Image list\n1 1 0 0 0 0 0 0 1 a.jpg\n\n", "part of a COLMAP model"),
        ("cameras.bin", b"\1\0\0\0\0\0\0\0", "part of a COLMAP model"),
        ("clip.txt", b"https://example.com\n" + b"0 " * 19, "a RealEstate10K camera file"),
        ("groundtruth.txt", b"# time\n1305031102.17 1.3 0.6 1.6 0.6 0.6 -0.3 -0.3\n", "a list of poses without"),
        ("traj.txt", b"1 0 0 0 0 1e0 0 0 0 0 -1.0e-01 0\n", "a list of poses without intrinsics"),
        ("photo.jpg", b"\xff\xd8\xff", "it is a photo"),
        ("clip.mp4", b"\0\0\0\x18ftyp", "it is a video"),
        ("cameras.xml", b"<document>", "an export of another program"),
        ("notes.txt", b"turn left", "it holds no JSON"),
        ("sparse", None, "it is a folder"),
    ],
)
def test_files_that_are_no_target_cameras_are_named(tmp_path, name, content, message):
    path = tmp_path / name
    path.mkdir() if content is None else path.write_bytes(content)
    with pytest.raises(InputError, match=message) as refused:
        read_targets(path)
    assert refused.value.where == f"camera file {path}"
    assert "give a transforms.json, a camera path of nerfstudio or a camera file" in refused.value.hint


def test_target_cameras_need_no_ending(base, tmp_path):
    path = tmp_path / "cameras"
    pose = torch.eye(4).tolist()
    frame = {"w": 16, "h": 12, "fl_x": 20, "transform_matrix": pose}
    path.write_text("\n" + json.dumps({"frames": [frame]}))
    assert len(read_targets(path).cameras) == 1


def test_the_picture_of_a_plan_of_long_frames_is_no_huge_one():
    picture = plan_picture(torch.full((3, 32, 8000), 0.5), torch.zeros(4, 1000, dtype=torch.long), 50)
    assert picture.shape == (3, 512, 8000 + 132)


EXIF_OF_NONSENSE = {
    "focal length 0": {0xA405: 0},
    "focal length 65535": {0xA405: 65535},
    "rational 0/0": {0x920A: IFDRational(0, 0), 0xA405: IFDRational(0, 0)},
    "resolution 0": {0xA20E: IFDRational(0, 1), 0xA20F: IFDRational(0, 1), 0x920A: IFDRational(4, 1)},
    "a text": {0xA405: "wide"},
}


@pytest.mark.parametrize("what", EXIF_OF_NONSENSE)
@pytest.mark.filterwarnings("ignore")
def test_nonsense_in_exif_says_nothing_of_the_camera(tmp_path, what):
    path, exif = tmp_path / "a.jpg", Image.Exif()
    exif[0x0112], exif[0x0132] = 9, "0000:99:99 99:99:99"
    exif.get_ifd(0x8769).update(EXIF_OF_NONSENSE[what])
    Image.new("RGB", (80, 64), (90, 20, 200)).save(path, exif=exif)
    assert camera_prior(path).focal is None
    assert media.orientation(path) == media.UPRIGHT
    assert media.read_image(path).shape == (3, 64, 80)


@pytest.mark.filterwarnings("ignore")
def test_damaged_exif_is_no_internal_error(tmp_path):
    path, exif = tmp_path / "a.jpg", Image.Exif()
    exif[0x0112], exif[0x010F], exif[0x0110] = 6, "Make", "Model"
    exif.get_ifd(0x8769).update({0xA405: 28, 0x920A: IFDRational(4, 1)})
    Image.new("RGB", (80, 64)).save(path, exif=exif)
    whole = path.read_bytes()
    start = whole.index(b"Exif")
    for seed in range(400):
        rng = random.Random(seed)
        data = bytearray(whole)
        for _ in range(rng.choice([1, 2, 4, 8])):
            data[rng.randrange(start, start + 120)] = rng.choice([0, 1, 255, rng.randrange(256)])
        path.write_bytes(data)
        camera_prior(path)
        for read in (media.orientation, media.image_size, media.read_image):
            with contextlib.suppress(InputError):
                read(path)


def with_fields(field_dir, folder, **fields):
    """The base scene with other fields, its photos where they are."""
    data = json.loads((field_dir / "a_base" / "transforms.json").read_text())
    frames = [
        {**frame, "file_path": str(field_dir / "a_base" / frame["file_path"]), **fields} for frame in data["frames"]
    ]
    (folder / "transforms.json").write_text(json.dumps({**data, "frames": frames}))
    return folder


def test_an_angle_and_a_focal_length_that_differ_are_told(field_dir, tmp_path):
    capture = read_capture(with_fields(field_dir, tmp_path, camera_angle_x=0.1))
    assert "camera_angle_x is 5.73 degrees and fl_x means 61.9: fl_x is used" in capture.notes
    assert read_capture(with_fields(field_dir, tmp_path, camera_angle_x=1.0801)).notes == ()


def test_a_word_is_no_truth_value(field_dir, tmp_path):
    with pytest.raises(InputError, match='is_fisheye is "false"; give true or false'):
        read_capture(with_fields(field_dir, tmp_path, is_fisheye="false"))


def test_focal_lengths_that_differ_by_direction_are_warned_of(field_dir, tmp_path):
    found = warnings_for(read_capture(with_fields(field_dir, tmp_path, fl_y=900.0)))
    assert any("focal lengths in x and y differ 2.8 times" in warning for warning in found)
