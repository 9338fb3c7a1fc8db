"""nerfstudio's transforms.json: round trip, its many spellings, its mistakes."""

import json
import math

import pytest
import torch
from scene_helpers import close, save_photo, sentence, some_cameras, write_json

from sphinx_nvs.scene.distortion import Distortion
from sphinx_nvs.scene.readers import read_capture
from sphinx_nvs.scene.transforms import read_transforms, write_transforms

IDENTITY = torch.eye(4).tolist()


@pytest.fixture
def scene(tmp_path):
    """A folder with three photos and the transforms.json that `write_transforms` gives."""
    cameras = some_cameras()
    names = [f"images/{i}.png" for i in range(3)]
    for name in names:
        save_photo(tmp_path / name)
    write_transforms(tmp_path / "transforms.json", cameras, names)
    return tmp_path, cameras


def edited(folder, **changes):
    """The folder's transforms.json with some fields replaced (None removes them)."""
    path = folder / "transforms.json"
    data = {**json.loads(path.read_text()), **changes}
    write_json(path, {key: value for key, value in data.items() if value is not None})
    return path


def edited_frame(folder, index, **changes):
    """The folder's transforms.json with some fields of one frame replaced."""
    path = folder / "transforms.json"
    data = json.loads(path.read_text())
    data["frames"][index].update(changes)
    return write_json(path, data)


def camera_only(folder, **fields):
    """A transforms.json with one frame without photo."""
    frame = {"file_path": None, "transform_matrix": IDENTITY}
    return write_json(folder / "transforms.json", {"w": 16, "h": 12, "frames": [frame], **fields})


def test_what_is_written_is_read(scene):
    folder, cameras = scene
    capture = read_capture(folder)
    read = capture.cameras(range(3), 12, 16)
    close(read.c2w, cameras.c2w)
    close(read.K, cameras.K)
    assert capture.name == folder.name
    assert [view.name for view in capture.views] == ["images/0.png", "images/1.png", "images/2.png"]


def test_smaller_copies_serve_where_the_photos_are_missing(scene):
    folder, cameras = scene
    (folder / "images").rename(folder / "full")
    for i in range(3):
        save_photo(folder / "images_2" / f"{i}.png", height=6, width=8)
    capture = read_capture(folder)
    assert [view.image for view in capture.views] == [folder / "images_2" / f"{i}.png" for i in range(3)]
    close(capture.cameras(range(3), 12, 16).K, cameras.K)
    (folder / "images_2" / "1.png").unlink()
    assert "its image" in sentence(read_capture, folder)


def test_opengl_axes_become_opencv_axes(tmp_path):
    view = read_transforms(camera_only(tmp_path, fl_x=10)).views[0]
    close(view.c2w, torch.diag(torch.tensor([1.0, -1, -1, 1], dtype=torch.float64)))


def test_shared_intrinsics_serve_frames_without_their_own(scene):
    folder, _ = scene
    data = json.loads((folder / "transforms.json").read_text())
    for frame in data["frames"][:2]:
        for key in ("fl_x", "fl_y", "cx", "cy"):
            del frame[key]
    write_json(folder / "transforms.json", {**data, "fl_x": 30, "fl_y": 31, "cx": 8, "cy": 6})
    K = [view.K for view in read_capture(folder).views]
    assert K[0].tolist() == [[30, 0, 8], [0, 31, 6], [0, 0, 1]]
    assert float(K[2][0, 0]) == 22


def test_camera_angle_stands_for_focal_length(tmp_path):
    K = read_transforms(camera_only(tmp_path, camera_angle_x=math.pi / 2)).views[0].K
    close(K, torch.tensor([[8.0, 0, 8], [0, 8, 6], [0, 0, 1]], dtype=torch.float64))


def test_applied_transform_is_undone_by_its_inverse(scene):
    folder, cameras = scene
    applied = torch.tensor([[0.0, 1, 0, 2], [1, 0, 0, -1], [0, 0, -1, 0.5], [0, 0, 0, 1]], dtype=torch.float64)
    data = json.loads((folder / "transforms.json").read_text())
    for frame in data["frames"]:
        frame["transform_matrix"] = (applied @ torch.tensor(frame["transform_matrix"]).double()).tolist()
    write_json(folder / "transforms.json", {**data, "applied_transform": applied[:3].tolist()})
    close(read_capture(folder).cameras(range(3), 12, 16).c2w, cameras.c2w, atol=1e-6)


def test_endings_may_be_missing(scene):
    folder, _ = scene
    path = edited_frame(folder, 1, file_path="./images/1")
    assert read_transforms(path).views[1].image == folder / "images" / "1.png"


def test_null_file_path_is_a_camera_without_photo(scene):
    folder, _ = scene
    capture = read_transforms(edited_frame(folder, 1, file_path=None))
    assert capture.views[1].image is None
    assert sentence(capture.load, [1], 12, 16) == (
        "view frame 1: it has a camera but no image; choose another view or add its image"
    )


def test_size_is_taken_from_the_photo_when_the_file_has_none(scene):
    folder, cameras = scene
    capture = read_transforms(edited(folder, w=None, h=None))
    assert (capture.views[0].height, capture.views[0].width) == (12, 16)
    close(capture.views[0].K, cameras.K[0])


def test_photos_that_were_scaled_down_rescale_the_intrinsics(scene):
    folder, cameras = scene
    save_photo(folder / "images/0.png", 6, 8)
    K = read_capture(folder).views[0].K
    close(K[:2], cameras.K[0, :2] / 2)


def test_distortion_is_read_and_zero_is_none(scene):
    folder, _ = scene
    assert read_capture(folder).views[0].distortion is None
    edited(folder, camera_model="OPENCV", k1=0.01, p2=-0.002)
    assert read_capture(folder).views[0].distortion == Distortion(k1=0.01, p2=-0.002)


def test_cameras_can_be_read_where_photos_are_gone(scene):
    folder, cameras = scene
    (folder / "images/2.png").unlink()
    capture = read_transforms(folder / "transforms.json", with_images=False)
    close(capture.cameras([2], 12, 16).K, cameras.K[2:])


def test_splits_are_read_by_number(scene):
    folder, _ = scene
    write_json(folder / "train_test_split_2.json", {"train_ids": [0, 2], "test_ids": [1]})
    write_json(folder / "train_test_split_10.json", {"train_ids": [0], "test_ids": []})
    splits = read_capture(folder).splits
    assert list(splits) == [2, 10]
    assert (splits[2].train_ids, splits[2].test_ids) == ((0, 2), (1,))


@pytest.mark.parametrize(
    ("split", "found"),
    [
        ({"train_ids": [0, 3], "test_ids": [1]}, "train_ids holds 3; name frames 0 to 2"),
        ({"train_ids": [-1], "test_ids": [1]}, "train_ids holds -1; name frames 0 to 2"),
        ({"train_ids": [0], "test_ids": [1, 1]}, "test_ids holds 1 twice; name every frame once"),
        ({"train_ids": [], "test_ids": [1]}, "train_ids is []; name at least one context view"),
        ({"train_ids": [0]}, "test_ids is null; give a list of frame numbers"),
        ({"train_ids": ["0"], "test_ids": []}, 'train_ids is ["0"]; give a list of frame numbers'),
    ],
)
def test_mistakes_in_a_split(scene, split, found):
    folder, _ = scene
    path = write_json(folder / "train_test_split_2.json", split)
    assert sentence(read_capture, folder) == f"file {path}: {found}"


def pose(**entries):
    """The identity with entries like _03 (row 0, column 3) replaced."""
    matrix = torch.eye(4, dtype=torch.float64)
    for key, value in entries.items():
        matrix[int(key[1]), int(key[2])] = value
    return matrix.tolist()


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        (
            {"transform_matrix": pose(_03=math.nan)},
            "pose of {frame}: a value is NaN or infinite; give a finite 4x4 camera-to-world matrix",
        ),
        (
            {"transform_matrix": pose(_00=0)},
            "pose of {frame}: its rotation is singular (determinant 0); give a rotation",
        ),
        ({"fl_x": -12.0}, "{frame}: fl_x is -12; give a focal length above 0 pixels"),
        ({"fl_y": "long"}, '{frame}: fl_y is "long"; give a finite number'),
        ({"cx": math.inf}, "{frame}: cx is Infinity; give a finite number"),
        (
            {"transform_matrix": [[1, 2], [3, 4]]},
            "{frame}: transform_matrix has shape (2, 2); give 4 rows of 4 numbers",
        ),
        ({"transform_matrix": None}, "{frame}: transform_matrix is missing; add transform_matrix, a 4x4 matrix"),
        (
            {"transform_matrix": [["a"] * 4] * 4},
            "{frame}: transform_matrix is not a matrix of numbers; give 4 rows of 4 numbers",
        ),
        (
            {"file_path": "images/9.png"},
            "{frame}: its image {folder}/images/9.png does not exist; restore the image or set file_path to null",
        ),
        ({"file_path": 7}, "{frame}: file_path is 7; give a file name or null"),
        ({"w": 0}, "{frame}: w and h are 0 and 12; give the image's size in pixels"),
        (
            {"w": 12, "h": 16},
            "image {folder}/images/1.png: it is 16x12 pixels but its camera in {frame} is for 12x16; give the photos "
            "that the cameras were made from, or correct w, h and the intrinsics",
        ),
        (
            {"camera_model": "EQUIRECTANGULAR"},
            '{frame}: camera_model is "EQUIRECTANGULAR"; undistort the photos to pinhole cameras first '
            "(read here: PINHOLE, SIMPLE_PINHOLE, OPENCV, SIMPLE_RADIAL, RADIAL, PERSPECTIVE, FULL_OPENCV, "
            "OPENCV_FISHEYE, SIMPLE_RADIAL_FISHEYE, RADIAL_FISHEYE)",
        ),
    ],
)
def test_mistakes_in_a_frame(scene, changes, found):
    folder, _ = scene
    path = edited_frame(folder, 1, **changes)
    assert sentence(read_capture, folder) == found.format(frame=f"frame 1 of {path}", folder=folder)


def test_mistakes_in_the_file(scene):
    folder, _ = scene
    path = folder / "transforms.json"
    edited(folder, frames=[])
    assert sentence(read_capture, folder) == f"file {path}: frames is []; list at least one frame"
    edited(folder, frames=None)
    assert sentence(read_capture, folder) == f"file {path}: frames is missing; list at least one frame"
    edited(folder, frames=[3])
    assert sentence(read_capture, folder) == f"frame 0 of {path}: it is 3; give an object with transform_matrix"
    edited(folder, frames=[{"transform_matrix": IDENTITY}], applied_transform=torch.zeros(3, 4).tolist())
    assert sentence(read_capture, folder) == (
        f"file {path}: applied_transform is singular or not finite; remove it or correct it"
    )


def test_missing_intrinsics(tmp_path):
    path = camera_only(tmp_path)
    assert sentence(read_transforms, path) == (
        f"frame 0 of {path}: fl_x is missing; add fl_x in pixels or camera_angle_x in radians"
    )
    camera_only(tmp_path, camera_angle_x=4)
    assert sentence(read_transforms, path) == (
        f"frame 0 of {path}: camera_angle_x is 4; give an angle between 0 and pi radians"
    )


def test_malformed_json_is_named_by_line_and_column(tmp_path):
    path = write_json(tmp_path / "transforms.json", '{"frames": [\n  {,}]}')
    assert sentence(read_capture, tmp_path) == (
        f"{path}, line 2, column 4: malformed JSON (Expecting property name enclosed in double quotes); fix it there"
    )


def test_json_that_is_no_object(tmp_path):
    path = write_json(tmp_path / "transforms.json", "[1, 2]")
    assert sentence(read_capture, tmp_path) == f"frame 0 of {path}: it is 1; give an object with transform_matrix"
    write_json(path, "7")
    assert sentence(read_capture, tmp_path) == f"file {path}: it holds a int, not an object; give {{...}} with frames"


def test_one_name_per_camera(tmp_path):
    assert sentence(write_transforms, tmp_path / "t.json", some_cameras(2), ["a"]) == (
        "names: 1 for 2 cameras; give one name per camera"
    )


def test_one_photo_with_two_poses_is_refused(scene):
    folder, _ = scene
    path = folder / "transforms.json"
    edited_frame(folder, 0, file_path="/home/someone/left/images/0.png")
    edited_frame(folder, 2, file_path="/home/someone/right/images/0.png")
    assert "/left/images/0.png and /home/someone/right/images/0.png are one photo" in sentence(read_transforms, path)


def test_a_frame_that_is_listed_twice_is_read(scene):
    folder, _ = scene
    data = json.loads((folder / "transforms.json").read_text())
    assert len(read_transforms(edited(folder, frames=[*data["frames"], data["frames"][0]]))) == 4


def test_a_photo_of_one_pixel_is_no_scaled_image(scene):
    folder, _ = scene
    save_photo(folder / "images" / "1.png", 1, 1)
    assert "it is 1x1 pixels but its camera" in sentence(read_transforms, folder / "transforms.json")


def test_frames_that_are_marked_bad_are_left_out(scene):
    folder, cameras = scene
    path = edited_frame(folder, 0, is_bad=True)
    edited_frame(folder, 1, is_bad=False)
    (folder / "train_test_split_2.json").write_text(json.dumps({"train_ids": [0, 2], "test_ids": [1]}))
    capture = read_transforms(path)
    close(capture.cameras(range(2), 12, 16).c2w, cameras.c2w[1:])
    assert "frames with is_bad are left out (1 of 3)" in capture.notes
    assert not any("is_bad" in note and "not read" in note for note in capture.notes)
    assert (capture.splits[2].train_ids, capture.splits[2].test_ids) == ((1,), (0,))
    edited_frame(folder, 1, is_bad=True)
    edited_frame(folder, 2, is_bad=True)
    assert "is_bad is true for every frame; leave at least two" in sentence(read_transforms, path)


@pytest.mark.parametrize("size", [3, 4])
def test_an_intrinsic_matrix_of_a_frame_serves(tmp_path, size):
    K = torch.eye(size)
    K[:2, :3] = torch.tensor([[20.0, 0, 8], [0, 21.0, 6]])
    frame = {"file_path": None, "transform_matrix": IDENTITY, "intrinsic_matrix": K.tolist()}
    capture = read_transforms(camera_only(tmp_path, camera_angle_x=0.69, frames=[frame]))
    close(capture.views[0].K, K[:3, :3].double())
    assert capture.notes == (
        "camera_angle_x is 39.5 degrees and intrinsic_matrix means 43.6: intrinsic_matrix is used",
    )
    capture = read_transforms(camera_only(tmp_path, fl_x=30.0, frames=[frame]))
    assert float(capture.views[0].K[0, 0]) == 30
    assert capture.notes == ("intrinsic_matrix has the focal length 20 and fl_x is 30: fl_x is used",)


@pytest.mark.parametrize("key", ["K", "intrinsic_matrix"])
def test_a_transposed_intrinsic_matrix_is_refused(tmp_path, key):
    frame = {"file_path": None, "transform_matrix": IDENTITY, key: [[20, 0, 0], [0, 20, 0], [8, 6, 1]]}
    path = camera_only(tmp_path, frames=[frame])
    assert sentence(read_transforms, path) == (
        f"frame 0 of {path}: the third row of {key} is 8 6 1; "
        "give 3 rows of 3 numbers, in pixels; the last one is 0 0 1; it may be transposed"
    )
