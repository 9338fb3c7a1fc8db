"""Real photos: every capture loads, and its poses agree with what the photos show."""

import pytest
import torch
from skimage.color import rgb2gray
from skimage.feature import SIFT, match_descriptors

from sphinx_nvs.geometry import se3
from sphinx_nvs.geometry.cameras import Cameras
from sphinx_nvs.scene.diagnostics import describe
from sphinx_nvs.scene.readers import read_capture


def scenes(captures_dir):
    return sorted(path for path in captures_dir.iterdir() if (path / "transforms.json").is_file())


def test_every_capture_is_read_with_its_splits(captures_dir):
    assert scenes(captures_dir)
    for path in scenes(captures_dir):
        capture = read_capture(path)
        height, width = capture.default_size()
        assert height % 32 == width % 32 == 0
        for split in capture.splits.values():
            scene = capture.load(split.train_ids[:1], height, width)
            assert 0.02 < float(scene.images.mean()) < 0.98
        assert describe(capture)["images"] == len(capture)


def matches(images):
    """Pixel positions (V=2) of SIFT matches between two photos."""
    found = []
    for image in images:
        sift = SIFT(upsampling=1)
        sift.detect_and_extract(rgb2gray(image.permute(1, 2, 0).numpy()))
        found.append(sift)
    pairs = match_descriptors(found[0].descriptors, found[1].descriptors, max_ratio=0.75, cross_check=True)
    return [
        torch.from_numpy(sift.positions[pairs[:, i]][:, ::-1].copy()).double() + 0.5 for i, sift in enumerate(found)
    ]


def sampson_px(cameras, first, second):
    """Distance of matches from the epipolar geometry of two cameras in pixels, 30 % quantile: some are wrong."""
    relative = cameras.w2c[1] @ cameras.c2w[0]
    R, t = relative[:3, :3], relative[:3, 3]
    cross = torch.tensor([[0, -t[2], t[1]], [t[2], 0, -t[0]], [-t[1], t[0], 0]], dtype=torch.float64)
    F = torch.linalg.inv(cameras.K[1]).T @ cross @ R @ torch.linalg.inv(cameras.K[0])
    a, b = (torch.cat([points, torch.ones_like(points[:, :1])], dim=1) for points in (first, second))
    Fa, Fb = a @ F.T, b @ F
    error = (b * Fa).sum(1) ** 2 / (Fa[:, :2].square().sum(1) + Fb[:, :2].square().sum(1))
    return float(error.sqrt().quantile(0.3))


def turned(cameras):
    """The same pair with the second camera turned by 3 degrees."""
    twist = torch.tensor([[0.0] * 6, [0.037, 0.037, 0, 0, 0, 0]], dtype=torch.float64)
    return Cameras(cameras.c2w @ se3.exp(twist), cameras.K, cameras.height, cameras.width)


def check_poses(path):
    """Neighbouring photos fit their own poses to about a pixel, and a wrong pose worse."""
    capture = read_capture(path)
    split = capture.splits[min(capture.splits)]
    scene = capture.load([split.train_ids[0], split.test_ids[0]], *capture.default_size(short_side=288))
    points = matches(scene.images)
    right, wrong = sampson_px(scene.cameras, *points), sampson_px(turned(scene.cameras), *points)
    assert len(points[0]) > 7, path.name
    assert right < 2, path.name
    assert wrong > 2 * right, path.name


def test_poses_agree_with_photos(captures_dir):
    check_poses(scenes(captures_dir)[0])


@pytest.mark.slow
def test_poses_agree_with_photos_everywhere(captures_dir):
    for path in scenes(captures_dir):
        check_poses(path)
