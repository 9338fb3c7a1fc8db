"""Whole runs: photos in, a scene or one sentence out."""

import json
import os
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from posing_helpers import FOCAL, SIZE, box, paint, save, view, walked

from sphinx_nvs import media
from sphinx_nvs.cli import main
from sphinx_nvs.errors import InputError
from sphinx_nvs.posing import features, is_plain, pose_photos, pose_source
from sphinx_nvs.posing.photo_sources import cached_scene
from sphinx_nvs.posing.posing_progress import PosingCancelledError
from sphinx_nvs.scene import read_capture

CAPTURES = Path(os.environ.get("SPHINX_CAPTURES_DIR", Path(__file__).parents[2].parent / "shared" / "captures"))
STEP = 0.4


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.delenv("SPHINX_NVS_HOME", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def walk(tmp_path_factory):
    return save(tmp_path_factory.mktemp("walk"), walked(6, STEP))


def test_a_walk_is_posed_written_and_read_again(walk, tmp_path):
    shares = []
    scene = pose_photos(walk, tmp_path / "scene", progress=lambda what, share, left: shares.append(share))
    assert scene.report["registered"] == 6
    assert scene.report["left_out"] == []
    assert shares == sorted(shares)
    assert shares[-1] == 1
    capture = read_capture(scene.folder)
    views = capture.views
    assert [view.name for view in views] == [f"images/{i:04d}.jpg" for i in range(6)]
    assert float(views[0].K[0, 0]) == pytest.approx(FOCAL, rel=0.03)
    assert (views[0].height, views[0].width) == SIZE
    steps = np.stack([(b.c2w[:3, 3] - a.c2w[:3, 3]).numpy() for a, b in pairwise(views)])
    lengths = np.linalg.norm(steps, axis=1)
    np.testing.assert_allclose(lengths, lengths.mean(), rtol=0.05)
    # Yaw between neighbours is STEP / 5.5 radians.
    turn = np.arccos((np.trace((views[0].c2w[:3, :3].T @ views[1].c2w[:3, :3]).numpy()) - 1) / 2)
    assert turn == pytest.approx(STEP / 5.5, rel=0.05)
    assert read_capture(scene.folder / "sparse" / "0").views[0].K[0, 0] == pytest.approx(float(views[0].K[0, 0]))
    files = {"cameras.png", "images", "points.ply", "poses.json", "poses.md", "sparse", "transforms.json"}
    assert {path.name for path in scene.folder.iterdir()} == files
    assert "median depth" in json.loads((scene.folder / "transforms.json").read_text())["comment"]
    assert json.loads((scene.folder / "poses.json").read_text())["registered"] == 6


def test_the_same_seed_gives_the_same_bits(walk, tmp_path):
    folders = [pose_photos(walk, tmp_path / name, name="walk", seed=3).folder for name in "abc"]
    files = [path.relative_to(folders[0]) for path in sorted(folders[0].rglob("*")) if path.is_file()]
    assert Path("sparse/0/images.bin") in files
    for file in set(files) - {Path("poses.json")}:  # It says how long it took.
        assert len({(folder / file).read_bytes() for folder in folders}) == 1, file


def test_a_given_focal_length_is_kept_where_the_photos_leave_it_open(walk, tmp_path):
    # Without any turn a longer lens and a deeper scene look alike.
    photos = save(tmp_path / "photos", [view(box(), np.array([0.3 * i, 0.0, 0.0]), 0.0) for i in (-1, 0, 1)])
    with pytest.raises(InputError, match="the focal length"):
        pose_photos(photos, tmp_path / "s")
    focal_mm = 43.27 * FOCAL / np.hypot(*SIZE)
    scene = pose_photos(photos, tmp_path / "s", focal_mm=focal_mm)
    assert float(read_capture(scene.folder).views[0].K[0, 0]) == pytest.approx(FOCAL, rel=0.01)
    assert any("the given one is kept" in note for note in scene.report["notes"])


@pytest.mark.parametrize("focal_mm", [0.5, -26, float("nan"), 1e6])
def test_a_focal_length_that_no_lens_has_is_refused(walk, tmp_path, focal_mm):
    with pytest.raises(InputError, match="phones have about 26"):
        pose_photos(walk, tmp_path / "s", focal_mm=float(focal_mm))


def test_an_interrupted_run_goes_on(walk, tmp_path, monkeypatch):
    state = {"what": ""}

    def note(what, share, left):
        state["what"] = what

    with pytest.raises(PosingCancelledError):
        pose_photos(walk, tmp_path / "s", progress=note, cancelled=lambda: state["what"] == "finding cameras")
    assert not (tmp_path / "s").exists()
    monkeypatch.setattr(features, "_extract_some", lambda *args: pytest.fail("features are computed again"))
    monkeypatch.setattr(features.colmap(), "match_image_pairs", lambda *a, **k: pytest.fail("matched again"))
    assert pose_photos(walk, tmp_path / "s").report["registered"] == 6


def test_two_photos_are_up_to_scale(walk, tmp_path):
    report = pose_photos(walk[1:4:2], tmp_path / "s").report
    assert report["focal_ratio"] == pytest.approx(1)
    assert any("distances are known up to a common factor" in note for note in report["notes"])


def _noisy(image, seed):
    return image + np.random.default_rng(seed).normal(0, 3, image.shape)


def _moving():
    """A still camera, and a thing that wanders before a wall."""
    images = []
    for index in range(5):
        image = view(box()[:1], np.zeros(3), 0.0)
        left = 20 + 45 * index
        image[60:156, left : left + 96] = paint(9, 96)
        images.append(image)
    return images


REFUSED = {
    "twins": (lambda: [_noisy(walked(1)[0], seed) for seed in (0, 1)], "do not move|one place"),
    "turned": (lambda: [view(box(), np.zeros(3), yaw) for yaw in (-0.2, -0.1, 0.0, 0.1, 0.2)], "one place|turn"),
    "no overlap": (lambda: [paint(20 + i, 320)[:240] for i in range(4)], "no two of them show the same things"),
    "moving thing": (_moving, "does not move|do not move|did not move"),
    "blank wall": (lambda: [_noisy(np.full((*SIZE, 3), 200.0), i) for i in range(3)], "too little texture"),
    "one": (lambda: walked(1), "there is 1 photo"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_sets_that_cannot_work_are_refused_in_one_sentence(name, tmp_path):
    images, sentence = REFUSED[name]
    with pytest.raises(InputError, match=sentence) as found:
        pose_photos(save(tmp_path / "photos", images()), tmp_path / "scene")
    assert "\n" not in str(found.value)
    assert not list((tmp_path / "cache").rglob("*.db"))
    assert not (tmp_path / "scene").exists()


def test_plain_photos_are_posed_once(walk, tmp_path):
    assert is_plain(walk[0].parent)
    assert not is_plain(tmp_path)
    folder, was_there = cached_scene(walk[0].parent)
    assert not was_there
    assert not is_plain(folder)
    assert cached_scene(walk[0].parent) == (folder, True)


def test_command(walk, tmp_path, capfd):
    assert main(["poses", str(walk[0].parent), "--out", str(tmp_path / "scene"), "--json"]) == 0
    out, err = capfd.readouterr()
    report = json.loads(out.splitlines()[-1])
    assert report["registered"] == 6
    assert report["out"] == str(tmp_path / "scene")
    assert err == ""
    assert main(["poses", str(walk[0].parent), "--out", str(tmp_path / "scene")]) == 2
    assert "it exists" in capfd.readouterr().err
    again = ["poses", str(walk[0].parent), "--out", str(tmp_path / "scene"), "--overwrite"]
    (tmp_path / "scene" / "poses.md").unlink()
    assert main(again) == 0
    assert "6 of 6 photos" in capfd.readouterr().out
    assert (tmp_path / "scene" / "poses.md").is_file()
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


@pytest.mark.skipif(not CAPTURES.is_dir(), reason="captures are not here")
def test_six_photos_of_a_capture(tmp_path):
    ids = (0, 4, 8, 11, 15, 19)
    capture = read_capture(CAPTURES / "llff_fern")
    given = [capture.views[i] for i in ids]
    # Photos that lost their EXIF, as captures have, leave open how long the lens is: the camera's is 28.8 mm on film.
    focal_mm = 43.27 * float(given[0].K[0, 0]) / np.hypot(given[0].width, given[0].height)
    found = read_capture(pose_photos([v.image for v in given], tmp_path / "scene", focal_mm=focal_mm).folder).views
    assert len(found) == 6
    turn = given[0].c2w[:3, :3] @ found[0].c2w[:3, :3].T
    for a, b in zip(found, given, strict=True):
        cosine = (float(((turn @ a.c2w[:3, :3]) * b.c2w[:3, :3]).sum()) - 1) / 2
        assert np.degrees(np.arccos(min(1.0, cosine))) < 1
    assert float(found[0].K[0, 0] / given[0].K[0, 0]) == pytest.approx(1, abs=0.1)


def test_a_video_is_posed(tmp_path):
    frames = np.stack([image.clip(0, 255) for image in walked(24, 0.09)]).astype(np.float32) / 255
    media.write_video(tmp_path / "walk.mp4", torch.from_numpy(frames).permute(0, 3, 1, 2).contiguous(), fps=8)
    assert is_plain(tmp_path / "walk.mp4")
    scene = pose_source(tmp_path / "walk.mp4", tmp_path / "scene")
    assert 4 <= scene.report["photos"] < 24
    assert scene.report["registered"] == scene.report["photos"]
    assert "frames of the video" in scene.report["notes"][0]
    assert float(read_capture(scene.folder).views[0].K[0, 0]) == pytest.approx(FOCAL, rel=0.1)
