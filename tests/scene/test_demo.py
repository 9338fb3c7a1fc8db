"""The stereo pair's calibration maps left pixels to right pixels."""

import numpy as np
import skimage
import torch
import torch.nn.functional as F

from sphinx_nvs.cli.poses import posed
from sphinx_nvs.geometry.projection import project, unproject
from sphinx_nvs.scene import demo
from sphinx_nvs.scene.demo import demo_depth, read_demo
from sphinx_nvs.scene.readers import read_capture


def mismatch(shift_px):
    """Mean colour difference between left and right at corresponding pixels moved by `shift_px` columns."""
    scene = read_demo().load([0, 1], 500, 741)
    depth = demo_depth()
    known = torch.isfinite(depth)
    points = unproject(scene.cameras[0], torch.where(known, depth, 1.0)[None]).flatten(1, 2)
    pixels, _ = project(scene.cameras[1], points)
    size = torch.tensor([741, 500])
    grid = (2 * (pixels + torch.tensor([shift_px, 0])) / size - 1).float().view(1, 500, 741, 2)
    warped = F.grid_sample(scene.images[1:], grid, align_corners=False)[0]
    return float((warped - scene.images[0]).abs().mean(dim=0)[known].median())


def test_ground_truth_disparity_agrees_with_the_calibration_to_half_a_pixel():
    best = mismatch(0.0)
    assert best < 0.015
    assert best < min(mismatch(-0.5), mismatch(0.5))


def test_depth_is_metric():
    depth = demo_depth()
    assert 2 < float(depth[torch.isfinite(depth)].median()) < 4


def test_photos_are_the_library_s_with_files_and_without(tmp_path, monkeypatch):
    wanted = skimage.data.stereo_motorcycle()[:2]
    for _ in range(2):
        for found, photo in zip(demo._photos(), wanted, strict=True):
            np.testing.assert_array_equal(found, photo)
        monkeypatch.setattr(demo.skimage, "__file__", str(tmp_path / "__init__.py"))


def test_a_folder_called_demo_is_not_taken_for_the_demo(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert read_capture("demo").notes == ()
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo" / "photo.png").write_bytes(b"")
    assert read_capture("demo").notes == ("the bundled demo is read; the folder of that name here is ./demo",)
    assert posed("demo") == "demo"
