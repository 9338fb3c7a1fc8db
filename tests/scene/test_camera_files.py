"""Camera files: ours, nerfstudio's camera path, transforms.json."""

import json
import math

import pytest
import torch
from scene_helpers import close, sentence, some_cameras, write_json

from sphinx_nvs.scene.camera_files import read_targets, write_cameras
from sphinx_nvs.scene.transforms import write_transforms

IDENTITY = torch.eye(4).tolist()


def test_ours_round_trip(tmp_path):
    cameras = some_cameras()
    write_cameras(tmp_path / "cameras.json", cameras, ["a", "b", "c"])
    targets = read_targets(tmp_path / "cameras.json")
    assert torch.equal(targets.cameras.c2w, cameras.c2w)
    assert torch.equal(targets.cameras.K, cameras.K)
    assert (targets.cameras.height, targets.cameras.width) == (12, 16)
    assert targets.names == ("a", "b", "c")


def test_a_size_scales_to_cover_and_cuts_the_centre(tmp_path):
    write_cameras(tmp_path / "cameras.json", some_cameras())
    targets = read_targets(tmp_path / "cameras.json", 24, 24)
    expected = some_cameras().resized(24, 32).cropped(0, 4, 24, 24)
    close(targets.cameras.K, expected.K)
    assert targets.names == ("0000", "0001", "0002")


def test_transforms_need_no_photos(tmp_path):
    cameras = some_cameras()
    write_transforms(tmp_path / "t.json", cameras, [f"gone/{i}.png" for i in range(3)])
    targets = read_targets(tmp_path / "t.json")
    close(targets.cameras.c2w, cameras.c2w)
    close(targets.cameras.K, cameras.K)
    assert targets.names == ("0", "1", "2")


def camera_path(folder, **entry):
    entries = [{"camera_to_world": torch.eye(4).flatten().tolist(), "fov": 90, "aspect": 2, **entry}]
    return write_json(folder / "path.json", {"render_height": 10, "render_width": 20, "camera_path": entries})


def test_a_path_for_another_aspect_is_said_to_be_cut(tmp_path):
    path = camera_path(tmp_path)
    assert read_targets(path, 32, 64).notes == ()
    assert read_targets(path, 32, 32).notes == (
        "target cameras are for 20x10 and frames are 32x32: 50% of what they see is cut off",
    )


def test_nerfstudio_camera_path(tmp_path):
    cameras = read_targets(camera_path(tmp_path)).cameras
    close(cameras.c2w[0], torch.diag(torch.tensor([1.0, -1, -1, 1], dtype=torch.float64)))
    close(cameras.K[0], torch.tensor([[5.0, 0, 10], [0, 5, 5], [0, 0, 1]], dtype=torch.float64))


def edited(folder, **changes):
    write_cameras(folder / "cameras.json", some_cameras())
    data = json.loads((folder / "cameras.json").read_text())
    return write_json(folder / "cameras.json", {**data, **changes})


GOOD_K = [[5, 0, 1], [0, 5, 1], [0, 0, 1]]


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"version": 2}, "camera file {path}: its version is 2; this release reads version 1"),
        ({"cameras": []}, "camera file {path}: cameras is []; give at least one camera"),
        ({"cameras": 3}, "camera file {path}: cameras is 3; give a list of cameras"),
        ({"height": 0}, "camera file {path}: its size is 16x0; give at least 1x1 pixels"),
        ({"cameras": [{"K": GOOD_K}]}, "camera 0 of {path}: c2w is missing; add c2w, a 4x4 matrix"),
        (
            {"cameras": [{"c2w": IDENTITY, "K": [[1, 2]]}]},
            "camera 0 of {path}: K has shape (1, 2); give 3 rows of 3 numbers, in pixels",
        ),
        (
            {"cameras": [{"c2w": IDENTITY, "K": "wide"}]},
            "camera 0 of {path}: K is not a matrix of numbers; give 3 rows of 3 numbers, in pixels",
        ),
        (
            {"cameras": [{"c2w": IDENTITY, "K": [[-5, 0, 1], [0, 5, 1], [0, 0, 1]]}]},
            "K of camera 0 of {path}: fx is -5; give a focal length above 0 pixels",
        ),
        (
            {"cameras": [{"c2w": torch.diag(torch.tensor([-1.0, 1, 1, 1])).tolist(), "K": GOOD_K}]},
            "pose of camera 0 of {path}: its rotation mirrors (determinant -1); give a proper rotation",
        ),
    ],
)
def test_mistakes_in_ours(tmp_path, changes, found):
    path = edited(tmp_path, **changes)
    assert sentence(read_targets, path) == found.format(path=path)


def test_mistakes_in_a_camera_path(tmp_path):
    path = camera_path(tmp_path, fov=180)
    assert sentence(read_targets, path) == (f"camera 0 of {path}: fov is 180; give an angle between 0 and 180 degrees")
    camera_path(tmp_path, camera_to_world=[math.nan] * 16)
    assert sentence(read_targets, path) == (
        f"pose of camera 0 of {path}: a value is NaN or infinite; give a finite 4x4 camera-to-world matrix"
    )


def test_another_kind_of_json(tmp_path):
    path = write_json(tmp_path / "x.json", {"hello": 1})
    assert sentence(read_targets, path) == (
        f"camera file {path}: it has none of the fields format, camera_path, frames (it has hello); "
        "give cameras.json, a nerfstudio camera path or a transforms.json"
    )


def test_missing_file_and_names_that_do_not_fit(tmp_path):
    assert sentence(read_targets, tmp_path / "x.json") == (
        f"file {tmp_path}/x.json: there is no such file; correct the path or restore the file"
    )
    assert sentence(write_cameras, tmp_path / "x.json", some_cameras(), ["a"]) == (
        "names: 1 for 3 cameras; give one name per camera"
    )
