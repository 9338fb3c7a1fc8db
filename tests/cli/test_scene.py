"""`sphinx-nvs scene make` and `scene inspect`."""

import json

import numpy as np
import pytest
import torch

from sphinx_nvs.media import read_image
from sphinx_nvs.scene import read_capture


def test_made_scene_holds_photos_cameras_depth_and_a_split(made):
    assert sorted(str(p.relative_to(made)) for p in made.rglob("*") if p.is_file()) == [
        "SHA256SUMS",
        *(f"depth/00{i}.npy" for i in range(5)),
        *(f"images/00{i}.png" for i in range(5)),
        "train_test_split_2.json",
        "transforms.json",
    ]
    capture = read_capture(made)
    assert (capture.splits[2].train_ids, capture.splits[2].test_ids) == ((0, 4), (1, 2, 3))


def test_depth_is_that_of_the_cameras(made):
    """A point of view 0, moved by its depth into view 4, lies at view 4's depth (where nothing hides it)."""
    cameras = read_capture(made).cameras([0, 4], 64, 64)
    first, last = (torch.from_numpy(np.load(made / "depth" / f"00{i}.npy")) for i in (0, 4))
    assert first.dtype == torch.float32
    y, x = torch.meshgrid(torch.arange(64) + 0.5, torch.arange(64) + 0.5, indexing="ij")
    rays = torch.linalg.inv(cameras.K[0]) @ torch.stack([x, y, torch.ones_like(x)]).reshape(3, -1).double()
    world = cameras.c2w[0, :3, :3] @ (rays * first.reshape(-1)) + cameras.c2w[0, :3, 3:]
    there = cameras.w2c[1, :3, :3] @ world + cameras.w2c[1, :3, 3:]
    u, v, _ = (cameras.K[1] @ there / there[2]).floor().long()
    seen = (u >= 0) & (u < 64) & (v >= 0) & (v < 64) & (there[2] > 0)
    ratio = last[v[seen], u[seen]] / there[2][seen]
    assert float(seen.float().mean()) > 0.3
    assert float(((ratio - 1).abs() < 0.05).float().mean()) > 0.6


def test_same_seed_same_scene_as_by_name(run, tmp_path):
    words = ("scene", "make", "--seed", 2, "--kind", "plaza", "--views", 3, "--size", "48x32", "--json")
    first, again = (run(*words, "--out", tmp_path / name) for name in "ab")
    assert first.json == {"out": str(tmp_path / "a"), "kind": "plaza", "seed": 2, "views": 3, "size": "48x32"}
    assert again.code == 0
    for name in ("images/001.png", "depth/001.npy", "transforms.json"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    assert read_image(tmp_path / "a" / "images/001.png").shape == (3, 32, 48)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("--views", "2"), "--views: it is 2; give at least 3"),
        (("--seed", "-1"), "--seed: it is -1; give a whole number from 0"),
        (("--size", "big"), "--size: 'big'; give width x height in pixels, e.g. 384x256"),
    ],
)
def test_errors(run, tmp_path, words, expected):
    outcome = run("scene", "make", *words, "--out", tmp_path / "room")
    assert (outcome.code, outcome.err) == (2, f"sphinx-nvs: {expected}\n")
    assert not list(tmp_path.iterdir())


def test_existing_folder_is_kept(run, scene):
    outcome = run("scene", "make", "--out", scene)
    assert (outcome.code, outcome.err) == (
        2,
        f"sphinx-nvs: output {scene}: it exists; choose another name or add --overwrite\n",
    )


def test_inspect_prints_a_table(run, made):
    outcome = run("scene", "inspect", made)
    assert outcome.code == 0
    lines = dict(line.split("  ", 1) for line in outcome.out.splitlines())
    assert lines["scene"].strip() == "room (nerfstudio transforms.json)"
    assert lines["views"].strip() == "5, 5 with a photo"
    assert lines["split 2"].strip() == "context 0, 4; 3 views held out"


def test_inspect_as_json_with_a_plot(run, made, tmp_path):
    plot = tmp_path / "cameras.png"
    outcome = run("scene", "inspect", made, "--plot", plot, "--json")
    assert outcome.code == 0, outcome.err
    assert outcome.json["views"] == 5
    assert outcome.json["plot"] == str(plot)
    assert min(read_image(plot).shape[1:]) > 300


def test_inspect_shows_warnings(run, spoil):
    def blind(data: dict) -> None:
        data["frames"][1]["file_path"] = None

    outcome = run("scene", "inspect", spoil(blind))
    assert "1 of 5 views have no image" in outcome.out


def test_inspect_of_a_damaged_scene(run, scene):
    (scene / "transforms.json").write_text(json.dumps({"frames": []}))
    outcome = run("scene", "inspect", scene)
    assert outcome.code == 2
    assert outcome.err == f"sphinx-nvs: file {scene}/transforms.json: frames is []; list at least one frame\n"
