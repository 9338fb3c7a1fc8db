"""Descriptions, warnings and the frusta picture."""

import json

import pytest
import torch
from scene_helpers import close, some_cameras

from sphinx_nvs import media
from sphinx_nvs.geometry import se3
from sphinx_nvs.geometry.cameras import Cameras
from sphinx_nvs.scene.capture import Capture, PosedView, Split
from sphinx_nvs.scene.diagnostics import describe, warnings_for
from sphinx_nvs.scene.intrinsics import intrinsics_matrix
from sphinx_nvs.visualization.frusta import write_frusta


def arc(num_views, degrees, focal=60.0, **options):
    """Views on a circle of radius 4 round a point they look at."""
    angles = torch.linspace(0, degrees, num_views, dtype=torch.float64).deg2rad()
    positions = 4 * torch.stack([angles.sin(), torch.zeros_like(angles), -angles.cos()], dim=-1)
    c2w = se3.look_at(positions, torch.zeros(3).double(), torch.tensor([0.0, -1, 0]).double())
    return capture_of(
        Cameras(c2w, intrinsics_matrix(focal, focal, 32.0, 24.0).expand(num_views, 3, 3), 48, 64), **options
    )


def capture_of(cameras, images=True, **options):
    image = torch.zeros(3, cameras.height, cameras.width) if images else None
    views = tuple(
        PosedView(
            name=f"{i}.png", c2w=cameras.c2w[i], K=cameras.K[i], height=cameras.height, width=cameras.width, image=image
        )
        for i in range(len(cameras))
    )
    return Capture(name="scene", views=views, **options)


def test_a_description_in_numbers_is_json():
    split = Split(train_ids=(0, 4), test_ids=(1, 2, 3))
    found = json.loads(json.dumps(describe(arc(5, 20.0, splits={2: split}))))
    assert found["views"] == found["images"] == 5
    assert found["sizes"] == {"64x48": 5}
    assert found["default_size"] == "352x256"
    assert found["focus_distance"] == pytest.approx(4)
    assert found["look_at"] == pytest.approx([0, 0, 0], abs=1e-9)
    assert found["neighbour_angle_deg"]["median"] == pytest.approx(5)
    assert found["splits"]["2"]["contexts"] == [0, 4]
    assert found["splits"]["2"]["largest_context_angle_deg"] == pytest.approx(20)
    assert found["fov_deg"]["horizontal"]["max"] == pytest.approx(56.145, abs=1e-3)
    assert found["warnings"] == []


def same_place():
    cameras = some_cameras(2)
    return capture_of(Cameras(cameras.c2w[:1].expand(2, 4, 4), cameras.K, 12, 16))


def side_by_side():
    c2w = torch.eye(4, dtype=torch.float64).repeat(3, 1, 1)
    c2w[:, 0, 3] = torch.tensor([0.0, 0.0, 1.0])
    return capture_of(Cameras(c2w, intrinsics_matrix(60.0, 60.0, 32.0, 24.0).expand(3, 3, 3), 48, 64))


def split(train, test=()):
    return {2: Split(train_ids=train, test_ids=test)}


@pytest.mark.parametrize(
    ("capture", "expected"),
    [
        (arc(1, 0.0), ["a single view: nothing can be triangulated"]),
        (
            arc(3, 20.0, images=False),
            ["3 of 3 views have no image (0.png, ...): they can only be targets"],
        ),
        (
            arc(3, 20.0, focal=20.0),
            ["very wide angle of view (116 degrees): image borders are stretched and hard to match"],
        ),
        (same_place(), ["all cameras are in one place: nothing can be triangulated"]),
        (
            side_by_side(),
            [
                "1 neighbouring views have nearly identical centres: as a context pair they show no depth",
                "the cameras look at no common point: its distance is guessed from their baseline for preset paths",
            ],
        ),
        (
            arc(3, 80.0, splits=split((0, 2), (1,))),
            ["split 2: wide baseline, neighbouring context views are 80 degrees apart"],
        ),
        (
            arc(3, 20.0, splits=split((0, 2), (1, 2))),
            ["split 2: view 2 is both context and target: its score measures nothing"],
        ),
    ],
)
def test_warnings(capture, expected):
    assert warnings_for(capture) == expected


def test_a_long_baseline_without_turning_is_named_as_a_share():
    c2w = torch.eye(4, dtype=torch.float64).repeat(6, 1, 1)
    c2w[:, 0, 3] = torch.tensor([0.0, 1, 2, 3, 4, 9])
    K = intrinsics_matrix(60.0, 60.0, 32.0, 24.0).expand(6, 3, 3)
    found = warnings_for(capture_of(Cameras(c2w, K, 48, 64), splits=split((0, 5))))
    assert found[-1] == (
        "split 2: wide baseline, neighbouring context views are 100 % of the distance to the scene apart"
    )


def test_mixed_orientations_and_odd_principal_points():
    cameras = some_cameras(2)
    lying = PosedView(name="a", c2w=cameras.c2w[0], K=intrinsics_matrix(20.0, 20.0, 8.0, 6.0), height=12, width=16)
    upright = PosedView(name="b", c2w=cameras.c2w[1], K=intrinsics_matrix(20.0, 20.0, 6.0, 12.0), height=16, width=12)
    found = warnings_for(Capture(name="scene", views=(lying, upright)))
    assert "photos are both upright and lying: the default size cuts much of some of them" in found
    assert "a principal point lies 25 % of the image away from its centre: check cx and cy" in found


def test_the_picture_shows_context_and_target_colours(tmp_path):
    capture = arc(5, 60.0, splits=split((0, 4), (1, 2)))
    write_frusta(tmp_path / "f.png", capture, 2, targets=capture.cameras([1], 12, 16))
    picture = media.read_image(tmp_path / "f.png")
    assert picture.shape[0] == 3
    for colour in ((0x1F, 0x6F, 0xB4), (0xE0, 0x7B, 0x1A), (0x9A, 0xA3, 0xAB), (0xC0, 0x39, 0x2B)):
        distance = (picture - torch.tensor(colour).view(3, 1, 1) / 255).abs().amax(dim=0)
        assert int((distance < 0.02).sum()) > 20


def test_a_lone_camera_can_be_drawn(tmp_path):
    write_frusta(tmp_path / "f.png", arc(1, 0.0))
    assert float(media.read_image(tmp_path / "f.png").min()) < 0.5


def test_look_at_needs_converging_cameras():
    assert describe(side_by_side())["look_at"] is None
    close(torch.tensor(describe(arc(5, 30.0))["look_at"]), torch.zeros(3))
