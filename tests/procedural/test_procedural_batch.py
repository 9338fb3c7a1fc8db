import numpy as np
import pytest
import torch

from sphinx_nvs.procedural import make_path, make_world
from sphinx_nvs.procedural.batch import pack_worlds, render_worlds

SEEDS = (1, 2, 3)


@pytest.fixture(scope="module")
def worlds():
    return [make_world(seed, split="val") for seed in SEEDS]


@pytest.fixture(scope="module")
def textures(worlds):
    tiles = np.zeros((len(library.catalogue()), library.MIP_TEXELS), np.int32)
    for key in {key for world in worlds for key in world.tiles}:
        tiles[library.catalogue()[key]] = library.tile("val", *key)
    return torch.from_numpy(tiles)


@pytest.mark.parametrize("supersample", [1, 2])
def test_a_batch_renders_like_each_world_alone(worlds, textures, supersample):
    paths = [make_path(world, 2, height=24, width=32) for world in worlds]
    c2w, K = (torch.stack([getattr(path, name) for path in paths]) for name in ("c2w", "K"))
    rgb, depth = render_worlds(pack_worlds(worlds), textures, c2w, K, 24, 32, supersample)
    for i, world in enumerate(worlds):
        alone_rgb, alone_depth = world.render(paths[i], supersample)
        torch.testing.assert_close(depth[i], alone_depth, atol=1e-3, rtol=1e-3)
        # Rounding may send a ray to the other side of an edge.
        assert ((rgb[i] - alone_rgb).abs() > 1e-3).float().mean() < 0.002


def test_a_world_without_textures_is_the_same_world(worlds):
    bare = make_world(SEEDS[0], split="val", textured=False)
    assert bare.tiles == worlds[0].tiles
    assert len(bare.stage.textures) == 0
    assert torch.equal(bare.stage.faces.scale, worlds[0].stage.faces.scale)


def test_unused_slots_are_out_of_view(worlds):
    packed = pack_worlds(worlds)
    counts = [len(world.stage.primitives.kind) for world in worlds]
    assert len(packed.kinds) > max(counts) or len(set(counts)) == 1
    hidden = packed.centre[..., 0] < -1e5
    assert hidden.sum(1).tolist() == [len(packed.kinds) - count for count in counts]
    assert len(packed[1:]) == len(worlds) - 1
