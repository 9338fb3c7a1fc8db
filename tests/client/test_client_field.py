"""Inputs as people really have them, through the client and a real server: the right outcome of each."""

import json
import shutil

import pytest
import torch
from client_fakes import QUICK

from sphinx_nvs.client import ApiError, Client
from sphinx_nvs.scene.readers import read_capture
from sphinx_nvs.scene.transforms import flip_yz

SAME = (
    "a_ns_exif3",
    "b_colmap_exif3",
    "b_colmap_noblank",
    "b_colmap_two",
    "b_colmap_images4",
    "b_FULL_OPENCV_txt",
    "c_applied",
    "c_utm",
    "d_backslash",
    "f_filenames",
    "f_re10k_JPG",
    "h_shuffled",
)
REFUSED = {
    "d_transposed": "transform_matrix is transposed",
    "d_lastzero": "the last row of transform_matrix is 0 0 0 0",
    "d_bigint": "w is 1000",
    "f_heic": "HEIC",
}
TARGETS = (
    ("c_applied", "i_targets/same_world"),
    ("c_applied", "i_targets/with_applied"),
    ("c_applied", "i_targets/asis"),
    ("a_base", "i_targets/nsfile"),
    ("a_base", "e_paths/plain"),
)
REFUSED_TARGETS = (
    ("e_paths/trained2", "dataparser_transforms.json"),
    ("e_paths/equirect", "equirectangular"),
    ("e_paths/fisheye", "fisheye"),
    ("e_paths/keyframes", "camera_path: it is a list of 0"),
    ("i_targets/transposed", "is transposed"),
)


@pytest.fixture
def client(served):
    with Client(served.url, retrying=QUICK) as made:
        yield made


def relative(c2w):
    return torch.linalg.inv(c2w[0]) @ c2w


@pytest.mark.parametrize("case", SAME)
def test_it_is_the_base_scene(client, engine, field_dir, case):
    scene = client.upload_scene(field_dir / case, contexts=[0, 1, 2, 3, 4])
    assert scene.num_views == 5
    kept, base = (read_capture(path) for path in (engine.store.scene(scene.id).path, field_dir / "a_base"))
    poses = [relative(capture.cameras(range(5), 96, 128).c2w) for capture in (kept, base)]
    # The frames of `h_shuffled` are in another order.
    gaps = torch.cdist(*(pose[:, :3, 3].sort(dim=0).values for pose in poses)).diagonal()
    if case == "h_shuffled":
        assert sorted(torch.pdist(poses[0][:, :3, 3]).tolist()) == pytest.approx(
            sorted(torch.pdist(poses[1][:, :3, 3]).tolist()), abs=2e-4
        )
    else:
        assert float(gaps.max()) < 2e-4
        torch.testing.assert_close(*poses, atol=2e-4, rtol=0)


@pytest.mark.parametrize("case", REFUSED)
def test_it_is_refused_in_one_sentence(client, field_dir, case):
    with pytest.raises(ApiError, match=REFUSED[case]) as refused:
        client.upload_scene(field_dir / case)
    assert refused.value.status == 422
    assert str(field_dir) not in str(refused.value)


@pytest.mark.parametrize(("scene", "name"), TARGETS)
def test_cameras_mean_what_they_mean_in_the_scenes_file(client, engine, field_dir, scene, name):
    capture = read_capture(field_dir / scene)
    sent = client.upload_scene(field_dir / scene, contexts=[0, 4])
    job = client.create_job(sent, cameras=json.loads((field_dir / f"{name}.json").read_text()), size=(128, 96))
    kept = read_capture(engine.store.scene(sent.id).path)
    wanted = kept.world.inside(capture.world.outside(capture.cameras((2,), 96, 128).c2w))
    found = torch.tensor(engine.store.job(job.id).spec.c2w, dtype=torch.float64)
    torch.testing.assert_close(found[:1], wanted, atol=1e-6, rtol=0)


@pytest.mark.parametrize(("name", "message"), REFUSED_TARGETS)
def test_cameras_of_another_kind_or_world_are_refused(client, field_dir, name, message):
    sent = client.upload_scene(field_dir / "a_base", contexts=[0, 4])
    with pytest.raises(ApiError, match=message) as refused:
        client.create_job(sent, cameras=json.loads((field_dir / f"{name}.json").read_text()), size=(128, 96))
    assert refused.value.status == 422


def inverted(frames):
    for frame in frames:
        frame["transform_matrix"] = torch.linalg.inv(torch.tensor(frame["transform_matrix"])).tolist()


def opencv(frames):
    for frame in frames:
        frame["transform_matrix"] = flip_yz(torch.tensor(frame["transform_matrix"])).tolist()


def mirrored(frames):
    mirror = torch.diag(torch.tensor([-1.0, 1.0, 1.0, 1.0]))
    for frame in frames:
        frame["transform_matrix"] = (mirror @ torch.tensor(frame["transform_matrix"]) @ mirror).tolist()


def reversed_(frames):
    names = [frame["file_path"] for frame in frames]
    for frame, name in zip(frames, reversed(names), strict=True):
        frame["file_path"] = name


WRONG = {"inverted": inverted, "reversed": opencv, "mirrored": mirrored, "in reverse order": reversed_}


@pytest.mark.parametrize("message", WRONG)
def test_poses_that_do_not_fit_the_photos_are_refused(client, field_dir, tmp_path, message):
    shutil.copytree(field_dir / "a_base", tmp_path / "scene", copy_function=shutil.copyfile)
    transforms = tmp_path / "scene" / "transforms.json"
    data = json.loads(transforms.read_text())
    WRONG[message](data["frames"])
    transforms.write_text(json.dumps(data))
    with pytest.raises(ApiError, match=f"fit them only .*{message}") as refused:
        client.upload_scene(tmp_path / "scene")
    assert refused.value.status == 422
    photos = [tmp_path / "scene" / frame["file_path"] for frame in data["frames"]]
    with pytest.raises(ApiError, match=f"fit them only .*{message}"):
        client.upload_scene(images=photos, cameras=transforms)
