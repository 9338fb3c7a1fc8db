"""Coordinates of files and those inside, and nerfstudio's training frame."""

import pytest
import torch
from scene_helpers import close, save_photo, sentence, some_cameras, write_json

from sphinx_nvs.geometry.cameras import Cameras
from sphinx_nvs.scene.camera_files import SceneCameras, read_targets
from sphinx_nvs.scene.transforms import flip_yz, read_transforms, transforms_from, write_transforms
from sphinx_nvs.scene.world_frame import World, world_from

ROWS = ((1.0, 0.0, 0.0, 2.0), (0.0, 0.0, 1.0, -1.0), (0.0, -1.0, 0.0, 0.5))
MIRRORED = ((1.0, 0.0, 0.0, 0.0), (0.0, 1.0, 0.0, 0.0), (0.0, 0.0, -1.0, 0.0))
SCALED = ((0.0, 2.0, 0.0, 1.0), (-2.0, 0.0, 0.0, 0.0), (0.0, 0.0, 2.0, 0.0))
WORLDS = [
    World(),
    World(transform=ROWS),
    World(transform=ROWS, scale=0.25),
    World(transform=MIRRORED, scale=3.0),
    World(transform=SCALED),
    World(transform=ROWS, scale=2.0, origin=(4e5, 5e6, 2e3)),
]


@pytest.mark.parametrize("world", WORLDS)
def test_outside_is_the_inverse_of_inside(world):
    c2w = some_cameras().c2w
    close(world.inside(world.outside(c2w)), c2w, atol=1e-6)
    point = torch.tensor([1.0, 2, 3], dtype=torch.float64)
    close(world.point_inside(world.point_outside(point)), point, atol=1e-6)
    assert world_from(world.to_json()) == world
    assert bool(world) == (world != World())


def test_a_point_is_turned_then_scaled():
    found = World(transform=ROWS, scale=10.0).point_outside(torch.tensor([1.0, 2, 3], dtype=torch.float64))
    assert found.tolist() == [30.0, 20.0, -15.0]


def written(folder, cameras, world):
    write_transforms(folder / "t.json", cameras, ["0.png", None, None], world)
    save_photo(folder / "0.png")
    return folder / "t.json"


@pytest.mark.parametrize("world", WORLDS[:5])
def test_what_is_written_in_a_world_is_read_as_it_was(tmp_path, world):
    cameras = some_cameras()
    capture = read_transforms(written(tmp_path, cameras, world))
    close(capture.cameras(range(3), 12, 16).c2w, cameras.c2w, atol=1e-6)
    assert capture.world == world
    again = transforms_from(capture.cameras(range(3), 12, 16), [None] * 3, capture.world)
    assert again.get("applied_transform") == (
        None if world.transform is None else [list(row) for row in world.transform]
    )


def test_far_cameras_are_counted_from_amid_them(tmp_path):
    c2w = some_cameras().c2w.clone()
    c2w[:, :3, 3] += torch.tensor([441_546.0, 5_121_946.0, 2_345.0], dtype=torch.float64)
    capture = read_transforms(written(tmp_path, Cameras(c2w, some_cameras().K, 12, 16), World()))
    inside = capture.cameras(range(3), 12, 16).c2w
    assert float(inside[:, :3, 3].abs().max()) < 10
    close(capture.world.outside(inside), c2w, atol=1e-6)
    assert "far from the origin" in capture.notes[0]


def test_a_scale_of_nothing_and_a_flat_transform_are_refused(tmp_path):
    path = written(tmp_path, some_cameras(), World())
    for fields, said in (
        ({"applied_scale": 0}, "applied_scale is 0"),
        ({"applied_transform": [[0] * 4] * 3}, "singular"),
    ):
        data = transforms_from(some_cameras(), [None] * 3)
        write_json(path, {**data, **fields})
        assert said in sentence(read_transforms, path)


def sideways(num=5):
    """Cameras beside one another that look ahead."""
    c2w = torch.eye(4, dtype=torch.float64).repeat(num, 1, 1)
    c2w[:, 0, 3] = torch.arange(num) * 2.0
    K = torch.tensor([[20.0, 0, 8], [0, 20, 6], [0, 0, 1]], dtype=torch.float64).repeat(num, 1, 1)
    return Cameras(c2w, K, 12, 16)


TRAINING = World(transform=((0.0, 0.0, 1.0, -0.3), (1.0, 0.0, 0.0, -4.0), (0.0, 1.0, 0.0, 0.1)), scale=0.1)


def path_of(folder, c2w, **fields):
    entries = [{"camera_to_world": pose.flatten().tolist(), "fov": 50} for pose in flip_yz(c2w)]
    return write_json(folder / "p.json", {"render_height": 12, "render_width": 16, "camera_path": entries, **fields})


def dataparser():
    return {"transform": [list(row) for row in TRAINING.transform], "scale": TRAINING.scale}


def between(num=3):
    """A path that meets no camera of the scene."""
    c2w = sideways(num).c2w.clone()
    c2w[:, 0, 3] += 0.7
    return c2w


def test_a_path_in_the_training_frame_is_undone_by_the_file_beside_it(tmp_path):
    write_json(tmp_path / "dataparser_transforms.json", dataparser())
    path = path_of(tmp_path, TRAINING.outside(between()))
    targets = read_targets(path, scene=SceneCameras(contexts=sideways()))
    close(targets.cameras.c2w, between(), atol=1e-9)
    assert "training frame" in targets.notes[0]


def test_a_path_carries_its_training_frame(tmp_path):
    path = path_of(tmp_path, TRAINING.outside(between()), dataparser_transforms=dataparser())
    close(read_targets(path, scene=SceneCameras(contexts=sideways())).cameras.c2w, between(), atol=1e-9)


def test_the_file_lies_with_the_scene(tmp_path):
    (tmp_path / "scene").mkdir()
    write_json(tmp_path / "scene" / "dataparser_transforms.json", dataparser())
    scene = SceneCameras(contexts=sideways(), folder=tmp_path / "scene")
    path = path_of(tmp_path, TRAINING.outside(between()))
    close(read_targets(path, scene=scene).cameras.c2w, between(), atol=1e-9)


def test_a_path_of_another_world_is_refused_without_the_file(tmp_path):
    away = between()
    away[:, :3, 0] *= -1
    away[:, :3, 2] *= -1
    message = sentence(read_targets, path_of(tmp_path, away), None, None, SceneCameras(contexts=sideways()))
    assert "in the scene's own coordinates its cameras look away from the scene" in message
    assert "--dataparser FILE" in message


def test_a_path_in_the_scenes_coordinates_says_that_it_was_taken_so(tmp_path):
    targets = read_targets(path_of(tmp_path, between()), scene=SceneCameras(contexts=sideways()))
    close(targets.cameras.c2w, between())
    assert "read in the scene's own coordinates" in targets.notes[0]


def test_targets_without_intrinsics_have_those_of_the_scene(tmp_path):
    frames = [{"transform_matrix": flip_yz(pose).tolist()} for pose in between()]
    path = write_json(tmp_path / "t.json", {"frames": frames})
    close(read_targets(path, scene=SceneCameras(contexts=sideways())).cameras.K, sideways(3).K)


def test_a_far_path_cannot_belong(tmp_path):
    far = between()
    far[:, 2, 3] -= 5000
    path = write_json(tmp_path / "t.json", transforms_from(Cameras(far, sideways(3).K, 12, 16), [None] * 3))
    assert "are far from it" in sentence(read_targets, path, None, None, SceneCameras(contexts=sideways()))
