import re

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sphinx_nvs.errors import InputError
from sphinx_nvs.geometry.cameras import Cameras
from sphinx_nvs.procedural import KINDS, MIN_CLEARANCE, MOTIONS, make_path, make_world, procedural_views
from sphinx_nvs.procedural.layout import VARIED_KINDS
from sphinx_nvs.procedural.noise import TILE, spectral_noise
from sphinx_nvs.procedural.ray_casting import FAR, Primitives, ShapeKind, cast
from sphinx_nvs.procedural.sampling import sample
from sphinx_nvs.procedural.seeds import SPLITS, generator
from sphinx_nvs.procedural.texture_library import MIP_TEXELS, PICTURES, SURFACES, tile


def pinhole(position, side=33, focal=30.0):
    """One camera at `position` directed along +z with y down."""
    c2w = torch.eye(4, dtype=torch.float64)
    c2w[:3, 3] = torch.tensor(position)
    K = torch.tensor([[focal, 0, side / 2], [0, focal, side / 2], [0, 0, 1]], dtype=torch.float64)
    return Cameras(c2w[None], K[None], side, side)


def hits_of(primitives, cameras):
    ticks = torch.arange(cameras.width, dtype=torch.float32) + 0.5
    return cast(primitives, cameras.c2w.float(), torch.linalg.inv(cameras.K).float(), ticks, ticks)


def one_shape(kind, centre, half):
    tensors = [torch.tensor([centre]), torch.eye(3)[None], torch.tensor([half])]
    return Primitives(torch.tensor([int(kind)], dtype=torch.int32), *tensors)


def reprojected(cameras, depth, source, target):
    """Image positions (normalised to [-1, 1]) and z-depths in `target` of every pixel of `source`."""
    rows, columns = torch.meshgrid(torch.arange(cameras.height), torch.arange(cameras.width), indexing="ij")
    pixels = torch.stack([columns + 0.5, rows + 0.5, torch.ones_like(rows)], -1).double()
    local = pixels @ torch.linalg.inv(cameras.K[source]).T * depth[source, ..., None]
    world = local @ cameras.c2w[source, :3, :3].T + cameras.c2w[source, :3, 3]
    camera = world @ cameras.w2c[target, :3, :3].T + cameras.w2c[target, :3, 3]
    projected = camera @ cameras.K[target].T
    size = torch.tensor([cameras.width, cameras.height])
    return projected[..., :2] / projected[..., 2:] / size * 2 - 1, camera[..., 2]


def looked_up(image, where):
    """Bilinear values of `C H W` at normalised positions."""
    return torch.nn.functional.grid_sample(image[None].double(), where[None], align_corners=False)[0]


@pytest.mark.parametrize("kind", KINDS)
def test_same_seed_gives_bit_equal_views(kind):
    first, second = (procedural_views(3, 2, 40, 56, kind) for _ in range(2))
    assert torch.equal(first[0], second[0])
    assert torch.equal(first[1], second[1])
    assert torch.equal(first[2].c2w, second[2].c2w)


def test_the_global_generators_are_neither_read_nor_advanced():
    torch.manual_seed(1)
    first = procedural_views(5, 1, 16, 16)[0]
    state = torch.random.get_rng_state()
    torch.manual_seed(2)
    second = procedural_views(5, 1, 16, 16)[0]
    torch.manual_seed(1)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.equal(first, second)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("supersample", [1, 3])
def test_views_are_finite_and_in_range(kind, supersample):
    rgb, depth, cameras, world = procedural_views(11, 3, 32, 48, kind, supersample=supersample)
    assert rgb.shape == (3, 3, 32, 48)
    assert depth.shape == (3, 32, 48)
    assert rgb.dtype == depth.dtype == torch.float32
    assert (len(cameras), cameras.height, cameras.width, world.kind) == (3, 32, 48, kind)
    assert torch.isfinite(rgb).all()
    assert rgb.min() >= 0
    assert rgb.max() <= 1
    assert rgb.std() > 0.03
    assert depth.min() > 0
    assert depth.max() < 100


def test_seeds_and_splits_give_different_worlds():
    views = [procedural_views(seed, 1, 24, 24, "room", split=split)[0] for seed in (0, 1) for split in SPLITS]
    for index, view in enumerate(views):
        assert all((view - other).abs().mean() > 0.02 for other in views[:index])


def test_splits_share_no_photo_and_no_tile():
    photos = [{*PICTURES[split], *SURFACES[split]} for split in SPLITS]
    assert all(photos)
    assert len(set.union(*photos)) == sum(map(len, photos))
    assert not any("motorcycle" in name for names in photos for name in names)
    tiles = [tile(split, "picture", variant) for split in SPLITS for variant in range(3)]
    assert len({t.tobytes() for t in tiles}) == len(tiles)


def test_generators_differ_by_split_purpose_and_number():
    keys = [("train", "a", 0), ("val", "a", 0), ("train", "b", 0), ("train", "a", 1)]
    draws = {generator(*key).integers(1 << 60) for key in keys}
    assert len(draws) == len(keys)


@pytest.mark.parametrize(("kind", "seed"), [("room", 2), ("corridor", 4), ("plaza", 6)])
def test_depth_and_colour_agree_between_views(kind, seed):
    rgb, depth, cameras, _ = procedural_views(seed, 2, 96, 96, kind, motion="handheld")
    where, expected = reprojected(cameras, depth.double(), 0, 1)
    inside = (where.abs() < 0.97).all(-1) & (expected > 0)
    seen = looked_up(depth[1, None], where)[0]
    agrees = inside & ((seen / expected - 1).abs() < 0.01)
    assert inside.double().mean() > 0.2
    assert agrees.sum() / inside.sum() > 0.7
    difference = (looked_up(rgb[1], where) - rgb[0]).abs().mean(0)
    assert difference[agrees].median() < 0.02
    assert difference[agrees].mean() < 0.05


def test_depth_is_exact_on_known_shapes():
    cameras = pinhole([0.0, 0.0, 0.0])
    middle = cameras.height // 2
    box = hits_of(one_shape(ShapeKind.BOX, [0.0, 0.0, 4.0], [1.0, 1.0, 0.5]), cameras)
    assert float(box.depth[0, middle, middle]) == pytest.approx(3.5)
    assert int(box.surface[0, middle, middle]) == 2
    assert float(box.depth[0, 0, 0]) == FAR
    ball = hits_of(one_shape(ShapeKind.SPHERE, [0.0, 0.0, 4.0], [1.0, 2.0, 0.5]), cameras)
    assert float(ball.depth[0, middle, middle]) == pytest.approx(3.5)
    room = hits_of(one_shape(ShapeKind.ROOM, [0.0, 0.0, 0.0], [9.0, 9.0, 2.0]), cameras)
    assert torch.allclose(room.depth, torch.full_like(room.depth, 2.0))
    pillar = hits_of(one_shape(ShapeKind.CYLINDER, [0.0, 0.0, 3.0], [1.0, 9.0, 1.0]), cameras)
    off_axis = (torch.arange(33) + 0.5 - 16.5) / 30
    a, b = 1 + off_axis**2, torch.tensor(-3.0)
    expected = (-b - (b * b - a * 8).sqrt()) / a
    hit = pillar.depth[0, middle] < FAR
    assert hit.sum() > 15
    assert torch.allclose(pillar.depth[0, middle][hit], expected[hit], atol=1e-4)


def test_every_hit_lies_on_its_surface():
    _, depth, cameras, world = procedural_views(8, 2, 24, 24, "room")
    rows, columns = torch.meshgrid(torch.arange(24), torch.arange(24), indexing="ij")
    pixels = torch.stack([columns + 0.5, rows + 0.5, torch.ones_like(rows)], -1).double()
    for view in range(2):
        local = pixels @ torch.linalg.inv(cameras.K[view]).T * depth[view, ..., None]
        points = local @ cameras.c2w[view, :3, :3].T + cameras.c2w[view, :3, 3]
        assert float(world.clearance(points.view(-1, 3).float()).abs().max()) < 0.02


def test_supersampling_keeps_the_picture_and_smooths_edges():
    world = make_world(13, "room")
    cameras = make_path(world, 1, height=64, width=64)
    coarse, fine, finer = (world.render(cameras, s)[0] for s in (1, 2, 4))
    assert torch.equal(world.render(cameras, 1)[1], world.render(cameras, 4)[1])
    assert (fine - finer).abs().mean() < (coarse - finer).abs().mean()
    assert (coarse - finer).abs().mean() < 0.05


def test_a_resized_view_is_the_mean_of_the_large_one():
    world = make_world(21, "room")
    cameras = make_path(world, 1, "arc", height=64, width=64)
    small = world.render(cameras, 2)[0]
    large = torch.nn.functional.avg_pool2d(world.render(cameras.resized(256, 256), 2)[0], 4)
    assert (small - large).abs().mean() < 0.03


@pytest.mark.parametrize("motion", MOTIONS)
@given(seed=st.integers(0, 10**6))
@settings(max_examples=4, deadline=None)
def test_cameras_stay_in_free_space(motion, seed):
    world = make_world(seed)
    cameras = make_path(world, 5, motion, height=64, width=48, seed=seed)
    assert (cameras.height, cameras.width) == (64, 48)
    assert float(world.clearance(cameras.centres.float()).min()) >= MIN_CLEARANCE
    fov = np.degrees(2 * np.arctan(32 / float(cameras.K[0, 0, 0])))
    assert 45 <= fov <= 80


def test_paths_of_one_world_differ_by_seed():
    world = make_world(1)
    first, second = (make_path(world, 3, seed=seed) for seed in (0, 1))
    assert not torch.allclose(first.c2w, second.c2w)


def test_clearance_is_negative_inside_matter():
    box = one_shape(ShapeKind.BOX, [0.0, 0.0, 0.0], [1.0, 1.0, 1.0])
    points = torch.tensor([[0.0, 0.0, 0.0], [3.0, 0.0, 0.0], [2.0, 2.0, 1.0]])
    assert torch.allclose(box.clearance(points), torch.tensor([-1.0, 2.0, 2**0.5]))
    room = one_shape(ShapeKind.ROOM, [0.0, 0.0, 0.0], [2.0, 2.0, 2.0])
    assert torch.allclose(room.clearance(points), torch.tensor([2.0, -1.0, 0.0]))
    ball = one_shape(ShapeKind.SPHERE, [0.0, 0.0, 0.0], [1.0, 1.0, 1.0])
    assert torch.allclose(ball.clearance(points), torch.tensor([-1.0, 2.0, 2.0]))


def test_tiles_repeat_without_a_seam():
    noise = spectral_noise(generator("train", "test"), 1.6)
    inner = np.abs(np.diff(noise, axis=1)).mean()
    assert np.abs(noise[:, 0] - noise[:, -1]).mean() < 2 * inner
    assert tile("train", "wall", 0).shape == (MIP_TEXELS,)


def test_sampling_reproduces_texel_centres_and_the_mean():
    texels = tile("train", "wall", 1)
    stack, layer = torch.from_numpy(texels)[None], torch.zeros(2, dtype=torch.int32)
    uv = torch.tensor([[3.5, 10.5 + TILE], [7.5, 20.5 - TILE]]) / TILE
    finest = texels[: TILE * TILE].view(np.uint8).reshape(TILE, TILE, 4)[..., :3] / 255
    found = sample(stack, layer, uv, torch.zeros(2))
    assert np.allclose(found.T.numpy(), finest[[7, 20], [3, 10]], atol=1e-4)
    mean = sample(stack, layer, uv, torch.full((2,), 20.0))
    assert np.allclose(mean.T.numpy(), finest.mean((0, 1)), atol=0.01)


def test_a_moved_world_renders_the_same():
    world = make_world(2, "plaza")
    cameras = make_path(world, 1, height=16, width=16)
    moved = world.to("cpu")
    assert torch.equal(world.render(cameras)[0], moved.render(cameras)[0])


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: make_world(0, "cave"), "kind: unknown value 'cave'; choose one of room, corridor, plaza, mixed"),
        (lambda: make_world(0, split="dev"), "split: unknown value 'dev'; choose one of train, val, test"),
        (lambda: make_world(-1), "seed: it is -1; give an integer from 0"),
        (
            lambda: make_path(make_world(0), 2, "teleport"),
            "motion: unknown value 'teleport'; choose one of arc, walk, drone, handheld, mixed",
        ),
        (lambda: make_path(make_world(0), 0), "num_views: it is 0; give 1 or more views"),
        (
            lambda: procedural_views(0, 1, 8, 8, supersample=0),
            "supersample: it is 0; give 1 or more samples per pixel side",
        ),
    ],
)
def test_errors_are_one_sentence(call, sentence):
    with pytest.raises(InputError, match=f"^{re.escape(sentence)}$"):
        call()


@pytest.mark.parametrize("kind", VARIED_KINDS)
def test_training_only_kinds_can_be_walked_through(kind):
    world = next(w for w in (make_world(seed, textured=False) for seed in range(200)) if w.kind == kind)
    world = make_world(world.seed)
    cameras = make_path(world, 3, height=32, width=32)
    rgb, depth = world.render(cameras)
    assert torch.isfinite(rgb).all()
    assert rgb.std() > 0.02
    assert depth.min() > 0
    assert float(world.clearance(cameras.centres.float()).min()) >= MIN_CLEARANCE


def test_training_only_kinds_are_absent_from_the_test_split_and_named_kinds():
    kinds = {make_world(seed, split="test", textured=False).kind for seed in range(40)}
    assert kinds == set(KINDS)
    assert len({make_world(seed, split="val", textured=False).kind for seed in range(40)}) > len(KINDS)


def test_the_test_splits_worlds_are_pinned():
    """Published figures refer to these scenes: a change invalidates them."""
    stages = [make_world(seed, split="test", textured=False).stage for seed in range(12)]
    sums = [float(s.primitives.centre.double().sum() + s.faces.gain.double().sum()) for s in stages]
    assert sum(sums) == pytest.approx(8188.7075222842395, rel=1e-4)
