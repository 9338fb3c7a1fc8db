"""Inputs as people really have them, with the right outcome of each: in the readers, the server's scenes and requests.

An input that is the base scene in another dress is right when its cameras and photos are the base scene's.
"""

import json
import shutil

import pytest
import torch

from sphinx_nvs.cli.main import main
from sphinx_nvs.cli.selection import ViewOptions, select
from sphinx_nvs.errors import InputError
from sphinx_nvs.scene.camera_files import SceneCameras, read_targets
from sphinx_nvs.scene.capture import Capture
from sphinx_nvs.scene.readers import read_capture

SIZE = (96, 128)
SAME = {
    "a_ns_exif3": "as stored",
    "b_colmap_exif3": "as stored",
    "b_colmap_noblank": "",
    "b_colmap_two": "1, the largest, is read",
    "b_colmap_images4": "",
    "b_FULL_OPENCV_txt": "",
    "c_applied": "",
    "c_utm": "far from the origin",
    "d_backslash": "",
    "f_filenames": "split 2",
    "f_re10k_JPG": "",
}
"""Cases that equal the base scene, with their notes."""

REFUSED = {
    "d_transposed": "transform_matrix is transposed",
    "d_lastzero": "the last row of transform_matrix is 0 0 0 0",
    "d_bigint": "w is 1000",
    "f_heic": "pillow-heif",
}
"""Cases that are refused, with what the sentence holds."""


@pytest.fixture(scope="module")
def base(field_dir):
    return read_capture(field_dir / "a_base").load(range(5), *SIZE)


def relative(c2w):
    """Poses seen from the first one: the same in every world."""
    return torch.linalg.inv(c2w[0]) @ c2w


def sent(folder, tmp_path):
    """A case as the server keeps it; photos and cameras in another place of the archive than the top."""
    ingest = pytest.importorskip("sphinx_nvs.server.scenes.ingest")
    from sphinx_nvs.server.server_config import UploadLimits

    shutil.copytree(folder, tmp_path / "in" / "scene", copy_function=shutil.copyfile)
    (tmp_path / "in" / "README.txt").write_text("Photos of a fern.\n")
    ingest.make_scene(tmp_path / "in", tmp_path / "kept", ingest.SceneRequest(), UploadLimits())
    return tmp_path / "kept"


def assert_same(capture, base, atol=2e-4):
    found = capture.load(range(5), *SIZE)
    torch.testing.assert_close(relative(found.cameras.c2w), relative(base.cameras.c2w), atol=atol, rtol=0)
    torch.testing.assert_close(found.cameras.K, base.cameras.K, atol=1e-2, rtol=0)
    # The photos that carry an orientation were compressed once more.
    assert float((found.images - base.images).abs().mean()) < 0.01


@pytest.mark.parametrize("case", SAME)
def test_it_is_the_base_scene(field_dir, base, case):
    capture = read_capture(field_dir / case)
    assert_same(capture, base)
    assert SAME[case] in " ".join(capture.notes)


@pytest.mark.parametrize("case", SAME)
def test_it_is_the_base_scene_on_a_server_too(field_dir, base, tmp_path, case):
    assert_same(read_capture(sent(field_dir / case, tmp_path)), base)


@pytest.mark.parametrize("case", REFUSED)
def test_it_is_refused_in_one_sentence_before_any_work(field_dir, tmp_path, capsys, case):
    out = tmp_path / "out"
    assert main(["render", str(field_dir / case), "--method", "regression", "--out", str(out)]) == 2
    message = capsys.readouterr().err
    assert REFUSED[case] in message
    assert "Traceback" not in message
    assert not out.exists()
    with pytest.raises(InputError, match=REFUSED[case]):
        sent(field_dir / case, tmp_path)


def test_a_pinhole_with_distortion_is_undistorted_and_says_so(field_dir):
    capture = read_capture(field_dir / "d_pinhole_k1")
    assert capture.views[0].distortion.k1 == 0.12
    assert "PINHOLE, which has no k1" in capture.notes[0]


def test_blender_files_are_a_split(field_dir):
    capture = read_capture(field_dir / "f_blender")
    split = capture.splits[2]
    assert [capture.views[i].name for i in split.train_ids] == ["train: ./train/r_0", "train: ./train/r_1"]
    assert [capture.views[i].name for i in split.test_ids] == [f"test: ./test/r_{i}" for i in range(3)]
    assert select(capture, ViewOptions(), *SIZE).test_ids == split.test_ids
    assert select(capture, ViewOptions(contexts="0,1", targets="test"), *SIZE).test_ids == split.test_ids


def test_listed_files_are_a_split(field_dir):
    selection = select(read_capture(field_dir / "f_filenames"), ViewOptions(), *SIZE)
    assert (selection.context_ids, selection.test_ids) == ((0, 4), (1, 2, 3))


def length(path):
    return float(path.centres.diff(dim=0).norm(dim=-1).sum())


def test_a_path_through_shuffled_frames_does_not_zigzag(field_dir, tmp_path):
    shortest = length(select(read_capture(field_dir / "a_base"), ViewOptions(), *SIZE).targets)
    shuffled = read_capture(field_dir / "h_shuffled")
    assert length(select(shuffled, ViewOptions(), *SIZE).targets) < 1.1 * shortest
    given = length(select(shuffled, ViewOptions(contexts="0,1,2,3,4", targets="interpolate"), *SIZE).targets)
    assert given > 1.5 * shortest, "an order that the user gives is kept"
    names = [view.name for view in read_capture(sent(field_dir / "h_shuffled", tmp_path)).views]
    kept = read_capture(tmp_path / "kept").cameras(range(5), *SIZE)
    assert length(kept) < 1.1 * shortest, names


def scene_cameras(capture: Capture):
    contexts = capture.cameras((0, 4), *SIZE)
    return SceneCameras(
        contexts=contexts, everyone=capture.cameras(range(5), *SIZE), world=capture.world, folder=capture.folder
    )


@pytest.mark.parametrize(
    ("scene", "name"),
    [
        ("c_applied", "i_targets/same_world"),
        ("c_applied", "i_targets/with_applied"),
        ("c_applied", "i_targets/asis"),
        ("a_base", "i_targets/nsfile"),
        ("a_base", "e_paths/plain"),
    ],
)
def test_cameras_mean_what_they_mean_in_the_scenes_file(field_dir, scene, name):
    capture = read_capture(field_dir / scene)
    targets = read_targets(field_dir / f"{name}.json", *SIZE, scene_cameras(capture))
    expected = capture.cameras((2,), *SIZE)
    torch.testing.assert_close(targets.cameras.c2w[:1], expected.c2w, atol=1e-6, rtol=0)
    torch.testing.assert_close(targets.cameras.K[:1], expected.K, atol=0.2, rtol=0)


@pytest.mark.parametrize(
    ("scene", "name", "said"),
    [
        ("a_base", "e_paths/trained2", "dataparser_transforms.json"),
        ("a_base", "e_paths/equirect", 'camera_type is "equirectangular"'),
        ("a_base", "e_paths/fisheye", 'camera_type is "fisheye"'),
        ("a_base", "e_paths/keyframes", "keyframes become a path"),
        ("a_base", "i_targets/transposed", "c2w is transposed"),
        ("c_applied", "i_targets/nsfile", "look away from everything"),
    ],
)
def test_cameras_of_another_kind_or_world_are_refused_with_the_reason(field_dir, scene, name, said):
    with pytest.raises(InputError, match=said):
        read_targets(field_dir / f"{name}.json", *SIZE, scene_cameras(read_capture(field_dir / scene)))


def test_a_path_in_the_training_frame_is_told_without_the_file_too(field_dir, tmp_path):
    shutil.copyfile(field_dir / "e_paths" / "trained2.json", tmp_path / "path.json")
    with pytest.raises(InputError, match="training frame, not in the scene's own coordinates"):
        read_targets(tmp_path / "path.json", *SIZE, scene_cameras(read_capture(field_dir / "a_base")))


def test_exported_cameras_are_those_of_the_scene(field_dir):
    capture = read_capture(field_dir / "a_base")
    targets = read_targets(field_dir / "e_paths" / "transforms_train.json", *SIZE, scene_cameras(capture))
    torch.testing.assert_close(targets.cameras.c2w, capture.cameras(range(5), *SIZE).c2w, atol=1e-6, rtol=0)
    assert "no intrinsics" in targets.notes[0]


@pytest.mark.parametrize("case", ["a_base", "c_applied", "c_utm", "b_colmap_exif3"])
def test_the_frame_is_right_and_cameras_come_out_in_the_files_coordinates(field_dir, tmp_path, capsys, case):
    words = ["--contexts", "0,4", "--targets", "test", "--size", "128x96", "--steps", "6", "--method", "regression"]
    assert main(["render", str(field_dir / case), *words, "--out", str(tmp_path / "out"), "--json"]) == 0
    report = json.loads(capsys.readouterr().out.strip().splitlines()[-1])
    assert report["metrics"]["mean"]["psnr_db"] == pytest.approx(22.37, abs=0.3)
    written = json.loads((tmp_path / "out" / "transforms.json").read_text())
    if (field_dir / case / "transforms.json").is_file():
        given = json.loads((field_dir / case / "transforms.json").read_text())
        assert written.get("applied_transform") == given.get("applied_transform")
        found, wanted = (torch.tensor(data["frames"][i]["transform_matrix"]) for data, i in ((written, 0), (given, 1)))
        torch.testing.assert_close(found, wanted, atol=1e-6, rtol=1e-9)
